package firewall

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

// TestRenderChange: a policy with what a change exchanges is the policy of the state after it.
func TestRenderChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		host := Host{
			NoIPv6: rapid.Bool().Draw(t, "no IPv6"), Loopback: rapid.Bool().Draw(t, "loopback"),
			DockerBridges: []string{"br-1", "docker0"},
		}
		modes := statetest.Modes(t)
		host.Modes = modes
		s := statetest.Draw(t)
		for _, n := range s.Networks {
			if rapid.Bool().Draw(t, "proxied") {
				host.Proxied = append(host.Proxied, n.ID)
			}
		}
		for range 5 {
			next := statetest.Next(t, s)
			change, ok := RenderChange(state.Compare(s, next), host)
			if ok {
				equalPolicies(t, "followed", Render(next, host), exchange(Render(s, host), change))
			}
			s = next
		}
	})
}

// exchange does to a policy what a change says.
func exchange(p Policy, c Change) Policy {
	p.V4, p.V6 = exchangeFamily(p.V4, c.Before.V4, c.After.V4), exchangeFamily(p.V6, c.Before.V6, c.After.V6)
	return p
}

func exchangeFamily(f, before, after Family) Family {
	if len(before.Networks)+len(after.Networks) > 0 {
		f.Networks, f.Strangers = after.Networks, after.Strangers
	}
	f.Ports = Exchange(f.Ports, before.Ports, after.Ports)
	f.Open = replace(f.Open, before.Open, after.Open)
	f.Links = replace(f.Links, before.Links, after.Links)
	slices.SortFunc(f.Open, compareTarget)
	slices.SortFunc(f.Links, compareLink)
	f.Limits = replace(f.Limits, before.Limits, after.Limits)
	slices.SortFunc(f.Limits, compareLimit)
	return f
}

func replace[T comparable](all, gone, come []T) []T {
	return append(slices.DeleteFunc(slices.Clone(all), func(v T) bool { return slices.Contains(gone, v) }), come...)
}

// TestRenderChangeSays: what a Change can say, and what it cannot.
func TestRenderChangeSays(t *testing.T) {
	n, other := network(), network(func(n *state.Network) {
		n.ID, n.Bridge = state.NetworkID(id("2")), "br-two"
		n.V4 = state.Subnet{Prefix: netip.MustParsePrefix("10.2.0.0/24"), Gateway: netip.MustParseAddr("10.2.0.1")}
		n.V6 = state.Subnet{}
	})
	at := func(i, addr string, ports ...state.Port) state.Endpoint {
		return state.Endpoint{ID: state.EndpointID(id(i)), Network: n.ID, Addr4: netip.MustParsePrefix(addr), Ports: ports}
	}
	eighty := state.Port{Proto: state.TCP, HostPort: 80, ContainerPort: 80}
	here := func(p state.Port) state.Port { p.HostIP = netip.MustParseAddr("192.0.2.1"); return p }
	with := func(endpoints ...state.Endpoint) state.Snapshot {
		return state.Snapshot{Networks: []state.Network{n}, Endpoints: endpoints}
	}
	first := at("a", "10.1.0.2/24", eighty)
	both := with(first)
	both.Networks = append(slices.Clone(both.Networks), other)
	routed := with(first)
	routed.Forwarding.V4 = true
	for _, tt := range []struct {
		name         string
		from, to     state.Snapshot
		says, differ bool
	}{
		{"nothing", with(first), with(first), true, false},
		{"a container without ports", with(first), with(first, at("b", "10.1.0.3/24")), true, false},
		{"its address is another's", with(first), with(first, at("b", "10.1.0.2/24")), true, false},
		{"one with a port", with(), with(first), true, true},
		{"one that goes", with(first), with(), true, true},
		{"another beside it", with(first), with(first, at("b", "10.1.0.3/24", state.Port{Proto: state.UDP, HostPort: 80, ContainerPort: 80})), true, true},
		{"the same port of another address", with(first), with(first, at("b", "10.1.0.3/24", here(eighty))), true, true},
		{"the same port", with(first), with(first, at("b", "10.1.0.3/24", eighty)), false, true},
		{"no longer the same port", with(first, at("b", "10.1.0.3/24", eighty)), with(first), false, true},
		{"the same address", with(first), with(first, at("b", "10.1.0.2/24", here(eighty))), false, true},
		{"a second network", with(first), both, true, true},
		{"that goes", both, with(first), true, true},
		{"the first network", state.Snapshot{}, with(), false, true},
		{"forwarding", with(first), routed, false, true},
	} {
		change, ok := RenderChange(state.Compare(tt.from, tt.to), Host{})
		if ok != tt.says || ok && change.IsEmpty() == tt.differ {
			t.Errorf("%s: says %v: %+v", tt.name, ok, change)
		}
	}
}
