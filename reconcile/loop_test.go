package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

const second = time.Second

func (r *rig) times(p *plane, want ...time.Duration) {
	r.t.Helper()
	if got := p.since(r.began); !slices.Equal(got, want) {
		r.t.Errorf("passes began at %v, want %v", got, want)
	}
}

func TestPassAtOnceAndAtEachInterval(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.run()
		r.counts(1, 1, 1)
		r.after(95 * second)
		r.times(r.publish, 0, 30*second, 60*second, 90*second)
	})
}

func TestIntervalCountsFromTheEndOfAPass(t *testing.T) {
	inBubble(t, Options{Interval: 10 * second}, func(r *rig) {
		r.link.takes(3 * second)
		r.run()
		r.after(30 * second)
		r.times(r.link, 0, 13*second, 26*second)
	})
}

func TestStepsShareOneSnapshotInOrder(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.link.does(func(context.Context, state.Snapshot) error {
			r.src.revision.Add(1) // a change in the middle of the pass
			return sleep(context.Background(), second)
		})
		r.rules.takes(second)
		r.src.revision.Store(7)
		r.run()
		r.counts(1, 0, 0)
		r.after(second)
		r.counts(1, 1, 0)
		r.after(second)
		r.counts(1, 1, 1)
		for _, p := range []*plane{r.link, r.rules, r.publish} {
			if rev := p.calls[0].Revision; rev != 7 {
				t.Errorf("a step saw revision %d", rev)
			}
		}
		if n := r.src.taken.Load(); n != 1 {
			t.Errorf("%d snapshots were taken", n)
		}
	})
}

func TestBackoff(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.rules.fails(errors.New("no iptables"))
		r.run()
		r.after(250 * second)
		want := []time.Duration{0}
		for _, d := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			want = append(want, want[len(want)-1]+d*second)
		}
		r.times(r.rules, want...)
		r.counts(10, 10, 0)

		r.rules.fails(nil)
		r.after(60 * second) // the retry at 303 s succeeds
		r.rules.fails(errors.New("again"))
		r.after(30 * second)
		r.times(r.rules, append(want, 303*second, 333*second, 334*second, 336*second, 340*second)...)
	})
}

func TestObjectFailuresDoNotDelayTheFullCheck(t *testing.T) {
	inBubble(t, Options{Interval: 5 * second}, func(r *rig) {
		r.rules.fails(object(netA, "", "no"))
		r.run()
		r.after(19 * second)
		r.times(r.publish, 0, 1*second, 3*second, 7*second, 12*second, 17*second)
	})
}

func TestRequestsRunDespiteBackoff(t *testing.T) {
	requests := map[string]func(*rig){
		"Trigger": func(r *rig) { r.Trigger("test") },
		"Wait":    func(r *rig) { r.waiting(context.Background(), 0, everything) },
	}
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(r *rig) {
				r.rules.fails(errors.New("no"))
				r.run()
				r.after(20 * second) // passes at 0, 1, 3, 7, 15; next at 31
				request(r)
				synctest.Wait()
				request(r)
				synctest.Wait()
				r.after(30 * second) // requests that fail do not double: next at 36
				r.times(r.rules, 0, 1*second, 3*second, 7*second, 15*second, 20*second, 20*second, 36*second)
			})
		})
	}
}

func TestTriggersBeforeAPassShareIt(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		for range 100 {
			r.Trigger("before")
		}
		r.run()
		r.counts(1, 1, 1)
		r.after(second)
		r.link.takes(second)
		r.Trigger("idle")
		synctest.Wait()
		r.counts(2, 1, 1)
		for range 100 {
			r.Trigger("during the pass")
		}
		r.after(10 * second)
		r.counts(3, 3, 3)
		lines := r.log.lines("DEBUG")
		for i, want := range []string{"reason=\"before, start\"", "reason=idle", "reason=\"during the pass\""} {
			if !strings.Contains(lines[i], want) {
				t.Errorf("log line %q, want %s", lines[i], want)
			}
		}
	})
}

