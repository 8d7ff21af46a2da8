//go:build kernel

package link

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestFollow: however the state changes, a look at the whole host finds nothing to do after what differed was done.
func TestFollow(t *testing.T) {
	l := newLab(t)
	l.links.RouteLocalnet = true
	random := rand.New(rand.NewPCG(1, 2))
	var now state.Snapshot
	for step := range 60 {
		next := randomState(random, now)
		l.follow(now, next)
		must(t, l.links.reaper.reap())
		before := l.everything()
		l.apply(next)
		if d := cmp.Diff(before, l.everything()); d != "" {
			t.Fatalf("step %d from %+v to %+v: the whole pass changed (-before +after):\n%s", step, now, next, d)
		}
		now = next
	}
}

// TestFollowMends: what was done to the bridge of an endpoint that comes is mended with it, though no event told.
func TestFollowMends(t *testing.T) {
	for name, harm := range map[string]func(*lab, string){
		"renamed": func(l *lab, bridge string) {
			must(l, netlink.LinkSetDown(l.link(bridge)))
			must(l, netlink.LinkSetName(l.link(bridge), "elsewhere"))
		},
		"another alias": func(l *lab, bridge string) { must(l, netlink.LinkSetAlias(l.link(bridge), "")) },
		"another group": func(l *lab, bridge string) { must(l, netlink.LinkSetGroup(l.link(bridge), 7)) },
		"deleted":       func(l *lab, bridge string) { l.remove(bridge) },
		"down":          func(l *lab, bridge string) { must(l, netlink.LinkSetDown(l.link(bridge))) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			n, one, two := network(1), endpoint(1, 1), endpoint(1, 2)
			n.NoICC = true
			l.apply(snapshot(n, one))
			harm(l, n.Bridge)
			l.follow(snapshot(n, one), snapshot(n, one, two))
			bridge := l.link(n.Bridge)
			if bridge.Attrs().Group != n.Group() || !l.has(two.HostLink()) || l.link(two.HostLink()).Attrs().MasterIndex != bridge.Attrs().Index {
				t.Errorf("bridge %+v, veth %v", bridge.Attrs(), l.has(two.HostLink()))
			}
			must(l, l.links.reaper.reap())
			before := l.everything()
			l.apply(snapshot(n, one, two))
			if d := cmp.Diff(before, l.everything()); d != "" {
				t.Errorf("not all was mended (-after the call +after a whole pass):\n%s", d)
			}
		})
	}
}

// randomState adds, changes and removes a few objects.
func randomState(random *rand.Rand, s state.Snapshot) state.Snapshot {
	var parts []any
	kept := map[state.NetworkID]bool{}
	for i := range 4 {
		n := network(i + 1)
		_, there := s.Network(n.ID)
		if there = there != (random.IntN(5) == 0); !there {
			continue
		}
		n.NoICC = i == 1
		kept[n.ID] = true
		parts = append(parts, n)
	}
	for i := range 12 {
		e := endpoint(i%4+1, i+1)
		old, there := s.Endpoint(e.ID)
		if there = there != (random.IntN(3) == 0); !there || !kept[e.Network] {
			continue
		}
		e.Ports, e.WantsPorts = old.Ports, i%3 == 0
		e.Name, e.Links = "a", []string{"a"}
		switch random.IntN(4) {
		case 0:
			e.Ports = nil
		case 1:
			e.Sandbox = "/sandbox"
		default:
			e.Ports = []state.Port{{Proto: state.TCP, HostPort: uint16(8000 + i), ContainerPort: 80}}
		}
		parts = append(parts, e)
	}
	return snapshot(parts...)
}
