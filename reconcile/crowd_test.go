package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// happened is one pass as the planes saw it.
type happened struct {
	revision uint64
	ended    time.Time
	err      error
}

// history is a plane that takes random time, fails at random and remembers.
type history struct {
	mu     sync.Mutex
	rand   *rand.Rand
	passes []happened
}

func (h *history) Apply(ctx context.Context, s state.Snapshot) error {
	h.mu.Lock()
	d := time.Duration(h.rand.IntN(2000)) * time.Millisecond
	err := []error{
		nil, nil, object(netA, "", "a"), object(netB, "", "b"),
		errors.Join(object(netA, epA1, "a1"), object(netB, "", "b")), errors.New("all"),
	}[h.rand.IntN(6)]
	h.mu.Unlock()
	time.Sleep(d)
	h.mu.Lock()
	h.passes = append(h.passes, happened{s.Revision, time.Now(), err})
	h.mu.Unlock()
	return err
}

// waited is one Wait and what came of it.
type waited struct {
	revision                   uint64
	scope                      state.Scope
	called, returned, deadline time.Time
	err                        error
}

// verify compares a Wait with the passes: it must have returned with the first pass that
// ended after it was called and covered its revision, and with what failed there.
func (h *history) verify(c waited) error {
	for _, p := range h.passes {
		if p.revision < c.revision || p.ended.Before(c.called) {
			continue
		}
		if p.ended.After(c.returned) {
			break
		}
		if p.ended.Equal(c.called) || p.ended.Equal(c.deadline) {
			return nil // either is right: it happened in the same instant
		}
		if !p.ended.Equal(c.returned) {
			return fmt.Errorf("it returned at %v, after the pass that ended at %v", c.returned, p.ended)
		}
		want := c.scope.Select(p.err)
		if (want == nil) != (c.err == nil) {
			return fmt.Errorf("error %v, that of the pass is %v", c.err, want)
		}
		return nil
	}
	if !errors.Is(c.err, context.DeadlineExceeded) || !c.returned.Equal(c.deadline) {
		return fmt.Errorf("it returned %v although no pass had covered it", c.err)
	}
	return nil
}

func TestCrowdOfWaiters(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { crowd(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

// crowd lets waiters with random revisions, scopes and deadlines come at random times.
func crowd(t *testing.T, random *rand.Rand) {
	h := &history{rand: rand.New(rand.NewPCG(random.Uint64(), 2))}
	src := &source{}
	l := New(src, []Step{{"only", h}}, Options{Debounce: time.Duration(random.IntN(2)) * 300 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	calls := make([]waited, 60)
	var wg sync.WaitGroup
	for i := range calls {
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		if i == 5 {
			go func() { ended <- l.Run(ctx) }()
		}
		c := &calls[i]
		c.scope = []state.Scope{everything, {Network: netA}, {Network: netA, Endpoint: epA1}, {Network: netB}}[random.IntN(4)]
		patience := time.Duration(100+random.IntN(8000)) * time.Millisecond
		if random.IntN(3) == 0 {
			l.Trigger("event")
		}
		wg.Go(func() {
			c.revision, c.called = src.revision.Add(1), time.Now()
			c.deadline = c.called.Add(patience)
			ctx, cancel := context.WithDeadline(ctx, c.deadline)
			defer cancel()
			c.err = l.Wait(ctx, c.revision, c.scope)
			c.returned = time.Now()
		})
	}
	wg.Wait()
	if n := l.Status().Waiting; n != 0 {
		t.Errorf("%d waiters are left", n)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for i, c := range calls {
		if err := h.verify(c); err != nil {
			t.Errorf("waiter %d: %v", i, err)
		}
	}
}

// applied is a plane that says up to which revision it has got.
type applied struct{ revision atomic.Uint64 }

func (a *applied) Apply(_ context.Context, s state.Snapshot) error {
	a.revision.Store(s.Revision)
	return nil
}

// In real time and on several processors: nobody is lost, nobody returns too early, and
// passes are shared.
func TestManyWaitersInParallel(t *testing.T) {
	const workers, each = 16, 200
	src, plane := &source{}, &applied{}
	l := New(src, []Step{{"only", plane}}, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				rev := src.revision.Add(1)
				if (w+i)%7 == 0 { // gives up at about the moment when the answer comes
					ctx, cancel := context.WithTimeout(ctx, 20*time.Microsecond)
					_ = l.Wait(ctx, rev, everything)
					cancel()
					continue
				}
				if err := l.Wait(ctx, rev, everything); err != nil {
					t.Error(err)
				}
				if got := plane.revision.Load(); got < rev {
					t.Errorf("Wait for %d returned at %d", rev, got)
				}
			}
		})
	}
	wg.Wait()
	s := l.Status()
	if s.Waiting != 0 || s.Passes > 2*workers*each {
		t.Errorf("%d waiters are left, %d passes", s.Waiting, s.Passes)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
