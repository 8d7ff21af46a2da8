// Package statetest draws states and what may become of them, for properties. They are small, and full of what is seldom met on a
// host: addresses and ports that two containers claim, ranges that touch, networks within others. It is for tests.
package statetest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
)

// Draw returns a state.
func Draw(t *rapid.T) state.Snapshot {
	var s state.Snapshot
	for i := range rapid.IntRange(1, 3).Draw(t, "networks") {
		s.Networks = append(s.Networks, network(t, i))
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "endpoints") {
		s.Endpoints = append(s.Endpoints, endpoint(t, i))
	}
	return s
}

// Loopback returns a function that says for some networks, all or none that loopback addresses lead there.
func Loopback(t *rapid.T) func(state.Network) bool {
	ids := rapid.StringMatching("[0-3]{0,4}").Draw(t, "networks of loopback")
	return func(n state.Network) bool { return strings.Contains(ids, string(n.ID[:1])) }
}

// Proxied returns the networks with IPv4 to which the host's loopback addresses do not lead (firewall.Host).
func Proxied(s state.Snapshot, leads func(state.Network) bool) []state.NetworkID {
	var out []state.NetworkID
	for _, n := range s.Networks {
		if !n.V4.IsZero() && !leads(n) {
			out = append(out, n.ID)
		}
	}
	return out
}

// Diverts reports whether containers of the state may be reached by transparent sockets (firewall.Host), where the daemon's mode is
// dnat.
func Diverts(s state.Snapshot) bool {
	return len(s.ByHost(func(e state.Exposure) state.Publish { return e.Publish })) > 0
}

// Next returns a state that one or two changes make of another, most of them of a container.
func Next(t *rapid.T, s state.Snapshot) state.Snapshot {
	s.Revision++
	s.Networks, s.Endpoints = slices.Clone(s.Networks), slices.Clone(s.Endpoints)
	for range rapid.IntRange(1, 2).Draw(t, "changes") {
		switch rapid.IntRange(0, 7).Draw(t, "change") {
		case 0:
			n := network(t, rapid.IntRange(0, 3).Draw(t, "network"))
			s.Networks = slices.DeleteFunc(s.Networks, func(o state.Network) bool { return o.ID == n.ID })
			if rapid.Bool().Draw(t, "made") {
				s.Networks = append(s.Networks, n)
			}
		case 1:
			if rapid.IntRange(0, 3).Draw(t, "rare") == 0 {
				s.Forwarding.V4 = !s.Forwarding.V4
			}
		default:
			e := endpoint(t, rapid.IntRange(0, 7).Draw(t, "endpoint"))
			s.Endpoints = slices.DeleteFunc(s.Endpoints, func(o state.Endpoint) bool { return o.ID == e.ID })
			if rapid.IntRange(0, 3).Draw(t, "kind") > 0 {
				s.Endpoints = append(s.Endpoints, e)
			}
		}
	}
	s.Sort()
	return s
}

func network(t *rapid.T, i int) state.Network {
	seldom := func(what string) bool { return rapid.IntRange(0, 5).Draw(t, what) == 0 }
	n := state.Network{
		ID: state.NetworkID(strings.Repeat(fmt.Sprint(i), 64)), Bridge: fmt.Sprintf("br-%d", i),
		Internal: seldom("internal"), NoICC: seldom("no icc"), Adopted: seldom("adopted"),
		V4: subnet(t, fmt.Sprintf("10.1.%d.1/24", i)), V6: subnet(t, fmt.Sprintf("fd00:%d::1/64", i)), Exposure: exposure(t),
	}
	switch {
	case seldom("wide"): // others are within
		n.V4 = subnet(t, "10.1.0.1/16")
	case seldom("without IPv4"):
		n.V4 = state.Subnet{}
	case seldom("without IPv6"):
		n.V6 = state.Subnet{}
	}
	return n
}

// Modes returns what the daemon's mode and auto come to (firewall.Host).
func Modes(t *rapid.T) state.Modes {
	decided := []state.Publish{state.PublishInherit, state.PublishDNAT, state.PublishHost, state.PublishLearned, state.PublishLocalhost}
	return state.Modes{
		Inherit: rapid.SampledFrom(decided).Draw(t, "inherit"), Auto: rapid.SampledFrom(decided).Draw(t, "auto"),
		Strict: rapid.IntRange(0, 4).Draw(t, "strict") == 0,
	}
}

