//go:build kernel

package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnswered: what a daemon made in its last moments is known to be answered for when it ended in good order, and not when it was killed.
func TestAnswered(t *testing.T) {
	for name, row := range map[string]struct {
		end      os.Signal
		answered bool
	}{"told to end": {unix.SIGTERM, true}, "killed": {unix.SIGKILL, false}} {
		t.Run(name, func(t *testing.T) {
			h := newWholeHost(t)
			h.start()
			h.succeed(requestPool, createNet)
			h.stop(row.end)
			s := h.snapshot()
			if len(s.Networks) != 1 || len(s.Pools) != 1 {
				t.Fatalf("%s", stateText(s))
			}
			if made := []string{s.Networks[0].Made, s.Pools[0].Made}; (made[0] == "") != row.answered || (made[1] == "") != row.answered {
				t.Errorf("the network and the pool were made by %q, answered for: %v", made, row.answered)
			}
		})
	}
}
