package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	second := func(n *state.Network) {
		n.ID, n.Bridge, n.V4 = state.NetworkID(id("2")), "br-two", subnet("10.2.0.0/24", "10.2.0.1")
	}
	proxied := func(p Port) Port { p.Proxied = true; return p }
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
			name: "translated loopback", state: one(network(), endpoint(port("127.0.0.1"), port("::1"), port(""))), host: Host{Loopback: true},
			v4: Family{Networks: nets4, Loopback: true, Ports: []Port{rendered("127.0.0.1", to4), rendered("", to4)}},
			v6: Family{Networks: nets6, Ports: []Port{rendered("", to6)}},
		},
		{
			name: "translated loopback is not SCTP's", host: Host{Loopback: true},
			state: one(network(), endpoint(state.Port{Proto: state.SCTP, HostPort: 8080, ContainerPort: 80})),
			v4:    Family{Networks: nets4, Loopback: true, Ports: []Port{{Proto: state.SCTP, Proxied: true, HostPort: 8080, Target: netip.MustParseAddrPort(to4)}}},
			v6:    Family{Networks: nets6, Ports: []Port{{Proto: state.SCTP, HostPort: 8080, Target: netip.MustParseAddrPort(to6)}}},
		},
		{
			name: "translated loopback of another network", host: Host{Loopback: true, Proxied: []state.NetworkID{network().ID}},
			state: state.Snapshot{
				Networks:  []state.Network{network(no6), network(no6, second)},
				Endpoints: []state.Endpoint{endpoint(port("127.0.0.1"), port("192.0.2.1"), port(""))},
			},
			v4: Family{
				Networks: []Network{net4, {Prefix: netip.MustParsePrefix("10.2.0.0/24"), Bridge: "br-two", Masquerade: true}}, Loopback: true,
				Ports: []Port{rendered("192.0.2.1", to4), proxied(rendered("", to4))},
			},
		},
		{
			name: "translated loopback, IPv6 only", state: one(network(no4)), host: Host{Loopback: true},
			v4: Family{Strangers: true}, v6: Family{Networks: nets6},
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

// drawState returns a state of up to five networks with their endpoints, all of which would pass Validate.
func drawState(t *rapid.T) state.Snapshot {
	var s state.Snapshot
	for i := range rapid.IntRange(0, 5).Draw(t, "networks") {
		n := drawNetwork(t, i)
		s.Networks = append(s.Networks, n)
		for j := range rapid.IntRange(0, 3).Draw(t, "endpoints") {
			s.Endpoints = append(s.Endpoints, drawEndpoint(t, n, i, j))
		}
	}
	s.Forwarding = state.Forwarding{V4: rapid.Bool().Draw(t, "forwarding4"), V6: rapid.Bool().Draw(t, "forwarding6")}
	s.Sort()
	return s
}

func drawNetwork(t *rapid.T, i int) state.Network {
	is := func(label string) bool { return rapid.IntRange(0, 2).Draw(t, label) == 0 }
	n := state.Network{
		ID: state.NetworkID(id(fmt.Sprint(i))), Bridge: fmt.Sprint("br-", i),
		Internal: is("internal"), NoICC: is("noICC"), NoMasquerade: is("noMasquerade"), Adopted: is("adopted"),
		Trusted: rapid.SampledFrom([]state.LinkNames{"", "eth0", "eth1:eth0"}).Draw(t, "trusted"),
	}
	families := rapid.IntRange(1, 3).Draw(t, "families")
	if families&1 != 0 {
		n.V4 = drawSubnet(t, n, fmt.Sprintf("10.%d.0.0/24", i), fmt.Sprintf("10.%d.0.1", i), "192.0.2.7")
	}
	if families&2 != 0 {
		n.V6 = drawSubnet(t, n, fmt.Sprintf("fd00:%d::/64", i), fmt.Sprintf("fd00:%d::1", i), "2001:db8::7")
	}
	if err := n.Validate(); err != nil {
		t.Fatal(err)
	}
	return n
}

func drawSubnet(t *rapid.T, n state.Network, prefix, gateway, snat string) state.Subnet {
	s := subnet(prefix, gateway)
	modes := []state.GatewayMode{state.ModeNAT, state.ModeUnprotected, state.ModeRouted}
	if n.Internal {
		modes = append(modes, state.ModeIsolated)
	}
	s.Mode = rapid.SampledFrom(modes).Draw(t, "mode")
	s.NoAddress = rapid.Bool().Draw(t, "noAddress")
	if rapid.Bool().Draw(t, "snat") {
		s.SNAT = netip.MustParseAddr(snat)
	}
	return s
}

var names = []string{"db", "web", "cache"}

func drawEndpoint(t *rapid.T, n state.Network, i, j int) state.Endpoint {
	e := state.Endpoint{
		ID: state.EndpointID(id(string(rune('a' + 3*i + j)))), Network: n.ID, Ports: drawPorts(t, 3*i+j),
		Name: rapid.SampledFrom(append(names, "")).Draw(t, "name"),
	}
	if !n.V4.IsZero() {
		e.Addr4 = netip.MustParsePrefix(fmt.Sprintf("10.%d.0.%d/24", i, j+2))
	}
	if !n.V6.IsZero() {
		e.Addr6 = netip.MustParsePrefix(fmt.Sprintf("fd00:%d::%d/64", i, j+2))
	}
	e.Links = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID).Draw(t, "links")
	for _, p := range []uint16{80, 81} {
		if rapid.Bool().Draw(t, "exposed") {
			e.Exposed = append(e.Exposed, state.ContainerPort{Proto: state.TCP, Port: p})
		}
	}
	return e
}

