package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
)

var values = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// id makes an id of 64 characters out of one.
func id(c string) string { return strings.Repeat(c, 64) }

func subnet(prefix, gateway string) state.Subnet {
	return state.Subnet{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gateway)}
}

func network(edit ...func(*state.Network)) state.Network {
	n := state.Network{
		ID: state.NetworkID(id("1")), Bridge: "br-one",
		V4: subnet("10.1.0.0/24", "10.1.0.1"), V6: subnet("fd00:1::/64", "fd00:1::1"),
	}
	for _, e := range edit {
		e(&n)
	}
	return n
}

func endpoint(ports ...state.Port) state.Endpoint {
	return state.Endpoint{
		ID: state.EndpointID(id("a")), Network: state.NetworkID(id("1")),
		Addr4: netip.MustParsePrefix("10.1.0.2/24"), Addr6: netip.MustParsePrefix("fd00:1::2/64"), Ports: ports,
	}
}

func port(host string) state.Port {
	p := state.Port{Proto: state.TCP, HostPort: 8080, ContainerPort: 80}
	if host != "" {
		p.HostIP = netip.MustParseAddr(host)
	}
	return p
}

var (
	net4 = Network{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Bridge: "br-one", Masquerade: true}
	net6 = Network{Prefix: netip.MustParsePrefix("fd00:1::/64"), Bridge: "br-one", Masquerade: true}
)

func rendered(host, target string) Port {
	p := Port{Proto: state.TCP, HostPort: 8080, Target: netip.MustParseAddrPort(target)}
	if host != "" {
		p.Host = netip.MustParseAddr(host)
	}
	return p
}

