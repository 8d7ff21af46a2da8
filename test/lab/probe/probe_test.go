package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab/ask"
	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// served starts a server on a free loopback port and returns its address.
func served(t *testing.T, network, host string) string {
	t.Helper()
	var addr string
	switch network {
	case "tcp":
		l, err := net.Listen(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go answerTCP(l, "web")
		addr = l.Addr().String()
	case "udp":
		c, err := net.ListenPacket(network, net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go answerUDP(c, "web")
		addr = c.LocalAddr().String()
	case "sctp":
		addr = net.JoinHostPort(host, "3869") // the tests of package sctp, which may run beside, have 3868 of this machine
		s, err := sctp.Listen(addr)
		if errors.Is(err, os.ErrPermission) {
			t.Skip("raw sockets need CAP_NET_RAW")
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		go answerSCTP(s, "web")
	}
	return addr
}

func TestServeTellsThePeerItsAddress(t *testing.T) {
	for _, row := range []struct{ name, network, host, bind string }{
		{"tcp4", "tcp", "127.0.0.1", ""},
		{"tcp4 from another source", "tcp", "127.0.0.1", "127.0.0.9"},
		{"tcp6", "tcp", "::1", ""},
		{"tcp6 with a source", "tcp", "::1", "::1"},
		{"udp4", "udp", "127.0.0.1", ""},
		{"udp4 from another source", "udp", "127.0.0.1", "127.0.0.9"},
		{"udp6", "udp", "::1", ""},
		{"udp6 with a source", "udp", "::1", "::1"},
		{"sctp4", "sctp", "127.0.0.1", ""},
		{"sctp4 from another source", "sctp", "127.0.0.1", "127.0.0.9"},
		{"sctp6", "sctp", "::1", ""},
		{"sctp6 with a source", "sctp", "::1", "::1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out bytes.Buffer
			r := request{network: row.network, addr: served(t, row.network, row.host), bind: row.bind, timeout: 5 * time.Second, count: 3}
			if err := fetch(&out, r); err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if len(lines) != 3 || lines[0] != lines[2] {
				t.Fatalf("got %q, want the same answer three times: it is one connection", lines)
			}
			want := row.bind
			if want == "" {
				want = row.host
			}
			name, peer, _ := strings.Cut(lines[0], " ")
			if got := netip.MustParseAddrPort(peer).Addr().String(); name != "web" || got != want {
				t.Errorf("%s says the source is %s, want web and %s", name, got, want)
			}
		})
	}
}

func TestGetNamesWhatHappened(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	go func() {
		for {
			c, err := closing.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	const brief, patient = 200 * time.Millisecond, 10 * time.Second
	for _, row := range []struct {
		name, network, addr string
		wait                time.Duration
		want                string
	}{
		{"nobody listens, tcp", "tcp", free(t, "tcp"), patient, "refused"},
		{"nobody listens, udp", "udp", free(t, "udp"), patient, "refused"},
		{"silence", "udp", silent.LocalAddr().String(), brief, "timeout"},
		{"accepted and closed", "tcp", closing.Addr().String(), patient, "closed"},
		{"no such network", "ipx", "127.0.0.1:1", patient, "error"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := fetch(io.Discard, request{network: row.network, addr: row.addr, timeout: row.wait, count: 1})
			if err == nil || ask.Outcome(err) != row.want {
				t.Errorf("got %v, want an outcome of %s", err, row.want)
			}
		})
	}
}

// free is an address at which nobody listens.
func free(t *testing.T, network string) string {
	t.Helper()
	if network == "tcp" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().String()
}

func TestOutcomeOfRejections(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.ECONNREFUSED: "refused",
		syscall.EHOSTUNREACH: "unreachable",
		syscall.ENETUNREACH:  "unreachable",
		syscall.EACCES:       "unreachable",
		syscall.EPERM:        "unreachable",
		syscall.ETIMEDOUT:    "timeout",
		syscall.ECONNRESET:   "closed",
		syscall.EPIPE:        "closed",
		syscall.EADDRINUSE:   "error",
	} {
		err := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)}
		if got := ask.Outcome(err); got != want {
			t.Errorf("%v is %s, want %s", errno, got, want)
		}
	}
	if got := ask.Outcome(fmt.Errorf("read: %w", io.EOF)); got != "closed" {
		t.Errorf("end of file is %s, want closed", got)
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		buf := make([]byte, 64)
		if _, _, err := c.ReadFrom(buf); err == nil { // the first one is "lost"
			answerUDP(c, "web")
		}
	}()
	var out bytes.Buffer
	if err := fetch(&out, request{network: "udp", addr: c.LocalAddr().String(), timeout: 2 * time.Second, count: 1}); err != nil {
		t.Error(err)
	}
}