// drawPorts gives each endpoint host ports of its own.
func drawPorts(t *rapid.T, i int) []state.Port {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) state.Port {
		p := port(rapid.SampledFrom([]string{"", "0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"}).Draw(t, "host"))
		p.Proto = rapid.SampledFrom([]state.Proto{state.TCP, state.UDP, state.SCTP}).Draw(t, "proto")
		p.HostPort = uint16(1000*i + rapid.IntRange(1, 999).Draw(t, "port"))
		p.ContainerPort = rapid.SampledFrom([]uint16{80, 81}).Draw(t, "container port")
		if p.HostIP.IsValid() && p.HostIP.IsUnspecified() && rapid.Bool().Draw(t, "routed") {
			p.HostPort = 0
		}
		return p
	}), 0, 5).Draw(t, "ports")
}

func equalPolicies(t *rapid.T, what string, a, b Policy) {
	t.Helper()
	if diff := cmp.Diff(a, b, append(values, cmpopts.EquateEmpty())...); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

// clone copies a state as deeply as a change could reach.
func clone(s state.Snapshot) state.Snapshot {
	s.Networks, s.Endpoints = slices.Clone(s.Networks), slices.Clone(s.Endpoints)
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Ports, e.Links, e.Exposed = slices.Clone(e.Ports), slices.Clone(e.Links), slices.Clone(e.Exposed)
	}
	return s
}

func TestRenderProperties(t *testing.T) {
	host := Host{DockerBridges: []string{"docker0", "br-9"}}
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		before := clone(s)
		policy := Render(s, host)
		equalPolicies(t, "rendered twice", policy, Render(s, host))
		if diff := cmp.Diff(before, s, values...); diff != "" {
			t.Errorf("Render changed the state:\n%s", diff)
		}

		shuffled := clone(s) // Networks stay sorted by id: Snapshot.Network searches them
		shuffled.Endpoints = rapid.Permutation(shuffled.Endpoints).Draw(t, "endpoints")
		for i := range shuffled.Endpoints {
			e := &shuffled.Endpoints[i]
			e.Ports = rapid.Permutation(e.Ports).Draw(t, "ports")
			e.Links = rapid.Permutation(e.Links).Draw(t, "links")
			e.Exposed = rapid.Permutation(e.Exposed).Draw(t, "exposed")
		}
		equalPolicies(t, "in another order", policy, Render(shuffled, Host{DockerBridges: []string{"br-9", "docker0"}}))

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
		equalPolicies(t, "added and removed", policy, Render(more, host))
	})
}