func TestRender(t *testing.T) {
	const to4, to6 = "10.1.0.2:80", "[fd00:1::2]:80"
	one := func(n state.Network, e ...state.Endpoint) state.Snapshot {
		return state.Snapshot{Networks: []state.Network{n}, Endpoints: e}
	}
	no4 := func(n *state.Network) { n.V4 = state.Subnet{} }
	no6 := func(n *state.Network) { n.V6 = state.Subnet{} }
	internal := func(n *state.Network) { n.Internal = true }
	nets4, nets6 := []Network{net4}, []Network{net6}
	tests := []struct {
		name   string
		state  state.Snapshot
		host   Host
		v4, v6 Family
	}{
		{name: "nothing"},
		{name: "nothing, Docker on the host", host: Host{DockerBridges: []string{"docker0"}}},
		{name: "both families", state: one(network()), v4: Family{Networks: nets4}, v6: Family{Networks: nets6}},
		{name: "IPv4 only", state: one(network(no6)), v4: Family{Networks: nets4}},
		{name: "IPv6 only", state: one(network(no4)), v4: Family{Strangers: true}, v6: Family{Networks: nets6}},
		{
			name: "internal", state: one(network(internal)),
			v4: Family{Networks: []Network{{Prefix: net4.Prefix, Bridge: "br-one"}}},
			v6: Family{Networks: []Network{{Prefix: net6.Prefix, Bridge: "br-one"}}},
		},
		{
			name: "internal networks publish nothing", state: one(network(internal), endpoint(port(""))),
			v4: Family{Networks: []Network{{Prefix: net4.Prefix, Bridge: "br-one"}}},
			v6: Family{Networks: []Network{{Prefix: net6.Prefix, Bridge: "br-one"}}},
		},
		{
			name: "port on every address", state: one(network(), endpoint(port(""))),
			v4: Family{Networks: nets4, Ports: []Port{rendered("", to4)}},
			v6: Family{Networks: nets6, Ports: []Port{rendered("", to6)}},
		},
		{
			name: "port on 0.0.0.0", state: one(network(), endpoint(port("0.0.0.0"))),
			v4: Family{Networks: nets4, Ports: []Port{rendered("", to4)}}, v6: Family{Networks: nets6},
		},
		{
			name: "port on ::", state: one(network(), endpoint(port("::"))),
			v4: Family{Networks: nets4}, v6: Family{Networks: nets6, Ports: []Port{rendered("", to6)}},
		},
		{
			name: "port on one address of each family", state: one(network(), endpoint(port("192.0.2.1"), port("2001:db8::1"))),
			v4: Family{Networks: nets4, Ports: []Port{rendered("192.0.2.1", to4)}},
			v6: Family{Networks: nets6, Ports: []Port{rendered("2001:db8::1", to6)}},
		},
		{
			name: "port on loopback", state: one(network(), endpoint(port("127.0.0.1"), port("::1"))),
			v4: Family{Networks: nets4}, v6: Family{Networks: nets6},
		},
		{
			name:  "one address before every address",
			state: one(network(), endpoint(port(""), port("192.0.2.1"), port("2001:db8::1"))),
			v4:    Family{Networks: nets4, Ports: []Port{rendered("192.0.2.1", to4), rendered("", to4)}},
			v6:    Family{Networks: nets6, Ports: []Port{rendered("2001:db8::1", to6), rendered("", to6)}},
		},
		{
			name: "every address said twice", state: one(network(), endpoint(port(""), port("0.0.0.0"), port("::"))),
			v4: Family{Networks: nets4, Ports: []Port{rendered("", to4)}},
			v6: Family{Networks: nets6, Ports: []Port{rendered("", to6)}},
		},
		{
			name:  "endpoint of a network that is gone",
			state: state.Snapshot{Networks: nil, Endpoints: []state.Endpoint{endpoint(port(""))}},
		},
		{
			name: "guard in one family", state: state.Snapshot{Forwarding: state.Forwarding{V6: true}},
			host: Host{DockerBridges: []string{"docker0"}},
			v6:   Family{Guard: true, DockerBridges: []string{"docker0"}},
		},
		{
			name: "guard where br_netfilter is", state: state.Snapshot{Forwarding: state.Forwarding{V4: true}},
			host: Host{BridgeNetfilter: true},
			v4:   Family{Guard: true, BridgeNetfilter: true},
		},
		{
			name: "Docker's bridges, less ours, without doubles", state: one(network()),
			host: Host{DockerBridges: []string{"docker0", "br-one", "br-a", "docker0"}},
			v4:   Family{Networks: nets4, DockerBridges: []string{"br-a", "docker0"}},
			v6:   Family{Networks: nets6, DockerBridges: []string{"br-a", "docker0"}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.v6.V6 = true
			want := Policy{V4: test.v4, V6: test.v6}
			if diff := cmp.Diff(want, Render(test.state, test.host), values...); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// drawState returns a state of up to five networks and their endpoints.
func drawState(t *rapid.T) state.Snapshot {
	var s state.Snapshot
	for i := range rapid.IntRange(0, 5).Draw(t, "networks") {
		n := state.Network{ID: state.NetworkID(id(fmt.Sprint(i))), Bridge: fmt.Sprint("br-", i), Internal: rapid.Bool().Draw(t, "internal")}
		families := rapid.IntRange(1, 3).Draw(t, "families")
		e := state.Endpoint{ID: state.EndpointID(id(string(rune('a' + i)))), Network: n.ID, Ports: drawPorts(t, i)}
		if families&1 != 0 {
			n.V4 = subnet(fmt.Sprintf("10.%d.0.0/24", i), fmt.Sprintf("10.%d.0.1", i))
			e.Addr4 = netip.MustParsePrefix(fmt.Sprintf("10.%d.0.2/24", i))
		}
		if families&2 != 0 {
			n.V6 = subnet(fmt.Sprintf("fd00:%d::/64", i), fmt.Sprintf("fd00:%d::1", i))
			e.Addr6 = netip.MustParsePrefix(fmt.Sprintf("fd00:%d::2/64", i))
		}
		s.Networks, s.Endpoints = append(s.Networks, n), append(s.Endpoints, e)
	}
	s.Forwarding = state.Forwarding{V4: rapid.Bool().Draw(t, "forwarding4"), V6: rapid.Bool().Draw(t, "forwarding6")}
	return s
}

// drawPorts gives each endpoint host ports of its own.
func drawPorts(t *rapid.T, i int) []state.Port {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) state.Port {
		p := port(rapid.SampledFrom([]string{"", "0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"}).Draw(t, "host"))
		p.Proto = rapid.SampledFrom([]state.Proto{state.TCP, state.UDP, state.SCTP}).Draw(t, "proto")
		p.HostPort = uint16(1000*i + rapid.IntRange(1, 999).Draw(t, "port"))
		return p
	}), 0, 5).Draw(t, "ports")
}

func TestRenderProperties(t *testing.T) {
	host := Host{DockerBridges: []string{"docker0", "br-9"}}
	equal := func(t *rapid.T, what string, a, b Policy) {
		if diff := cmp.Diff(a, b, values...); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		policy := Render(s, host)
		equal(t, "rendered twice", policy, Render(s, host))

		shuffled := s // Networks stay sorted by id: Snapshot.Network searches them
		shuffled.Endpoints = rapid.Permutation(s.Endpoints).Draw(t, "endpoints")
		for i := range shuffled.Endpoints {
			e := &shuffled.Endpoints[i]
			e.Ports = rapid.Permutation(e.Ports).Draw(t, "ports")
		}
		equal(t, "in another order", policy, Render(shuffled, Host{DockerBridges: []string{"br-9", "docker0"}}))

		more := s
		extra := network(func(n *state.Network) { n.ID, n.Bridge = state.NetworkID(id("z")), "br-z" })
		e := endpoint(port(""))
		e.ID, e.Network = state.EndpointID(id("z")), extra.ID
		more.Networks = append(slices.Clone(s.Networks), extra)
		more.Endpoints = append(slices.Clone(s.Endpoints), e)
		if cmp.Equal(policy, Render(more, host), values...) {
			t.Error("one more network changed nothing")
		}
		more.Networks, more.Endpoints = more.Networks[:len(s.Networks)], more.Endpoints[:len(s.Endpoints)]
		equal(t, "added and removed", policy, Render(more, host))

		noPorts := s
		noPorts.Endpoints = nil
		noPorts.Endpoints = append(noPorts.Endpoints, s.Endpoints...)
		for i := range noPorts.Endpoints {
			noPorts.Endpoints[i].Ports = nil
		}
		never := s
		never.Endpoints = nil
		equal(t, "endpoints without ports", Render(never, host), Render(noPorts, host))
	})
}

