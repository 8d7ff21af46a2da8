package iptables

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// limitedPort is a policy without ports, and with one that only some may come to: published, and open at its own address. With links they
// come by one of these, which takes rules.
func limitedPort(links bool) (without, with firewall.Policy) {
	with = policy("br-one")
	with.V6 = nothing.V6
	f := &with.V4
	target := f.Ports[0].Target
	f.Open = []firewall.Target{{Proto: state.TCP, Addr: target}}
	limit := firewall.Limit{Proto: state.TCP, Port: 8080, BySource: true, From: state.JoinPrefixes([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})}
	if links {
		limit.Links = "eth0"
	}
	direct := limit
	direct.Host, direct.Port, direct.Direct = target.Addr(), target.Port(), true
	f.Limits, f.Limited = []firewall.Limit{direct, limit}, true
	without = with
	without.V4.Ports, without.V4.Open, without.V4.Limits, without.V4.Limited = nil, nil, nil, !links
	return without, with
}

// TestLimitsFirst: a port opens when all is there that limits it, and closes before any of it goes.
func TestLimitsFirst(t *testing.T) {
	for _, links := range []bool{false, true} {
		come := []string{
			"DRAWBRIDGE-comers-on4 10.1.0.2,tcp:80,192.0.2.0/24", "DRAWBRIDGE-sourced-on4 10.1.0.2,tcp:80",
			"DRAWBRIDGE-comers4 192.0.2.0/24,tcp:8080", "DRAWBRIDGE-sourced4 0.0.0.0/1,tcp:8080", "DRAWBRIDGE-sourced4 128.0.0.0/1,tcp:8080",
		}
		gone := []string{come[3], come[4], come[2], come[1], come[0]}
		if links {
			ways, linked := "DRAWBRIDGE-ways4 10.1.0.2,eth0", "DRAWBRIDGE-linked-on4 10.1.0.2,tcp:80"
			come, gone = append(come, ways, linked), append([]string{linked, ways}, gone...)
		}
		waysIn := []string{"DRAWBRIDGE-ports4 10.1.0.2,tcp:80", "DRAWBRIDGE-open4 10.1.0.2,tcp:80"}
		opened := slices.Concat(steps("add", come...), []string{restore4}, steps("add", waysIn...))
		slices.Reverse(waysIn)
		closed := slices.Concat(steps("del", waysIn...), []string{restore4}, steps("del", gone...))

		without, with := limitedPort(links)
		for _, followed := range []bool{false, true} {
			h := newFakeHost()
			b := h.backend()
			for _, to := range []struct {
				policy firewall.Policy
				change firewall.Change
				steps  []string
			}{
				{without, firewall.Change{}, nil},
				{without, firewall.Change{}, nil}, // after which nothing need be looked at
				{with, firewall.Change{Before: without, After: with}, opened},
				{without, firewall.Change{Before: with, After: without}, closed},
			} {
				h.journal = nil
				act, w := b.Sync, always(to.policy)
				if followed && to.steps != nil {
					act = b.Follow
					w.Change = func(firewall.Host) (firewall.Change, bool) { return to.change, !links }
				}
				if err := act(t.Context(), w); err != nil {
					t.Fatal(err)
				}
				got := slices.DeleteFunc(h.journal, func(s string) bool { return s == save4 || s == save6 })
				if diff := cmp.Diff(to.steps, got); diff != "" && to.steps != nil {
					t.Errorf("links: %v, followed: %v (-want +got):\n%s", links, followed, diff)
				}
			}
		}
	}
}

// steps are those of fakeHost that do the same to elements.
func steps(verb string, elements ...string) []string {
	var out []string
	for _, e := range elements {
		out = append(out, verb+" "+e)
	}
	return out
}