func TestPeerIsUnmapped(t *testing.T) {
	mapped := &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1").To16(), Port: 5}
	for _, row := range []struct {
		addr net.Addr
		want string
	}{
		{mapped, "192.0.2.1:5"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8::1"), Port: 5}, "[2001:db8::1]:5"},
		{&net.UnixAddr{Name: "/x", Net: "unix"}, "/x"},
	} {
		if got := peer(row.addr); got != row.want {
			t.Errorf("peer(%v) = %s, want %s", row.addr, got, row.want)
		}
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"all given", []string{"-dir", "/tmp/x", "-cgroup", "x", "-iptables", "legacy"}, true},
		{"relative directory", []string{"-dir", "x", "-cgroup", "x"}, false},
		{"no cgroup would be all of them", []string{"-dir", "/tmp/x"}, false},
		{"cgroup that climbs", []string{"-dir", "/tmp/x", "-cgroup", "../x"}, false},
		{"cgroup that is the root", []string{"-dir", "/tmp/x", "-cgroup", "/"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := parseSettings("guard", row.args); (err == nil) != row.ok {
				t.Errorf("got %v, want ok %t", err, row.ok)
			}
		})
	}
}

func TestSharedPathsAreAllKept(t *testing.T) {
	s, err := parseSettings("guard", []string{"-dir", "/tmp/x", "-cgroup", "x", "-root", "/r", "-share", "/a", "-share", "/b"})
	if err != nil || s.root != "/r" || strings.Join(s.shared, " ") != "/a /b" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestMountPointsStayInTheRoot(t *testing.T) {
	top, machine := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Symlink(machine, filepath.Join(top, "out")), os.Mkdir(filepath.Join(top, "usr"), 0o755),
		os.Symlink("usr", filepath.Join(top, "in"))); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path string
		dir  bool
		made string // "" for a refusal
	}{
		{"/a/b", true, "a/b"},
		{"/a/b", true, "a/b"}, // is there
		{"/a/c/file", false, "a/c/file"},
		{"/in/lib", true, "usr/lib"},
		{"/out/dir", true, ""},
		{"/out/file", false, ""},
	} {
		err := makePoint(top, row.path, row.dir)
		if (err == nil) != (row.made != "") {
			t.Errorf("%s: %v", row.path, err)
		}
		if info, err := os.Stat(filepath.Join(top, row.made)); err != nil || row.made != "" && info.IsDir() != row.dir {
			t.Errorf("%s is not %s: %v", row.path, row.made, err)
		}
	}
	if left, err := os.ReadDir(machine); err != nil || len(left) != 0 {
		t.Errorf("outside the root: %v, %v", left, err)
	}
}

func TestCgroupsAreRemovedEverywhereAndOnlyOurs(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"cpu/lab-1/a/b", "pids/lab-1", "lab-1/c", "cpu/lab-2", "memory"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a second time there is nothing to do
		if err := removeCgroups(root, "lab-1"); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(root, "*", "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "lab-2" {
		t.Errorf("left are %v (%v), want lab-2 alone", left, err)
	}
	if _, err := os.Stat(filepath.Join(root, "lab-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unified hierarchy's is left: %v", err)
	}
}

func TestInitRefusesToTouchTheMachine(t *testing.T) {
	err := initialise([]string{"-dir", t.TempDir(), "-cgroup", "x"})
	if err == nil || !strings.Contains(err.Error(), "pid 1") {
		t.Errorf("got %v, want a refusal: this process is not pid 1 of a lab", err)
	}
}

// TestKnock: one line for each request, whatever came of it.
func TestKnock(t *testing.T) {
	open, closed := served(t, "tcp", "127.0.0.1"), "127.0.0.1:1"
	var out bytes.Buffer
	k := &knocker{network: "tcp", timeout: time.Second, out: bufio.NewWriter(&out)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.run(ctx, []string{open, closed}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := k.out.Flush(); err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	for line := range strings.Lines(out.String()) {
		var began, took int64
		var addr, word, name string
		_, _ = fmt.Sscan(line, &began, &took, &addr, &word, &name)
		if age := monotonic() - time.Duration(began)*time.Microsecond; age < 0 || age > time.Minute || took < 0 {
			t.Errorf("times of %q", line)
		}
		words[addr] = strings.TrimSpace(word + " " + name)
	}
	if words[open] != "ok web" || words[closed] != "refused" || len(words) != 2 {
		t.Errorf("%v", words)
	}
}
