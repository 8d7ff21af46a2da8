package nftables

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestCalm: what comes in a burst is heard once, when it is over, and a storm from time to time.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		told := make(chan time.Duration, 100)
		c := &calm{call: func(string) { told <- time.Since(began) }}
		for range 5 {
			c.ask("a burst")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(10*time.Second - time.Since(began))
		for range 40 {
			c.ask("a storm")
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(20*time.Second - time.Since(began))
		c.ask("one")
		time.Sleep(time.Second)
		var heard []time.Duration
		for len(told) > 0 {
			heard = append(heard, <-told)
		}
		ms := time.Millisecond
		if want := []time.Duration{700 * ms, 13000 * ms, 14200 * ms, 20300 * ms}; !slices.Equal(heard, want) {
			t.Errorf("heard at %v, want %v", heard, want)
		}
	})
}