// TestRenderMinus: what has nothing to say for the firewall renders like a state that never had it.
func TestRenderMinus(t *testing.T) {
	minus := []struct {
		name  string
		never func(*state.Snapshot)   // the state that never had it
		empty func(e *state.Endpoint) // an endpoint without it; nil for none
	}{
		{"endpoints without ports and names", func(s *state.Snapshot) { s.Endpoints = nil }, func(e *state.Endpoint) { e.Ports, e.Name = nil, "" }},
		{"endpoints without ports and links", func(s *state.Snapshot) { s.Endpoints = nil }, func(e *state.Endpoint) { e.Ports, e.Links = nil, nil }},
		{"links to what exposes nothing", func(s *state.Snapshot) { each(s, func(e *state.Endpoint) { e.Links = nil }) }, func(e *state.Endpoint) { e.Exposed = nil }},
		{"links to nobody", func(s *state.Snapshot) { each(s, func(e *state.Endpoint) { e.Links = nil }) }, func(e *state.Endpoint) { e.Links = []string{"nobody"} }},
		{"what names links, exposed ports and the like without NoICC", func(s *state.Snapshot) {
			for i := range s.Networks {
				s.Networks[i].NoICC = false
			}
			each(s, func(e *state.Endpoint) { e.Links, e.Exposed, e.Name = nil, nil, "" })
		}, nil},
		{"what is only of the links", func(s *state.Snapshot) {
			each(s, func(e *state.Endpoint) { e.LinkPrefix, e.Sandbox, e.MAC = "", "", state.MAC{} })
		}, func(e *state.Endpoint) { e.LinkPrefix, e.Sandbox, e.MAC = "web", "/run/x", state.MAC{2} }},
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		m := rapid.SampledFrom(minus).Draw(t, "minus")
		never, with := clone(s), clone(s)
		m.never(&never)
		if m.empty != nil {
			each(&with, m.empty)
		} else {
			for i := range with.Networks {
				with.Networks[i].NoICC = false
			}
		}
		equalPolicies(t, m.name, Render(never, Host{}), Render(with, Host{}))
	})
}

func each(s *state.Snapshot, edit func(*state.Endpoint)) {
	for i := range s.Endpoints {
		edit(&s.Endpoints[i])
	}
}

// TestRenderByNetwork: networks have nothing to do with each other. A policy is the sum of those of its
// networks, so that one that goes takes its own elements along and nothing else.
func TestRenderByNetwork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		s.Forwarding = state.Forwarding{}
		var v4, v6 Family
		for _, n := range s.Networks {
			alone := state.Snapshot{Networks: []state.Network{n}}
			for _, e := range s.Endpoints {
				if e.Network == n.ID {
					alone.Endpoints = append(alone.Endpoints, e)
				}
			}
			p := Render(alone, Host{})
			v4, v6 = sum(v4, p.V4), sum(v6, p.V6)
		}
		v6.V6 = true
		equalPolicies(t, "network by network", Policy{V4: v4, V6: v6}, Render(s, Host{}))
	})
}

func sum(a, b Family) Family {
	a.Strangers = a.Strangers || b.Strangers
	a.Networks = append(a.Networks, b.Networks...)
	a.Ports, a.Open = append(a.Ports, b.Ports...), append(a.Open, b.Open...)
	a.Links = append(a.Links, b.Links...)
	slices.SortFunc(a.Networks, func(x, y Network) int { return comparePrefix(x.Prefix, y.Prefix) })
	slices.SortFunc(a.Ports, comparePort)
	slices.SortFunc(a.Open, compareTarget)
	slices.SortFunc(a.Links, compareLink)
	return a
}

// TestRenderGivesNoMore: nothing is open that no option asked for.
func TestRenderGivesNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		for _, f := range Render(s, Host{}).Families() {
			for _, n := range f.Networks {
				checkNetwork(t, s, n)
			}
			for _, p := range f.Ports {
				if n := owner(t, s, p.Target.Addr()); n.Internal || n.Family(f.V6).IsZero() {
					t.Errorf("network %s publishes %v", n.Bridge, p)
				}
			}
			for _, o := range f.Open {
				if n := owner(t, s, o.Addr.Addr()); n.Internal {
					t.Errorf("internal network %s opens %v", n.Bridge, o)
				}
			}
			for _, l := range f.Links {
				if from, to := owner(t, s, l.From), owner(t, s, l.To.Addr.Addr()); from.ID != to.ID || !from.NoICC || l.From == l.To.Addr.Addr() {
					t.Errorf("link of %s and %s: %v", from.Bridge, to.Bridge, l)
				}
			}
		}
	})
}

