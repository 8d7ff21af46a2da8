package nftables

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestCalm: the first is heard at once, those that come in a storm together and less and less often, and the first after a rest
// at once again.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var heard []time.Duration
		c := &calm{call: func(string) { heard = append(heard, time.Since(began).Truncate(time.Millisecond)) }}
		for range 40 {
			c.ask("a storm")
			time.Sleep(100*time.Millisecond + time.Microsecond)
		}
		time.Sleep(20 * time.Second)
		heard = append(heard, -1)
		c.ask("later")
		synctest.Wait()
		ms := time.Millisecond
		if want := []time.Duration{0, 250 * ms, 750 * ms, 1750 * ms, 2750 * ms, 3750 * ms, 4750 * ms, -1, 24000 * ms}; !slices.Equal(heard, want) {
			t.Errorf("heard at %v, want %v", heard, want)
		}
	})
}
