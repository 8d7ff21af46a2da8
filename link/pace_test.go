package link

import (
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestPace: a container that loses its link again and again waits longer each time, and no other one does.
func TestPace(t *testing.T) {
	l, now := &Links{}, time.Unix(1000, 0)
	made := map[state.EndpointID]int{}
	for range 600 { // for two minutes
		for _, id := range []state.EndpointID{"again and again", "once"} {
			if (id != "once" || made[id] == 0) && l.mayRewire(id, now) {
				made[id]++
			}
		}
		now = now.Add(200 * time.Millisecond)
	}
	if made["once"] != 1 || made["again and again"] < rewireBurst+5 || made["again and again"] > rewireBurst+8 {
		t.Errorf("made %v", made)
	}
	if now = now.Add(2 * lastRewire); !l.mayRewire("again and again", now) || !l.mayRewire("again and again", now.Add(firstRewire)) {
		t.Error("after a while of peace it still waits")
	}
}
