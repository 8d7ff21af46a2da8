package reconcile

import (
	"context"
	"fmt"

	"github.com/drawbridge-net/drawbridge/state"
)

// waiter is a call of Wait. It is in queued until a pass takes it along, then in riding
// until that pass ends, and in neither once it is answered or has given up.
type waiter struct {
	revision uint64
	scope    state.Scope
	check    bool       // waits for a look at the whole host
	answer   chan error // has room for the only answer, so that nobody blocks on it
}

// Wait asks for a pass and blocks until one has ended that worked on the given revision
// or a later one and had not ended when Wait was called. It returns what failed in it as
// far as that concerns the scope.
//
// If ctx ends earlier, the error wraps ctx.Err() and names the step that was being waited
// for; the pass is carried out all the same. Before Run, Wait waits for it; after Run has
// ended it returns an error at once.
func (l *Loop) Wait(ctx context.Context, revision uint64, scope state.Scope) error {
	return l.await(ctx, &waiter{revision: revision, scope: scope, answer: make(chan error, 1)})
}

// Check has the whole host compared with the state, and returns what is not as it should be.
func (l *Loop) Check(ctx context.Context) error {
	return l.await(ctx, &waiter{check: true, answer: make(chan error, 1)})
}

// await returns the answer to w, or what kept it when ctx ended.
func (l *Loop) await(ctx context.Context, w *waiter) error {
	if err := l.enlist(w); err != nil {
		return err
	}
	select {
	case err := <-w.answer:
		return err
	case <-ctx.Done():
		return l.giveUp(w, ctx.Err())
	}
}

// enlist puts w into the running pass or, if that one works on too old a state, into
// the next. A check is for the next in any case: the running one may be through with what has changed.
func (l *Loop) enlist(w *waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.phase == stopped:
		return errStopped
	case l.step != "" && l.covers >= w.revision && !w.check:
		l.riding[w] = struct{}{}
	default:
		l.queued[w] = struct{}{}
		if w.check {
			l.because("check")
			l.suspect = true
		} else {
			l.because("change")
		}
		poke(l.now)
	}
	return nil
}

// giveUp removes w, unless it has been answered in the meantime.
func (l *Loop) giveUp(w *waiter, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case err := <-w.answer:
		return err
	default:
	}
	delete(l.queued, w)
	delete(l.riding, w)
	switch {
	case l.phase == notStarted:
		return fmt.Errorf("drawbridge is still starting: %w", cause)
	case l.step != "":
		return fmt.Errorf("the %s step has not finished: %w%s", l.step, cause, l.trouble())
	}
	return fmt.Errorf("the host has not been brought to revision %d yet: %w%s", w.revision, cause, l.trouble())
}

// trouble says what ended the last pass early, which is the likely reason for the next one to take its time; "" if nothing did.
// The caller holds mu.
func (l *Loop) trouble() string {
	steps := l.status.Steps
	for i, s := range steps {
		if s.Error != "" && !s.Skipped && i+1 < len(steps) && steps[i+1].Skipped {
			return "; the last attempt failed: " + s.Error
		}
	}
	return ""
}

// board begins a pass over a snapshot of the given revision: it takes along the waiters
// that this serves, and returns the reasons for the pass and whether more than the state may have changed.
func (l *Loop) board(revision uint64) (reasons []string, suspect bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.covers = revision
	if len(l.steps) > 0 {
		l.step = l.steps[0].Name
	}
	for w := range l.queued {
		if w.revision <= revision {
			delete(l.queued, w)
			l.riding[w] = struct{}{}
		}
	}
	reasons, l.reasons = l.reasons, nil
	suspect, l.suspect = l.suspect, false
	return reasons, suspect
}

// enter notes which step is running.
func (l *Loop) enter(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step = step
}

// finish ends a pass and answers its waiters.
func (l *Loop) finish(r result, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.step = ""
	l.status.add(r, err)
	l.answer(l.riding, err)
}

// answer gives each of the waiters its part of err; the caller holds mu.
func (l *Loop) answer(ws map[*waiter]struct{}, err error) {
	for w := range ws {
		w.answer <- w.scope.Select(err)
	}
	clear(ws)
}
