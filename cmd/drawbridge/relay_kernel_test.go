//go:build kernel

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
)

// publishing is a host with a published port of tcp and one of udp, that only the proxy serves, since clients use ::1.
type publishing struct {
	*wholeHost
	t *testing.T
	// peers are the sources of the datagrams that the container got.
	peers chan string
}

func newPublishing(t *testing.T) *publishing {
	t.Helper()
	h := &publishing{newWholeHost(t), t, make(chan string, 100)}
	h.start()
	h.succeed(createNet, createEndpoint, join, request{program.name, with(ofEndpoint, "Options", map[string]any{
		"com.docker.network.portmap": []any{
			map[string]any{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080},
			map[string]any{"Proto": 17, "Port": 53, "HostPort": 5353, "HostPortEnd": 5353},
		},
	})})
	// The container's addresses are the host's: who sends there comes to the servers below.
	h.output("ip", "addr", "add", "10.1.0.2/32", "dev", "lo")
	h.output("ip", "addr", "add", "fd00:1::2/128", "dev", "lo", "nodad")
	h.in(func() error {
		return errors.Join(echoTCP(t, "[fd00:1::2]:80"), answerUDP(t, "[fd00:1::2]:53", func(from net.Addr, said []byte) []byte {
			h.peers <- from.String()
			return said
		}))
	})
	return h
}

// dial connects a client of the host.
func (h *publishing) dial(network, addr string) (c net.Conn, err error) {
	h.in(func() error {
		c, err = net.DialTimeout(network, addr, patience)
		return nil
	})
	return c, err
}

func (h *publishing) open(network, addr string) *talk {
	h.t.Helper()
	c, err := h.dial(network, addr)
	h.must(err)
	h.t.Cleanup(func() { c.Close() })
	return &talk{t: h.t, Conn: c, r: bufio.NewReader(c)}
}

// talk is a connection to a server that says what it hears.
type talk struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
	n int
}

func (c *talk) say() error {
	c.n++
	line := fmt.Sprintf("line %d\n", c.n)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	got, err := c.r.ReadString('\n')
	if err == nil && got != line {
		err = fmt.Errorf("%q came back as %q", line, got)
	}
	return err
}

func (c *talk) goesOn(what string) {
	c.t.Helper()
	if err := c.say(); err != nil {
		c.t.Errorf("%s: an established connection: %v", what, err)
	}
}

// isCut waits until it is, which may be a moment behind the call.
func (c *talk) isCut(what string) {
	c.t.Helper()
	var err error
	for began := time.Now(); err == nil && time.Since(began) < patience; time.Sleep(time.Millisecond) {
		err = c.say()
	}
	if timeout, ok := errors.AsType[net.Error](err); err == nil || ok && timeout.Timeout() {
		c.t.Errorf("%s: the connection is not cut: %v", what, err)
	}
}

// serves connects a new client and has it served.
func (h *publishing) serves() error {
	c, err := h.dial("tcp", "[::1]:8080")
	if err != nil {
		return err
	}
	defer c.Close()
	return (&talk{t: h.t, Conn: c, r: bufio.NewReader(c)}).say()
}

// admits checks that a new client is served.
func (h *publishing) admits(what string) {
	h.t.Helper()
	if err := h.serves(); err != nil {
		h.t.Errorf("%s: a new connection: %v", what, err)
	}
}

// relay is what the status says of it.
func (h *publishing) relay() control.Relay {
	h.t.Helper()
	s, err := h.status()
	h.must(err)
	if s.Relay == nil {
		h.t.Fatalf("no relay runs: %v", s.Errors)
	}
	return *s.Relay
}

// TestRelayOutlivesDaemon: established and new proxied connections, and sessions of udp, notice nothing of the daemon's end and start.
// No port is taken from anybody who tries meanwhile.
func TestRelayOutlivesDaemon(t *testing.T) {
	h := newPublishing(t)
	pid := h.relay().PID
	tcp, udp := h.open("tcp", "[::1]:8080"), h.open("udp", "[::1]:5353")
	tcp.goesOn("at first")
	udp.goesOn("at first")
	peer := <-h.peers
	for _, end := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM} {
		h.stop(end)
		what := "the daemon was ended by " + end.String()
		tcp.goesOn(what)
		udp.goesOn(what)
		h.admits(what)
		h.in(func() error {
			if l, err := net.Listen("tcp", "[::]:8080"); err == nil {
				l.Close()
				t.Errorf("%s: another program takes a published port", what)
			}
			return nil
		})
		h.launch("iptables")
		h.settle()
		tcp.goesOn(what + " and started")
		udp.goesOn(what + " and started")
		h.admits(what + " and started")
		for range 2 {
			if now := <-h.peers; now != peer {
				t.Errorf("%s: a session goes on from %s, it was %s", what, now, peer)
			}
		}
	}
	now := h.relay()
	for began := time.Now(); now.Connections > 1 && time.Since(began) < patience; now = h.relay() { // that of a client who has just gone
		time.Sleep(time.Millisecond)
	}
	if now.PID != pid || now.Connections != 1 || now.Sockets != 4 {
		t.Errorf("the relay is %+v, it was process %d with one connection and the sockets of two ports", now, pid)
	}
	h.succeed(revoke)
	tcp.isCut("the port was revoked")
	if _, err := h.dial("tcp", "[::1]:8080"); err == nil {
		t.Error("a revoked port is open")
	}
	h.stop(unix.SIGTERM)
}

