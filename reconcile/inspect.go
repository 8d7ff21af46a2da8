package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Inspector is a plane that can tell how the host differs from a state without changing it.
type Inspector interface {
	// Inspect returns the differences. What it cannot look at, or what Apply could not mend, is an error; the rules for those of
	// Apply hold.
	Inspect(ctx context.Context, s state.Snapshot) ([]state.Difference, error)
}

// Finding is a difference, or a failure, with the step that it is of.
type Finding struct {
	Step string
	state.Difference
}

// inspection is a question for Run's goroutine, which is the only one to call planes.
type inspection struct {
	ctx    context.Context
	answer chan []Finding // has room for the only answer
}

// Inspect compares the host with the state and changes nothing. It returns how they differ, nothing if they do not. Changes of
// the state that wait for a pass are carried out before; what somebody else changed is found as it is, unless a pass is
// faster.
func (l *Loop) Inspect(ctx context.Context) ([]Finding, error) {
	q := inspection{ctx, make(chan []Finding, 1)}
	select {
	case l.inspections <- q:
	case <-l.ended:
		return nil, errStopped
	case <-ctx.Done():
		return nil, l.late("a pass over the host", ctx.Err())
	}
	select {
	case found := <-q.answer:
		return found, ctx.Err()
	case <-ctx.Done():
		return nil, l.late("the look at the host", ctx.Err())
	}
}

// late says what kept a question from its answer.
func (l *Loop) late(what string, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.step != "" {
		what = "the " + l.step + " step"
	}
	return fmt.Errorf("%s has not finished: %w%s", what, cause, l.trouble())
}

// lookTime is how much of the time until a question's deadline the look at the host may take: what hangs ends before, so that the
// answer names it.
func (l *Loop) lookTime(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return l.opts.Timeout
	}
	return min(l.opts.Timeout, time.Until(deadline)*3/4)
}

// minLook is the least time for a look at the host: with less, what is only slow would be blamed.
const minLook = time.Second

// inspect answers one question, unless it comes too late.
func (l *Loop) inspect(q inspection) {
	defer l.work()()
	limit := l.lookTime(q.ctx)
	if limit < minLook {
		return
	}
	ctx, cancel := context.WithTimeout(q.ctx, limit)
	defer cancel()
	q.answer <- l.findings(ctx)
}

// findings compares the host with the state.
func (l *Loop) findings(ctx context.Context) []Finding {
	snap := l.source.Snapshot()
	var out []Finding
	for _, step := range l.steps {
		plane, ok := step.Plane.(Inspector)
		if !ok {
			continue
		}
		found, err := look(ctx, plane, snap)
		for _, d := range found {
			out = append(out, Finding{step.Name, d})
		}
		for _, err := range leaves(err) {
			out = append(out, Finding{step.Name, state.Difference{Scope: scopeOf(err), Text: err.Error()}})
		}
	}
	return out
}

// look survives a panic of the plane.
func look(ctx context.Context, p Inspector, s state.Snapshot) (found []state.Difference, err error) {
	defer rescue(&err)
	return p.Inspect(ctx, s)
}

// scopeOf returns the object that a failure concerns.
func scopeOf(err error) state.Scope {
	if of, ok := errors.AsType[*state.ObjectError](err); ok {
		return state.Scope{Network: of.Network, Endpoint: of.Endpoint}
	}
	return state.Scope{}
}
