package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// follower records what it was asked for.
type follower struct {
	mu    sync.Mutex
	calls []string
	fail  error
}

func (f *follower) note(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	return f.fail
}

// take returns the calls since the last time.
func (f *follower) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *follower) fails(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *follower) Apply(_ context.Context, s state.Snapshot) error {
	return f.note(fmt.Sprint("all of ", s.Revision))
}

func (f *follower) Follow(_ context.Context, c state.Change) error {
	return f.note(fmt.Sprint(c.From.Revision, " to ", c.To.Revision))
}

// TestFollow: a follower is told what differs where nobody has reason to think that more does.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, src := &follower{}, &source{}
		l := New(src, []Step{{"rules", f}}, Options{Interval: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		step := func(name string, do func(), want ...string) {
			t.Helper()
			do()
			synctest.Wait()
			if calls := f.take(); !slices.Equal(calls, want) {
				t.Errorf("%s: %q, want %q", name, calls, want)
			}
		}
		change := func() {
			_ = l.Wait(t.Context(), src.revision.Add(1), everything)
		}
		step("start", func() {}, "all of 0")
		step("a change", change, "0 to 1")
		step("another", change, "1 to 2")
		step("an event", func() { l.Trigger("link") }, "all of 2")
		step("a change after it", change, "2 to 3")
		step("a glance", func() { l.Glance("rules") }, "3 to 3")
		step("a glance with an event", func() { l.Glance("rules"); l.Trigger("link") }, "all of 3")
		step("the interval", func() { time.Sleep(time.Minute) }, "all of 3")
		step("a check", func() { _ = l.Check(t.Context()) }, "all of 3")
		step("a failure", func() { f.fails(errors.New("no")); change() }, "3 to 4")
		step("a change after it", func() { f.fails(nil); change() }, "all of 5")
		step("the next", change, "5 to 6")
		step("an event with a change", func() { l.Trigger("link"); change() }, "all of 7")
		cancel()
		<-ended
	})
}