// TestRelayIsKilled: the ports are back at once, with the daemon there, and at its start.
func TestRelayIsKilled(t *testing.T) {
	h := newPublishing(t)
	for range 3 {
		first := h.relay().PID
		h.admits("at first")
		began := time.Now()
		h.must(unix.Kill(first, unix.SIGKILL))
		for running(first) {
			time.Sleep(time.Millisecond)
		}
		for err := h.serves(); err != nil; err = h.serves() {
			// It takes part of a second on a machine that is not busy. The daemon itself would look much later.
			if took := time.Since(began); took > checkInterval/3 {
				t.Fatalf("not back after %v: %v\n%s", took, err, h.log.String())
			}
			time.Sleep(time.Millisecond)
		}
		t.Logf("back after %v", time.Since(began))
		h.settle()
		h.admits("back")
		if now := h.relay().PID; now == first {
			t.Error("it was not killed")
		}
		if found := h.verify(); len(found) > 0 {
			t.Errorf("differences: %v", found)
		}
	}
	const ended = "the relay of published ports ended: another one is started"
	h.awaitLog(ended, 3)
	if log := h.log.String(); strings.Count(log, ended) != 3 {
		t.Errorf("the log does not tell of three ends:\n%s", log)
	}
	pid := h.relay().PID
	h.stop(unix.SIGKILL)
	h.must(unix.Kill(pid, unix.SIGKILL))
	h.launch("iptables")
	h.settle()
	h.admits("both were killed")
	h.stop(unix.SIGTERM)
}

// TestRelayOnlyIfNeeded: none runs before there is a network, whose latch it keeps, or, without a latch, a published port; a purge ends it, and verify tells of ports without one, which it does not
// start.
func TestRelayOnlyIfNeeded(t *testing.T) {
	h := newWholeHost(t)
	h.flags = []string{"--latch", "off"}
	h.start()
	h.succeed(createNet, createEndpoint, join)
	if _, err := os.Stat(h.path("relay.sock")); err == nil {
		t.Error("a relay runs without a published port")
	}
	h.succeed(program)
	s, err := h.status()
	if err != nil || s.Relay == nil {
		t.Fatalf("no relay: %+v %v", s, err)
	}
	h.stop(unix.SIGTERM)
	h.must(unix.Kill(s.Relay.PID, 0))
	h.must(h.purge())
	var sockets dump
	if h.dumpSockets(&sockets); len(sockets) > 0 {
		t.Errorf("left behind a purge: %v", sockets)
	}
	if _, err := os.Stat(h.path("relay.sock")); err == nil {
		t.Error("left behind a purge: the relay's socket")
	}
}

// TestRelayUpgrade: a daemon of another version has a relay of its own version take over. Nobody is cut off or refused; the old process
// ends with its last connection, and cuts those of a port that is revoked meanwhile.
func TestRelayUpgrade(t *testing.T) {
	h := newPublishing(t)
	old := h.relay()
	stays, revoked, udp := h.open("tcp", "[::1]:8080"), h.open("tcp", "[::1]:8080"), h.open("udp", "[::1]:5353")
	for _, c := range []*talk{stays, revoked, udp} {
		c.goesOn("at first")
	}
	peer := <-h.peers
	h.stop(unix.SIGTERM)
	h.program = h.path(nextProgram)
	program, err := os.ReadFile("/proc/self/exe")
	h.must(err)
	h.must(os.WriteFile(h.program, program, 0o700))

	var done atomic.Bool
	knocked := make(chan error)
	go func() { // clients that come all the time
		var errs []error
		for !done.Load() {
			errs = append(errs, h.serves())
		}
		t.Logf("%d new connections meanwhile", len(errs))
		knocked <- errors.Join(errs...)
	}()
	h.launch("iptables")
	h.settle()
	now := h.relay()
	done.Store(true)
	if err := <-knocked; err != nil {
		t.Errorf("new connections meanwhile: %v", err)
	}
	if now.PID == old.PID || !strings.HasPrefix(now.Version, nextVersion) || now.Sockets != 4 {
		t.Fatalf("it was not handed over: %+v, before %+v\n%s", now, old, h.log.String())
	}
	for _, c := range []*talk{stays, revoked, udp} {
		c.goesOn("handed over")
	}
	if now := <-h.peers; now != peer {
		t.Errorf("a session goes on from %s, it was %s", now, peer)
	}
	h.admits("handed over")
	if err := unix.Kill(old.PID, 0); err != nil {
		t.Errorf("the old relay ended under its connections: %v", err)
	}
	stays.Close()
	revoked.goesOn("another one was closed")
	h.succeed(revoke)
	revoked.isCut("the port was revoked")
	for began := time.Now(); running(old.PID); time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatal("the old relay does not end with its last connection")
		}
	}
	h.stop(unix.SIGTERM)
}

// running reports whether there is a process, and not only its exit code.
func running(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