func checkNetwork(t *rapid.T, s state.Snapshot, got Network) {
	n := owner(t, s, got.Prefix.Addr())
	mode := n.Family(got.Prefix.Addr().Is6()).Mode
	switch {
	case got.NoICC != n.NoICC:
		t.Errorf("%s: NoICC %v", n.Bridge, got.NoICC)
	case n.Internal && (got.Masquerade || got.SNAT.IsValid() || got.Routed || got.Unprotected || len(got.Trusted) > 0):
		t.Errorf("internal network %s: %+v", n.Bridge, got)
	case got.Masquerade && (n.NoMasquerade || mode == state.ModeRouted), got.SNAT.IsValid() && !got.Masquerade:
		t.Errorf("%s in mode %s is translated: %+v", n.Bridge, mode, got)
	case got.Routed && mode != state.ModeRouted, got.Unprotected && mode != state.ModeUnprotected:
		t.Errorf("%s is in mode %s: %+v", n.Bridge, mode, got)
	}
}

// owner returns the network that an address belongs to.
func owner(t *rapid.T, s state.Snapshot, a netip.Addr) state.Network {
	for _, n := range s.Networks {
		for _, subnet := range n.Subnets() {
			if subnet.Prefix.Contains(a) {
				return n
			}
		}
	}
	t.Fatalf("%s belongs to no network", a)
	return state.Network{}
}

// fakeBackend renders for one host and returns err.
type fakeBackend struct {
	Backend
	host   Host
	err    error
	got    Policy
	change Change
	says   bool // that it is told the change
}

func (f *fakeBackend) Follow(ctx context.Context, w Wanted) error { return f.Sync(ctx, w) }

func (f *fakeBackend) Sync(_ context.Context, w Wanted) error {
	f.change, f.says = w.Change(f.host)
	f.got = w.Policy(f.host)
	return f.err
}

func (f *fakeBackend) Inspect(_ context.Context, w Wanted) ([]string, error) {
	f.got = w.Policy(f.host)
	return nil, f.err
}

func (f *fakeBackend) Rules(p Policy) string { return fmt.Sprintf("%d networks", len(p.V4.Networks)) }

func TestPlane(t *testing.T) {
	fake := &fakeBackend{err: errors.New("locked"), host: Host{DockerBridges: []string{"docker0"}}}
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

// TestPlaneChanges: the backend is told what differs from what it last made true, on the same host.
func TestPlaneChanges(t *testing.T) {
	fake := &fakeBackend{}
	leads := false
	plane := NewPlane(fake, Settings{Loopback: func(state.Network) bool { return leads }})
	n := network()
	e := endpoint(port(""))
	empty, published := state.Snapshot{Networks: []state.Network{n}}, state.Snapshot{Networks: []state.Network{n}, Endpoints: []state.Endpoint{e}}
	step := func(name string, err error, says bool, before, after int) {
		t.Helper()
		if !errors.Is(err, fake.err) || fake.says != says || len(fake.change.Before.V4.Ports) != before || len(fake.change.After.V4.Ports) != after {
			t.Errorf("%s: says %v: %+v, error %v", name, fake.says, fake.change, err)
		}
	}
	step("the first", plane.Apply(t.Context(), empty), false, 0, 0)
	step("a port", plane.Follow(t.Context(), state.Compare(empty, published)), true, 0, 1)
	step("nothing", plane.Apply(t.Context(), published), true, 0, 0)
	fake.err = errors.New("locked")
	step("a failure", plane.Apply(t.Context(), empty), true, 1, 0)
	fake.err = nil
	step("what failed, once more", plane.Apply(t.Context(), empty), true, 1, 0)
	fake.host = Host{DockerBridges: []string{"docker0"}}
	step("another host", plane.Apply(t.Context(), empty), false, 0, 0)
	step("the same", plane.Apply(t.Context(), empty), true, 0, 0)
	fake.host = Host{}
	step("the first host", plane.Apply(t.Context(), empty), false, 0, 0)
	leads = true
	step("another way for loopback addresses", plane.Follow(t.Context(), state.Compare(empty, published)), false, 0, 0)
	step("no more", plane.Follow(t.Context(), state.Compare(published, empty)), true, 1, 0)
}

// TestPlaneAsksOn: who replaces the rules in DOCKER-USER takes them away for a moment, in which it goes on being asked. One that stays empty
// is not, nor is one of a kernel that cannot ask.
func TestPlaneAsksOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeBackend{}
		plane := NewPlane(fake, Settings{Divert: func(state.Snapshot) bool { return true }, AskOn: time.Minute})
		s, none := state.Snapshot{Networks: []state.Network{network()}}, Both{}
		for _, step := range []struct {
			after       time.Duration
			found, want Both
			unable      bool
		}{
			{0, none, none, false},
			{0, Both{V4: true}, Both{V4: true}, false},
			{time.Hour, none, Both{V4: true}, false},
			{time.Minute - 1, Both{V6: true}, Both{V4: true, V6: true}, false},
			{1, Both{V6: true}, Both{V6: true}, false},
			{0, Both{V4: true, V6: true}, Both{V4: true, V6: true}, false},
			{time.Hour, none, Both{V4: true, V6: true}, false},
			{time.Minute, none, none, false},
			{0, Both{V4: true}, Both{V4: true}, true},
			{0, none, none, false},
		} {
			time.Sleep(step.after)
			fake.host = Host{UserRules: step.found, NoInquiry: step.unable}
			if err := plane.Apply(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if asked, _ := plane.Inquire(); asked != step.want || fake.got.V4.Inquire != (step.want.V4 && !step.unable) || fake.got.V6.Inquire != step.want.V6 {
				t.Errorf("%v after the last: found %v: asked are %v, want %v; rules for it %v and %v", step.after, step.found, asked, step.want, fake.got.V4.Inquire, fake.got.V6.Inquire)
			}
			if _, err := plane.Inspect(t.Context(), s); err != nil || fake.got.V6.Inquire != step.want.V6 {
				t.Errorf("%v after the last: found %v: the inspection wants another host (%v)", step.after, step.found, err)
			}
		}
	})
}

