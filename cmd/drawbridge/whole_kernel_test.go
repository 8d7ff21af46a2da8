//go:build kernel

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// How much is tried. A call takes some 20 ms, a sequence less than a second.
const (
	sequences = 10
	length    = 25
)

// TestWhole sends random calls to the daemon, repeated, in odd order and with bad input among them. Whatever they
// did, in the end the host must be as if a daemon had been started with the resulting state on a fresh one.
func TestWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		used := newWholeHost(t)
		used.start()
		e := caller{T: t, networks: map[int]families{}, endpoints: map[int]int{}}
		for range length {
			c := e.draw()
			if c.name == restart {
				t.Log(restart)
				used.stop(unix.SIGKILL)
				used.start()
				continue
			}
			answer := used.call(c.name, c.args)
			t.Logf("%s %v: %s", c.name, c.args, answer)
			if answer == "" {
				c.done()
			}
		}
		used.settle()
		if found := used.verify(); len(found) > 0 {
			t.Errorf("the daemon says that it is not done: %v", found)
		}
		live := used.dump()
		used.stop(unix.SIGTERM)
		before := used.snapshot()

		fresh := newWholeHost(t)
		fresh.inherit(used)
		fresh.start()
		again := fresh.dump()
		fresh.stop(unix.SIGTERM)
		if diff := cmp.Diff(again, live.without(before)); diff != "" {
			t.Errorf("the host is not like a fresh one with this state (-fresh +used):\n%s\n%s", diff, stateText(before))
		}
		if diff := cmp.Diff(stateText(before), stateText(fresh.snapshot())); diff != "" {
			t.Errorf("a start changed the state (-before +after):\n%s", diff)
		}
	})
}
