//go:build kernel

package link

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestFollow: however the state changes, a look at the whole host finds nothing to do after what differed was done.
func TestFollow(t *testing.T) {
	l := newLab(t)
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
		e.Ports = old.Ports
		e.Name, e.Links = "a", []string{"a"}
		if random.IntN(2) == 0 {
			e.Ports = []state.Port{{Proto: state.TCP, HostPort: uint16(8000 + i), ContainerPort: 80}}
		}
		parts = append(parts, e)
	}
	return snapshot(parts...)
}
