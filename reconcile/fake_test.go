package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	netA = state.NetworkID("aaaaaaaaaaaaaaaa")
	netB = state.NetworkID("bbbbbbbbbbbbbbbb")
	epA1 = state.EndpointID("a1a1a1a1a1a1a1a1")
	epA2 = state.EndpointID("a2a2a2a2a2a2a2a2")
)

var everything state.Scope

// object is a failure of one object.
func object(n state.NetworkID, e state.EndpointID, text string) error {
	return &state.ObjectError{Network: n, Endpoint: e, Err: errors.New(text)}
}

// source is a state of which only the revision matters.
type source struct{ revision, taken atomic.Uint64 }

func (s *source) Snapshot() state.Snapshot {
	s.taken.Add(1)
	return state.Snapshot{Revision: s.revision.Load()}
}

// plane is a fake that records when it was called and does what do says. It may be
// looked at while the loop runs.
type plane struct {
	do atomic.Pointer[func(context.Context, state.Snapshot) error]

	mu    sync.Mutex
	calls []state.Snapshot
	times []time.Time
}

func (p *plane) Apply(ctx context.Context, s state.Snapshot) error {
	p.mu.Lock()
	p.calls = append(p.calls, s)
	p.times = append(p.times, time.Now())
	p.mu.Unlock()
	if do := p.do.Load(); do != nil {
		return (*do)(ctx, s)
	}
	return nil
}

func (p *plane) does(fn func(context.Context, state.Snapshot) error) { p.do.Store(&fn) }
func (p *plane) fails(err error) {
	p.does(func(context.Context, state.Snapshot) error { return err })
}

func (p *plane) takes(d time.Duration) {
	p.does(func(ctx context.Context, _ state.Snapshot) error { return sleep(ctx, d) })
}

// sleep is work that ends with its context, as that of a real plane.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *plane) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// since returns when the calls came, counted from t.
func (p *plane) since(t time.Time) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []time.Duration
	for _, at := range p.times {
		out = append(out, at.Sub(t))
	}
	return out
}

// rig is a loop over three planes with virtual time.
type rig struct {
	*Loop
	t       *testing.T
	began   time.Time
	src     *source
	link    *plane
	rules   *plane
	publish *plane
	log     *logBuffer
	cancel  context.CancelFunc
	ended   chan error
}

// inBubble runs fn with a rig in a synctest bubble and ends its loop afterwards.
func inBubble(t *testing.T, o Options, fn func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		fn(r)
		r.end()
	})
}

func newRig(t *testing.T, o Options) *rig {
	r := &rig{t: t, began: time.Now(), src: &source{}, link: &plane{}, rules: &plane{}, publish: &plane{}, log: &logBuffer{}}
	o.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.Loop = New(r.src, []Step{{"link", r.link}, {"firewall", r.rules}, {"publish", r.publish}}, o)
	return r
}

// run starts the loop and lets it get as far as it can without time passing.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
}

func (r *rig) end() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.cancel = nil
	if n := r.Status().Waiting; n != 0 {
		r.t.Errorf("%d waiters were lost", n)
	}
}

// after lets virtual time pass.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// waiting starts a Wait and returns where its answer comes.
func (r *rig) waiting(ctx context.Context, revision uint64, s state.Scope) <-chan error {
	c := make(chan error, 1)
	go func() { c <- r.Wait(ctx, revision, s) }()
	synctest.Wait()
	return c
}

func (r *rig) counts(link, rules, publish int) {
	r.t.Helper()
	if a, b, c := r.link.count(), r.rules.count(), r.publish.count(); a != link || b != rules || c != publish {
		r.t.Errorf("the steps ran %d, %d, %d times, want %d, %d, %d", a, b, c, link, rules, publish)
	}
}

// open fails the test if the answer has come already.
func (r *rig) open(c <-chan error) {
	r.t.Helper()
	select {
	case err := <-c:
		r.t.Errorf("Wait returned too early: %v", err)
	default:
	}
}

// answered fails the test if the answer has not come or is not want ("" for nil).
func (r *rig) answered(c <-chan error, want string) {
	r.t.Helper()
	select {
	case err := <-c:
		wantError(r.t, err, want)
	default:
		r.t.Error("Wait has not returned")
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

// logBuffer collects lines written by the loop.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// lines returns the lines of the level so far.
func (b *logBuffer) lines(level string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, "level="+level+" ") {
			out = append(out, line)
		}
	}
	return out
}

// text returns all that was written.
func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