// fakeBackend renders for one host and returns err.
type fakeBackend struct {
	Backend
	err error
	got Policy
}

func (f *fakeBackend) Sync(_ context.Context, render func(Host) Policy) error {
	f.got = render(Host{DockerBridges: []string{"docker0"}})
	return f.err
}

func (f *fakeBackend) Rules(p Policy) string { return fmt.Sprintf("%d networks", len(p.V4.Networks)) }

func TestPlane(t *testing.T) {
	fake := &fakeBackend{err: errors.New("locked")}
	plane := NewPlane(fake, Settings{})
	s := state.Snapshot{Networks: []state.Network{network()}}
	if err := plane.Apply(t.Context(), s); !errors.Is(err, fake.err) {
		t.Errorf("Apply returned %v", err)
	}
	if got := plane.Rules(); got != "" {
		t.Errorf("rules that are not in force: %s", got)
	}
	fake.err = nil
	if err := plane.Apply(t.Context(), s); err != nil {
		t.Errorf("Apply returned %v", err)
	}
	if diff := cmp.Diff(Render(s, Host{DockerBridges: []string{"docker0"}}), fake.got, values...); diff != "" {
		t.Errorf("the backend was given another policy:\n%s", diff)
	}
	if got := plane.Rules(); got != "1 networks" {
		t.Errorf("rules in force: %q", got)
	}
}
