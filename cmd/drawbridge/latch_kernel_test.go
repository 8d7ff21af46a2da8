//go:build kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLatchOutlivesDaemon: while no daemon runs nobody can flush or delete the latch, since the relay has its socket. The next daemon has it
// as its own, with --latch=off it goes, and so it does by a purge.
func TestLatchOutlivesDaemon(t *testing.T) {
	h := newPublishing(t)
	for _, end := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		h.keepsLatch()
		h.stop(end)
		h.output("nft", "flush", "ruleset")
		h.wantLatch(true)
		h.launch("iptables")
		h.settle()
		h.wantLatch(true)
		if found := h.verify(); len(found) > 0 {
			t.Errorf("differences after %v: %v", end, found)
		}
	}
	// Another relay gets it too.
	first := h.relay().PID
	h.must(unix.Kill(first, unix.SIGKILL))
	for running(first) {
		time.Sleep(time.Millisecond)
	}
	h.keepsLatch()
	h.stop(unix.SIGTERM)
	h.flags = []string{"--latch", "off"}
	h.launch("iptables")
	h.settle()
	h.wantLatch(false)
	h.stop(unix.SIGTERM)
	h.flags = nil
	h.launch("iptables")
	h.settle()
	h.keepsLatch()
	h.stop(unix.SIGTERM)
	h.must(h.purge("--rules-only"))
	h.wantLatch(false)
}

// wantLatch tries to delete the latch, which nobody may.
func (h *publishing) wantLatch(there bool) {
	h.t.Helper()
	if _, err := h.try("nft", "delete", "table", "inet", "drawbridge-latch"); err == nil {
		h.t.Error("the latch could be deleted")
	}
	if got := strings.Contains(h.output("nft", "list", "tables"), "inet drawbridge-latch"); got != there {
		h.t.Errorf("a latch: %v, want %v", got, there)
	}
}

// keepsLatch waits until the relay has a socket of the daemon's.
func (h *publishing) keepsLatch() {
	h.t.Helper()
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		s, err := h.status()
		h.must(err)
		if s.Relay == nil {
			continue
		}
		mine := sockets(h.t, h.daemon.Process.Pid)
		if slices.ContainsFunc(sockets(h.t, s.Relay.PID), func(name string) bool { return slices.Contains(mine, name) }) {
			return
		}
	}
	h.t.Fatalf("the relay got no socket:\n%s", h.log.String())
}

// sockets lists those that a process has open, but for its standard files.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is ending
	}
	var out []string
	for _, e := range list {
		name, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && strings.HasPrefix(name, "socket:") {
			out = append(out, name)
		}
	}
	return out
}
