//go:build engine

package soak

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// settings are what the environment says, see the package documentation.
type settings struct {
	time, patience time.Duration
	seed           uint64
}

func fromEnvironment(t *testing.T) settings {
	t.Helper()
	s := settings{time: duration(t, "SOAK_TIME", 45*time.Second), patience: duration(t, "SOAK_PATIENCE", 40*time.Second), seed: rand.Uint64N(1_000_000)}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		if s.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	return s
}

func duration(t *testing.T, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q, not a time as 90s or 5m", name, text)
	}
	return d
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