// exposure is nothing in particular for half of those who have one.
func exposure(t *rapid.T) state.Exposure {
	return state.Exposure{
		Publish: rapid.SampledFrom([]state.Publish{
			"", "", "", "", "", state.PublishAuto, state.PublishDNAT, state.PublishHost, state.PublishLearned, state.PublishLocalhost,
		}).Draw(t, "publish"),
		From: rapid.SampledFrom([]state.Prefixes{
			"", "", "", "", "", "0.0.0.0/0,::/0", "192.0.2.0/24,192.0.2.7/32", "192.0.2.0/24,198.51.100.7/32,2001:db8::/32", "2001:db8::/32,2001:db8::1/128",
		}).Draw(t, "from"),
		Links: rapid.SampledFrom([]state.LinkNames{"", "", "", "", "eth0", "eth1:eth0:eth1"}).Draw(t, "by"),
	}
}

func subnet(t *rapid.T, gateway string) state.Subnet {
	p := netip.MustParsePrefix(gateway)
	own := netip.Addr{}
	if rapid.IntRange(0, 3).Draw(t, "a source of its own") == 0 {
		own = map[bool]netip.Addr{true: netip.MustParseAddr("192.0.2.7"), false: netip.MustParseAddr("2001:db8::7")}[p.Addr().Is4()]
	}
	return state.Subnet{
		Prefix: p.Masked(), Gateway: p.Addr(), SNAT: own,
		Mode: rapid.SampledFrom([]state.GatewayMode{state.ModeNAT, state.ModeNAT, state.ModeRouted, state.ModeUnprotected}).Draw(t, "mode"),
	}
}

func endpoint(t *rapid.T, i int) state.Endpoint {
	at, host := rapid.IntRange(0, 3).Draw(t, "of network"), 10+i
	if rapid.IntRange(0, 9).Draw(t, "taken") == 0 {
		host = 10
	}
	e := state.Endpoint{
		ID: state.EndpointID(strings.Repeat(fmt.Sprint(i), 64)), Network: state.NetworkID(strings.Repeat(fmt.Sprint(at), 64)),
		Addr4: netip.MustParsePrefix(fmt.Sprintf("10.1.%d.%d/24", at, host)), Addr6: netip.MustParsePrefix(fmt.Sprintf("fd00:%d::%d/64", at, host)),
		Name:    rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "name"),
		Links:   rapid.SampledFrom([][]string{nil, nil, {"a"}, {"a", "b"}}).Draw(t, "links"),
		Exposed: []state.ContainerPort{{Proto: state.TCP, Port: 80}}, Exposure: exposure(t),
	}
	if rapid.IntRange(0, 4).Draw(t, "one family") == 0 {
		e.Addr6 = netip.Prefix{}
	}
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		e.Ports = append(e.Ports, ports(t, i)...)
	}
	slices.SortFunc(e.Ports, state.ComparePorts)
	e.Ports = slices.Compact(e.Ports)
	return e
}

// ports returns a row of ports. Few rows of different containers meet.
func ports(t *rapid.T, container int) []state.Port {
	base := 1000 * (1 + container)
	if rapid.IntRange(0, 9).Draw(t, "meets") == 0 {
		base = 1000
	}
	p := state.Port{
		Proto:    rapid.SampledFrom([]state.Proto{state.TCP, state.TCP, state.UDP}).Draw(t, "proto"),
		HostPort: uint16(base + rapid.IntRange(0, 30).Draw(t, "first")),
		HostIP: rapid.SampledFrom([]netip.Addr{
			{},
			{},
			{},
			netip.IPv4Unspecified(), netip.IPv6Unspecified(),
			netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::1"),
		}).Draw(t, "host"),
	}
	p.ContainerPort = p.HostPort + uint16(rapid.IntRange(0, 1).Draw(t, "shift"))
	routed := rapid.IntRange(0, 9).Draw(t, "routed") == 0
	var out []state.Port
	for range rapid.IntRange(1, 20).Draw(t, "length") {
		out = append(out, p)
		p.HostPort++
		p.ContainerPort++
	}
	if routed {
		for i := range out {
			out[i].HostPort = 0
		}
	}
	return out
}
