package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// follower records what it was asked for.
type follower struct {
	calls []string
	fail  error
}

func (f *follower) Apply(_ context.Context, s state.Snapshot) error {
	f.calls = append(f.calls, fmt.Sprint("all of ", s.Revision))
	return f.fail
}

func (f *follower) Follow(_ context.Context, c state.Change) error {
	f.calls = append(f.calls, fmt.Sprint(c.From.Revision, " to ", c.To.Revision))
	return f.fail
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
			f.calls = nil
			do()
			synctest.Wait()
			if !slices.Equal(f.calls, want) {
				t.Errorf("%s: %q, want %q", name, f.calls, want)
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
		step("the interval", func() { time.Sleep(time.Minute) }, "all of 3")
		step("a check", func() { _ = l.Check(t.Context()) }, "all of 3")
		step("a failure", func() { f.fail = errors.New("no"); change() }, "3 to 4")
		step("a change after it", func() { f.fail = nil; change() }, "all of 5")
		step("the next", change, "5 to 6")
		step("an event with a change", func() { l.Trigger("link"); change() }, "all of 7")
		cancel()
		<-ended
	})
}