func TestReasonsAreBounded(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		for i := range 1000 {
			r.Trigger(fmt.Sprint("reason ", i))
		}
		r.run()
		if n := len(r.log.lines("DEBUG")[0]); n > 500 {
			t.Errorf("the log line has %d bytes", n)
		}
	})
}

func TestDebounce(t *testing.T) {
	inBubble(t, Options{Debounce: second}, func(r *rig) {
		r.run()
		r.after(50 * time.Millisecond)
		for range 9 { // a storm from 0.05 s to 2.45 s
			r.Trigger("storm")
			r.after(300 * time.Millisecond)
		}
		r.after(5 * second)
		r.times(r.link, 0, 1050*time.Millisecond, 2250*time.Millisecond, 3450*time.Millisecond)
	})
}

func TestWaitEndsTheDebounce(t *testing.T) {
	inBubble(t, Options{Debounce: 10 * second}, func(r *rig) {
		r.run()
		r.Trigger("event")
		r.after(second)
		c := r.waiting(context.Background(), 0, everything)
		r.answered(c, "")
		r.after(20 * second)
		r.times(r.link, 0, 1*second)
	})
}

func TestTimeoutEndsAPass(t *testing.T) {
	inBubble(t, Options{Timeout: 5 * second}, func(r *rig) {
		r.rules.takes(time.Hour)
		c := r.waiting(context.Background(), 0, everything)
		r.run()
		r.after(5*second - 1)
		r.open(c)
		r.after(1)
		r.answered(c, "firewall: context deadline exceeded")
		r.counts(1, 1, 0)
	})
}

// A step that overruns and does not notice must not let the next one run without time.
func TestNoStepBeginsAfterTheTimeout(t *testing.T) {
	inBubble(t, Options{Timeout: 5 * second}, func(r *rig) {
		r.rules.does(func(context.Context, state.Snapshot) error { time.Sleep(6 * second); return nil })
		c := r.waiting(context.Background(), 0, everything)
		r.run()
		r.after(6 * second)
		r.answered(c, "publish: not begun, the steps before it took all of 5s: context deadline exceeded")
		r.counts(1, 1, 0)
	})
}

func TestRunEnds(t *testing.T) {
	stages := map[string]func(*rig){
		"between passes":      func(r *rig) { r.run() },
		"in a step":           func(r *rig) { r.rules.takes(10 * second); r.run() },
		"in the debounce":     func(r *rig) { r.run(); r.Trigger("x"); synctest.Wait() },
		"in a retry's pause":  func(r *rig) { r.rules.fails(errors.New("no")); r.run() },
		"waiters in a step":   func(r *rig) { r.rules.takes(10 * second); r.run(); r.wantStopped(0); r.wantStopped(9) },
		"waiter for a future": func(r *rig) { r.run(); r.wantStopped(9) },
	}
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{Debounce: second}, func(r *rig) {
				stage(r)
				before, passes := time.Now(), r.link.count()
				errorLines := len(r.log.lines("ERROR"))
				r.end()
				if d := time.Since(before); d != 0 {
					t.Errorf("it took %v", d)
				}
				if n := len(r.log.lines("ERROR")); n != errorLines {
					t.Error("the end was logged as a failure")
				}
				if err := r.Wait(context.Background(), 0, everything); !errors.Is(err, errStopped) {
					t.Errorf("Wait afterwards: %v", err)
				}
				r.Trigger("afterwards")
				if err := r.Run(context.Background()); !errors.Is(err, errTwice) {
					t.Errorf("second Run: %v", err)
				}
				r.counts(passes, r.rules.count(), r.publish.count())
			})
		})
	}
}

// wantStopped starts a Wait that has to end with the loop.
func (r *rig) wantStopped(revision uint64) {
	c := r.waiting(context.Background(), revision, everything)
	r.t.Cleanup(func() {
		synctest.Wait()
		r.answered(c, errStopped.Error())
	})
}

func TestRunWithEndedContext(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		wantError(t, r.Run(ctx), "")
		r.counts(0, 0, 0)
	})
}
