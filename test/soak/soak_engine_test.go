//go:build engine

package soak

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
)

// settings are what the environment says, see the package documentation.
type settings struct {
	time, patience time.Duration
	seed           uint64
}

func fromEnvironment(t *testing.T) settings {
	t.Helper()
	return settings{
		time:     environ.Duration(t, "SOAK_TIME", 45*time.Second),
		patience: environ.Duration(t, "SOAK_PATIENCE", 40*time.Second),
		seed:     uint64(environ.Number(t, "SOAK_SEED", 0, rand.IntN(1_000_000))),
	}
}

// calmAfter is how many steps faults go on for until they pause, and all must be well.
const calmAfter = 12

// TestSoak is the whole of it; the package documentation says what.
func TestSoak(t *testing.T) {
	set := fromEnvironment(t)
	t.Logf("SOAK_SEED=%d SOAK_TIME=%v SOAK_PATIENCE=%v", set.seed, set.time, set.patience)
	rng := rand.New(rand.NewPCG(set.seed, 0))
	m := newMachine(t, set.patience)
	f := newFixture(m)
	w := newWatch(m, f)
	d := newModel(m, rng)
	kinds := chosenFaults(t, m)

	for end := time.Now().Add(set.time); time.Now().Before(end) && !t.Failed(); {
		for i := 0; i < calmAfter && time.Now().Before(end) && !t.Failed(); i++ {
			w.step(d.next(), draw(rng, d, kinds))
		}
		w.calm(d)
	}
	w.report()
	if t.Failed() {
		return // what is left helps to see why
	}
	w.close()
	d.removeAll()
	f.remove()
	m.collect()
	m.nothingLeft()
	m.purged()
}
