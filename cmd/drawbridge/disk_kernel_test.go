//go:build kernel

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tinyDisk puts the state onto a disk of its own.
func (h *wholeHost) tinyDisk() {
	h.t.Helper()
	h.must(os.Mkdir(h.path("disk"), 0o700))
	h.must(unix.Mount("tmpfs", h.path("disk"), "tmpfs", 0, "size=256k"))
	h.t.Cleanup(func() { unix.Unmount(h.path("disk"), unix.MNT_DETACH) })
	h.state = h.path("disk/state.db")
}

// fillDisk leaves no byte on it, and returns what makes room again.
func (h *wholeHost) fillDisk() (free func()) {
	h.t.Helper()
	f, err := os.Create(h.path("disk/filler"))
	h.must(err)
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		h.t.Fatalf("%v", err)
	}
	h.must(f.Close())
	return func() { h.must(os.Remove(h.path("disk/filler"))) }
}

// TestFirstStartOnFullDisk: there is nothing to read and no room to begin; with room the daemon goes on.
func TestFirstStartOnFullDisk(t *testing.T) {
	h := newWholeHost(t)
	h.tinyDisk()
	free := h.fillDisk()
	h.launch("iptables")
	h.activate()
	h.refuses("the disk is full")
	free()
	h.settle()
	h.succeed(createNet, deleteNet)
	h.stop(unix.SIGTERM)
}

// TestFullDisk: with no room on the disk each call that has to write is answered at once and names the disk, and nothing is half done.
// With room again everything works, without a restart.
func TestFullDisk(t *testing.T) {
	h := newWholeHost(t)
	h.tinyDisk()
	h.start()
	h.succeed(createNet, createEndpoint, join, program)
	before := h.kernel()
	free := h.fillDisk()
	// Pages that are free are used again, so that the first changes still find room.
	made, refused, now := 0, "", before
	for ; refused == ""; made++ {
		now = h.kernel()
		refused = h.ask(otherNet(made), 5*time.Second)
	}
	made--
	t.Logf("room for %d networks, then: %s", made, refused)
	if !strings.Contains(refused, "the disk is full") || !strings.Contains(refused, h.state) {
		t.Errorf("it does not name the disk: %q", refused)
	}
	if diff := cmp.Diff(now, h.kernel()); diff != "" {
		t.Errorf("something is half done (-before +after):\n%s", diff)
	}
	for _, r := range []request{revoke, leave, deleteEndpoint, deleteNet} {
		answer := h.ask(r, 5*time.Second)
		t.Logf("%s on a full disk: %q", r.name, answer)
		if answer != "" && !strings.Contains(answer, "the disk is full") {
			t.Errorf("%s: %s", r.name, answer)
		}
	}
	t.Logf("the slowest answer took %v", h.slowest)
	for refused = ""; refused == ""; made++ {
		refused = h.ask(otherNet(made), 5*time.Second)
	}
	made--
	if !h.notes("calls that change something fail: writing state file " + h.state + ": the disk is full") {
		t.Error("status has no note")
	}
	free()
	if h.notes("calls that change something fail") {
		t.Error("status still has a note with room again")
	}
	for i := range made {
		h.succeed(request{"NetworkDriver.DeleteNetwork", map[string]any{"NetworkID": networkID(10 + i)}})
	}
	h.succeed(deleteEndpoint, deleteNet, createNet, createEndpoint, join, program)
	h.settle()
	if diff := cmp.Diff(before, h.kernel()); diff != "" {
		t.Errorf("the host is not as before (-before +after):\n%s", diff)
	}
	h.stop(unix.SIGTERM)
	if s := h.snapshot(); len(s.Networks) != 1 || len(s.Endpoints) != 1 {
		t.Errorf("stored are %d networks and %d endpoints", len(s.Networks), len(s.Endpoints))
	}
}

// notes reports whether the status has a note with these words.
func (h *wholeHost) notes(words string) bool {
	h.t.Helper()
	status, err := h.status()
	h.must(err)
	return strings.Contains(strings.Join(status.Notes, "\n"), words)
}

// otherNet creates a network that is not that of the other calls.
func otherNet(i int) request {
	return request{"NetworkDriver.CreateNetwork", map[string]any{
		"NetworkID": networkID(10 + i),
		"IPv4Data":  []any{map[string]any{"Pool": fmt.Sprintf("10.200.%d.0/24", i), "Gateway": fmt.Sprintf("10.200.%d.1/24", i)}},
	}}
}
