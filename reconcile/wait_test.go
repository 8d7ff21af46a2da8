package reconcile

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestWaitBeforeRun(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.src.revision.Store(1)
		c := r.waiting(context.Background(), 1, everything)
		r.after(time.Hour)
		r.open(c)
		r.run()
		r.answered(c, "")
		r.counts(1, 1, 1)
	})
}

func TestWaitMakesAPass(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.run()
		r.src.revision.Store(1)
		r.answered(r.waiting(context.Background(), 1, everything), "")
		r.answered(r.waiting(context.Background(), 1, everything), "") // again, for what the host may have lost
		r.answered(r.waiting(context.Background(), 0, everything), "")
		r.counts(4, 4, 4)
	})
}

func TestWaitJoinsARunningPass(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.src.revision.Store(5)
		r.rules.takes(4 * second)
		r.run()
		r.after(second)
		same := r.waiting(context.Background(), 5, everything)
		older := r.waiting(context.Background(), 3, everything)
		r.src.revision.Store(6)
		newer := r.waiting(context.Background(), 6, everything)
		newer2 := r.waiting(context.Background(), 6, everything)
		r.after(3 * second)
		r.answered(same, "")
		r.answered(older, "")
		r.open(newer)
		r.counts(2, 2, 1)
		r.after(4 * second)
		r.answered(newer, "")
		r.answered(newer2, "")
		r.after(20 * second)
		r.counts(2, 2, 2)
	})
}

// A pass over an older state that fails says nothing to those who wait for a newer one.
func TestWaitIgnoresOlderFailures(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.rules.does(func(ctx context.Context, s state.Snapshot) error {
			if s.Revision == 0 {
				return errors.Join(sleep(ctx, second), errors.New("no"))
			}
			return nil
		})
		r.run()
		r.src.revision.Store(1)
		c := r.waiting(context.Background(), 1, everything)
		r.after(second)
		r.answered(c, "")
	})
}

func TestWaitForARevisionOfTheFuture(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.run()
		c := r.waiting(context.Background(), 3, everything)
		r.counts(2, 2, 2)
		r.after(10 * second)
		r.counts(2, 2, 2) // no spinning
		r.open(c)
		r.src.revision.Store(3)
		r.Trigger("now it is there")
		r.after(0)
		r.answered(c, "")
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	tests := []struct {
		name     string
		prepare  func(*rig)
		revision uint64
		want     string
	}{
		{"before Run", func(*rig) {}, 0, "drawbridge is still starting: context deadline exceeded"},
		{"in the first step", func(r *rig) { r.link.takes(10 * second); r.run() }, 0, "the link step has not finished: context deadline exceeded"},
		{"in a later step", func(r *rig) { r.rules.takes(10 * second); r.run() }, 0, "the firewall step has not finished: context deadline exceeded"},
		{"in an older pass", func(r *rig) { r.rules.takes(10 * second); r.run() }, 1, "the firewall step has not finished: context deadline exceeded"},
		{"for a future revision", func(r *rig) { r.run() }, 1, "the host has not been brought to revision 1 yet: context deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(r *rig) {
				tt.prepare(r)
				ctx, cancel := context.WithTimeout(context.Background(), second)
				defer cancel()
				c := r.waiting(ctx, tt.revision, everything)
				r.after(second)
				select {
				case err := <-c:
					wantError(t, err, tt.want)
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Error("the error does not wrap that of the context")
					}
				default:
					t.Fatal("Wait has not returned")
				}
				if n := r.Status().Waiting; n != 0 {
					t.Errorf("%d waiters are left", n)
				}
				r.after(20 * second) // the pass goes on without it
			})
		})
	}
}

func TestWaitWithEndedContextStillAsks(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.run()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Wait(ctx, 0, everything)
		r.after(0)
		r.counts(2, 2, 2)
	})
}

// An answer that came at the moment of giving up counts.
func TestAnswerBeatsGivingUp(t *testing.T) {
	l := New(&source{}, nil, Options{})
	for _, answer := range []error{nil, errors.New("no rules")} {
		w := &waiter{answer: make(chan error, 1)}
		w.answer <- answer
		if err := l.giveUp(w, context.Canceled); err != answer {
			t.Errorf("error %v, want %v", err, answer)
		}
	}
}

// TestWaitNamesWhatFailedBefore: who gives up while a step hangs is told why the pass before failed.
func TestWaitNamesWhatFailedBefore(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.rules.fails(errors.New("the program hangs"))
		r.run()
		r.rules.takes(time.Hour)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		answer := r.waiting(ctx, r.src.revision.Add(1), everything)
		r.after(time.Second)
		r.answered(answer, "the firewall step has not finished: context deadline exceeded; the last attempt failed: firewall: the program hangs")
	})
}