// TestPlaneTurns: it is told which ports are translated that were left to the host before, and those alone.
func TestPlaneTurns(t *testing.T) {
	fake := &fakeBackend{}
	modes := state.Modes{Auto: state.PublishLearned}
	plane := NewPlane(fake, Settings{Publish: func() state.Modes { return modes }})
	always, auto := network(), network()
	auto.ID, auto.Bridge, auto.Exposure.Publish = state.NetworkID(id("2")), "br-two", state.PublishAuto
	auto.V4, auto.V6 = subnet("10.2.0.0/24", "10.2.0.1"), subnet("fd00:2::/64", "fd00:2::1")
	one, two := endpoint(port("")), endpoint(port("192.0.2.1"))
	one.Ports[0].HostPort, one.Exposure.Publish = 8081, state.PublishHost
	two.ID, two.Network = state.EndpointID(id("b")), auto.ID
	two.Addr4, two.Addr6 = netip.MustParsePrefix("10.2.0.2/24"), netip.MustParsePrefix("fd00:2::2/64")
	s := state.Snapshot{Networks: []state.Network{always, auto}, Endpoints: []state.Endpoint{one, two}}
	its := []Port{rendered("192.0.2.1", "10.2.0.2:80")}
	for _, step := range []struct {
		name  string
		modes state.Modes
		err   error
		want  []Port
	}{
		{name: "the first", modes: state.Modes{Auto: state.PublishLearned}},
		{name: "a failure", modes: state.Modes{}, err: errors.New("locked")},
		{name: "what failed, once more", modes: state.Modes{}, want: its},
		{name: "the same", modes: state.Modes{}},
		{name: "back", modes: state.Modes{Auto: state.PublishHost}},
		{name: "from one way by the host to the other", modes: state.Modes{Auto: state.PublishLearned}},
		{name: "to nobody", modes: state.Modes{Auto: state.PublishLocalhost}},
		{name: "from nobody", modes: state.Modes{Auto: state.PublishDNAT}, want: its},
		{name: "strict", modes: state.Modes{Auto: state.PublishDNAT, Strict: true}},
		{name: "strict no more", modes: state.Modes{Auto: state.PublishDNAT}, want: its},
	} {
		modes, fake.err = step.modes, step.err
		if err := plane.Apply(t.Context(), s); !errors.Is(err, step.err) {
			t.Errorf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, plane.Turned(), values...); diff != "" {
			t.Errorf("%s: turned (-want +got):\n%s", step.name, diff)
		}
	}
}
