package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/plugin"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

// systemdSocket is where a test plays systemd.
func systemdSocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	return c
}

// told reports whether systemd is told that we live, within a time.
func told(t *testing.T, c *net.UnixConn, within time.Duration) bool {
	t.Helper()
	buf := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(within))
	n, err := c.Read(buf)
	if err != nil {
		return false
	}
	if string(buf[:n]) != "WATCHDOG=1" {
		t.Fatalf("systemd is told %q", buf[:n])
	}
	return true
}

// silent waits until what was on its way has come, and reports whether nothing follows.
func silent(t *testing.T, c *net.UnixConn, beat time.Duration) bool {
	t.Helper()
	for told(t, c, beat/2) {
	}
	return !told(t, c, 4*beat)
}

// TestPulse: systemd is told that the daemon lives for as long as its sockets are served, and not when one is not.
func TestPulse(t *testing.T) {
	systemd := systemdSocket(t)
	const beat = 500 * time.Millisecond // a quarter of it is what a busy machine may take beyond an answer that does not come
	t.Setenv("WATCHDOG_USEC", fmt.Sprint((beats * beat).Microseconds()))
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "plugin.sock"), filepath.Join(dir, "control.sock")}
	engine, err := plugin.Listen(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	commands, err := control.Listen(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = plugin.NewServer(nil, plugin.Options{}).Serve(ctx, engine) })
	serving, stop := context.WithCancel(ctx)
	running.Go(func() { _ = control.NewServer(control.Sources{}).Serve(serving, commands) })

	var log transcript.Text
	p := &pulse{sockets: paths, log: slog.New(slog.NewTextHandler(&log, nil))}
	ended := make(chan struct{})
	beating, end := context.WithCancel(ctx)
	go func() { p.keep(beating); close(ended) }()
	for range 3 {
		if !told(t, systemd, 10*beat) {
			t.Fatal("systemd is not told that a daemon lives")
		}
	}
	// A socket whose file is gone is no reason to be started again: nothing would get better by that.
	stop()
	for range 2 {
		if !told(t, systemd, 10*beat) {
			t.Error("a socket that is gone counts as a hang")
		}
	}
	// One that nobody accepts from is.
	deaf, err := control.Listen(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	if !silent(t, systemd, beat) {
		t.Error("systemd is told that a daemon lives whose socket nobody serves")
	}
	if said := log.String(); !strings.Contains(said, paths[1]+": ") {
		t.Errorf("the log does not name what hangs: %s", said)
	}
	deaf.Close()
	if !told(t, systemd, 10*beat) {
		t.Error("systemd is not told that a daemon lives again")
	}
	end()
	<-ended
	if n := strings.Count(log.String(), "context deadline exceeded"); n != 1 {
		t.Errorf("the log tells %d times of the hang:\n%s", n, log.String())
	}
}

// TestPulseWithoutWatchdog: who was not asked says nothing, and ends.
func TestPulseWithoutWatchdog(t *testing.T) {
	systemd := systemdSocket(t)
	(&pulse{log: slog.New(slog.DiscardHandler)}).keep(t.Context())
	if told(t, systemd, 50*time.Millisecond) {
		t.Error("systemd is told of a life that it did not ask for")
	}
}

// stubborn is a plane that ignores the end of its context.
type stubborn struct{ until chan struct{} }

func (s stubborn) Apply(context.Context, state.Snapshot) error { <-s.until; return nil }

type emptyState struct{}

func (emptyState) Snapshot() state.Snapshot { return state.Snapshot{} }

// TestStuckLoop: a loop that has been at one piece of work for too long is told, with the step; one that waits for work never is.
func TestStuckLoop(t *testing.T) {
	s := stubborn{make(chan struct{})}
	loop := reconcile.New(emptyState{}, []reconcile.Step{{Name: "links", Plane: s}}, reconcile.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(ctx) }()
	for loop.Status().Busy.IsZero() {
		time.Sleep(time.Millisecond)
	}
	if err := stuck(loop.Status(), time.Now()); err != nil {
		t.Errorf("work that has just begun: %v", err)
	}
	if err := stuck(loop.Status(), time.Now().Add(2*hangTime)); err == nil || !strings.Contains(err.Error(), "the links step has run for 2m") {
		t.Errorf("work that does not end: %v", err)
	}
	close(s.until)
	if err := loop.Wait(ctx, 0, state.Scope{}); err != nil {
		t.Fatal(err)
	}
	for !loop.Status().Busy.IsZero() {
		time.Sleep(time.Millisecond)
	}
	if err := stuck(loop.Status(), time.Now().Add(time.Hour)); err != nil {
		t.Errorf("a loop with nothing to do: %v", err)
	}
	cancel()
	<-ended
}

// TestSlowCall: a call is told when it has run for much longer than its deadline.
func TestSlowCall(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		call plugin.Call
		want string
	}{
		{plugin.Call{}, ""},
		{plugin.Call{Name: "NetworkDriver.Join", Began: now.Add(-hangTime)}, ""},
		{plugin.Call{Name: "NetworkDriver.Join", Began: now.Add(-hangTime - time.Second)}, "the call NetworkDriver.Join has run for 1m1s"},
	} {
		got := ""
		if err := slow(c.call, now); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.call, got, c.want)
		}
	}
}
