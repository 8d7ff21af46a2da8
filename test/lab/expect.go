package lab

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// TB is the part of testing.TB that the checks below need.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Failed() bool
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
}

const (
	// PassTimeout is how long what must pass is waited for: long enough for a SYN to be sent thrice.
	PassTimeout = 5 * time.Second
	// blockTimeout is what a check that expects silence costs. It is longer than
	// the second after which a SYN is sent again: an ICMP error that arrives
	// while connect(2) still holds the socket, as it does over a veth, is only
	// noted by the kernel, and the second one ends the connection (tcp_v6_err).
	blockTimeout = 1500 * time.Millisecond
)

// Up makes a host for a test, which ends with it. A failed test shows the daemons' logs.
func Up(t TB, o Options) *Host {
	t.Helper()
	if o.Log == nil {
		o.Log = testLog{t}
	}
	h, err := New(t.Context(), o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", h.Logs())
		}
		if err := h.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return h
}

// Reaches checks that a server answers, and returns what it said.
func Reaches(t TB, from Place, network, addr string) Reply {
	t.Helper()
	r, err := Get(t.Context(), from, Request{Network: network, Addr: addr, Timeout: PassTimeout})
	if err != nil {
		t.Fatalf("%s %s is not reached: %v", network, addr, err)
	}
	return r
}

// Eventually asks again and again for ten seconds: for what comes back by
// itself, as after a restart or a repair. It returns the first answer.
func Eventually(t TB, from Place, network, addr string) Reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		r, err := Get(ctx, from, Request{Network: network, Addr: addr, Timeout: blockTimeout})
		if err == nil {
			return r
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s %s does not come back: %v", network, addr, err)
			return Reply{}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Refused checks that a request is turned away, by a reset or an ICMP error. It waits for one as for what passes.
func Refused(t TB, from Place, network, addr string) {
	t.Helper()
	check(t, from, network, addr, PassTimeout, "refused", ErrRefused, ErrUnreachable)
}

// Dropped checks that a request gets no answer whatever in 1.5 s.
func Dropped(t TB, from Place, network, addr string) {
	t.Helper()
	check(t, from, network, addr, blockTimeout, "dropped", ErrTimeout)
}

// Together carries out checks of what gets no answer at the same time: each takes as long as it waits for one.
func Together(checks ...func()) {
	var all sync.WaitGroup
	for _, check := range checks {
		all.Go(check)
	}
	all.Wait()
}

// Blocked checks that a request is not answered by a server, in whatever way.
// A connection that is accepted and then closed is not blocked: something listens.
func Blocked(t TB, from Place, network, addr string) {
	t.Helper()
	check(t, from, network, addr, blockTimeout, "blocked", ErrRefused, ErrUnreachable, ErrTimeout)
}

func check(t TB, from Place, network, addr string, wait time.Duration, want string, allowed ...error) {
	t.Helper()
	reply, err := Get(t.Context(), from, Request{Network: network, Addr: addr, Timeout: wait})
	if err == nil {
		t.Errorf("%s %s is not %s: %s answered %v", network, addr, want, reply.Server, reply.Peer)
		return
	}
	for _, a := range allowed {
		if errors.Is(err, a) {
			return
		}
	}
	t.Errorf("%s %s is not %s: %v", network, addr, want, err)
}

// Pings checks that an address answers an echo request. One that nobody answers in a second is sent again, as a SYN would be.
func Pings(t TB, from Place, addr netip.Addr) {
	t.Helper()
	var err error
	for range int(PassTimeout / time.Second) {
		if err = Ping(t.Context(), from, addr); err == nil || !errors.Is(err, ErrTimeout) {
			break
		}
	}
	if err != nil {
		t.Errorf("%v does not answer: %v", addr, err)
	}
}

// NotPings checks that an address does not answer an echo request.
func NotPings(t TB, from Place, addr netip.Addr) {
	t.Helper()
	switch err := Ping(t.Context(), from, addr); {
	case err == nil:
		t.Errorf("%v answers", addr)
	case !errors.Is(err, ErrTimeout):
		t.Errorf("pinging %v: %v", addr, err)
	}
}

// Do runs a docker command that must succeed, and returns its output.
func (d *Docker) Do(t TB, args ...string) string {
	t.Helper()
	out, err := d.Run(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// Fails runs a docker command that must fail, with a sentence that has the words.
func (d *Docker) Fails(t TB, words string, args ...string) {
	t.Helper()
	out, err := d.Run(t.Context(), args...)
	switch {
	case err == nil:
		t.Errorf("docker %s succeeds: %s", strings.Join(args, " "), out)
	case !strings.Contains(err.Error(), words):
		t.Errorf("docker %s fails without saying %q: %v", strings.Join(args, " "), words, err)
	}
}

// testLog writes the lab's lines to the test's log.
type testLog struct{ t TB }

func (l testLog) Write(line []byte) (int, error) {
	l.t.Logf("%s", line)
	return len(line), nil
}
