package execs

import (
	"encoding/binary"
	"testing"
)

func message(what uint32, ids ...uint32) []byte {
	b := make([]byte, headLen+40)
	binary.NativeEndian.PutUint32(b[headLen:], what)
	for i, id := range ids {
		binary.NativeEndian.PutUint32(b[headLen+16+4*i:], id)
	}
	return b
}

func TestEventsAreCountedByDescent(t *testing.T) {
	c := &Counter{known: map[uint32]bool{10: true}}
	for _, m := range [][]byte{
		message(eventFork, 11, 10, 20, 20), // by a thread of 10
		message(eventExec, 20, 20),
		message(eventFork, 20, 20, 21, 20), // a thread of 20
		message(eventFork, 20, 20, 30, 30),
		message(eventExec, 30, 30),
		message(eventFork, 50, 50, 60, 60), // elsewhere
		message(eventExec, 60, 60),
		message(eventExit, 21, 20), // the thread's end
		message(eventExec, 20, 20),
		message(eventExit, 20, 20),
		message(eventFork, 50, 50, 20, 20), // the number is another's now
		message(eventExec, 20, 20),
		message(eventExec)[:headLen+8], // cut off
	} {
		c.event(m)
	}
	if c.count != 3 {
		t.Errorf("%d programs counted, want 3", c.count)
	}
}
