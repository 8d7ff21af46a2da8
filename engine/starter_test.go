package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// processes lays out a /proc in which each process has the links for descriptors, and in which a socket listens at path.
func processes(t *testing.T, path string, flags int, descriptors map[int][]string) string {
	t.Helper()
	root := t.TempDir()
	for pid, links := range descriptors {
		dir := filepath.Join(root, strconv.Itoa(pid), "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for n, to := range links {
			if err := os.Symlink(to, filepath.Join(dir, strconv.Itoa(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	table := "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/other.sock\n" +
		"0000000000000000: 00000003 00000000 00000000 0001 03 12\n" +
		fmt.Sprintf("0000000000000000: 00000003 00000000 %08x 0001 03 77 %s\n", flags, path)
	if err := os.MkdirAll(filepath.Join(root, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "net", "unix"), []byte(table), 0o644); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestSleepingEngine: a question must not start an engine for which systemd listens.
func TestSleepingEngine(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const socket = "socket:[77]"
	for name, c := range map[string]struct {
		flags       int
		descriptors map[int][]string
		asleep      bool
		stopped     bool // asleep when process 900 has ended
	}{
		"systemd alone":             {acceptsConnections, map[int][]string{1: {"/dev/null", socket}, 5: {"socket:[11]"}}, true, true},
		"the engine has it from it": {acceptsConnections, map[int][]string{1: {socket}, 5: {"socket:[11]"}, 900: {"pipe:[3]", socket}}, false, true},
		"the engine's own":          {acceptsConnections, map[int][]string{1: {"socket:[11]"}, 900: {socket}}, false, false},
		"a connection":              {0, map[int][]string{1: {socket}}, false, false},
		"systemd cannot be seen":    {acceptsConnections, map[int][]string{900: {"/dev/null"}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(path, "/proc")
			client.starter.proc = processes(t, path, c.flags, c.descriptors)
			for range 2 {
				if err := client.refuseToWake(); errors.Is(err, errAsleep) != c.asleep {
					t.Errorf("error %v", err)
				}
			}
			// What was found is not believed for ever.
			if err := os.RemoveAll(filepath.Join(client.starter.proc, "900")); err != nil {
				t.Fatal(err)
			}
			if err := client.refuseToWake(); errors.Is(err, errAsleep) != c.stopped {
				t.Errorf("when the engine has ended: %v", err)
			}
		})
	}
}

// TestListening: this process's own socket is found by the kernel's table.
func TestListening(t *testing.T) {
	path := socketPath(t)
	s := starter{proc: "/proc"}
	if _, found := s.listening(path); found {
		t.Error("found before it listens")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	link := path + "2"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, link} {
		if socket, found := s.listening(path); !found || !s.holds(os.Getpid(), socket) || s.holds(1, socket) {
			t.Errorf("%s: %s, %t", path, socket, found)
		}
	}
}
