package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// result is what one pass came to.
type result struct {
	revision uint64
	began    time.Time
	steps    []stepResult // those that ran
	repairs  repairs
	stopped  bool // a step's failure ended the pass early
	whole    bool // it looked at the whole host
}

type stepResult struct {
	name string
	errs []error // each for one object, or for all
	took time.Duration
}

// err returns everything that went wrong, in a form that state.Scope can select from.
func (r result) err() error {
	var all []error
	for _, s := range r.steps {
		all = append(all, s.errs...)
	}
	return errors.Join(all...)
}

// took says how long each step was at work.
func (r result) took() string {
	var parts []string
	for _, s := range r.steps {
		parts = append(parts, fmt.Sprintf("%s %v", s.name, s.took))
	}
	return strings.Join(parts, ", ")
}

// pass applies the state once and returns the time after which the next pass is due if
// nobody asks for it. due says that this one was due by time.
func (l *Loop) pass(ctx context.Context, due bool) time.Duration {
	defer l.work()()
	drain(l.now)
	drain(l.soon)
	if due {
		clear(l.fight.futile)
	}
	began := time.Now()
	snap := l.source.Snapshot()
	reasons, suspect := l.board(snap.Revision)
	var change *state.Change // nil to look at everything
	if l.equal != nil && !suspect && !due {
		c := state.Compare(*l.equal, snap)
		change = &c
	}
	l.equal = nil // also if a plane panics
	r := l.apply(ctx, change, snap)
	r.began = began
	err := r.err()
	if err == nil {
		l.equal, l.known, l.unsettled = &snap, &snap, state.Change{}
	}
	if err != nil && ctx.Err() != nil {
		return 0 // interrupted by the end of Run, which answers those who wait
	}
	l.finish(r, err)
	l.report(ctx, r, err, reasons)
	return l.delay(r, err, due)
}

// apply runs the steps in order until one fails for more than single objects.
func (l *Loop) apply(ctx context.Context, change *state.Change, snap state.Snapshot) result {
	ctx, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	sinceKnown := l.sinceKnown(change, snap)
	r := result{revision: snap.Revision, whole: change == nil}
	for _, step := range l.steps {
		l.enter(step.Name)
		began := time.Now()
		errs, objects := split(l.run(ctx, step, change, snap))
		for i, err := range errs {
			if !isObject(err) {
				errs[i] = fmt.Errorf("%s: %w", step.Name, err)
			}
		}
		r.steps = append(r.steps, stepResult{step.Name, errs, time.Since(began)})
		if mended, any := l.repairsOf(step, sinceKnown, errs); any {
			r.repairs.steps = append(r.repairs.steps, mended)
		}
		if !objects {
			r.stopped = true
			break
		}
	}
	return r
}

// sinceKnown returns what differs between snap and the state to which the host was last known to be equal, and what did in a pass
// since then, though it may have gone again; nil before there was such a state.
func (l *Loop) sinceKnown(change *state.Change, snap state.Snapshot) *state.Change {
	if change != nil || l.known == nil {
		return change
	}
	c := state.Compare(*l.known, snap)
	l.unsettled.Join(c)
	c.Join(l.unsettled)
	return &c
}

// run runs one step, unless those before it have used up the time of the pass.
func (l *Loop) run(ctx context.Context, step Step, change *state.Change, snap state.Snapshot) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not begun, the steps before it took all of %s: %w", l.opts.Timeout, err)
	}
	return call(ctx, step.Plane, change, snap)
}

// panicked is a panic of a plane as an error.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string {
	return fmt.Sprintf("a fault in drawbridge: %v", p.value)
}

// call has a plane do its work: what differs from the state to which the host is equal, or, where change is nil, whatever is
// to be done.
func call(ctx context.Context, p Plane, change *state.Change, snap state.Snapshot) (err error) {
	defer rescue(&err)
	if f, ok := p.(Follower); ok && change != nil {
		return f.Follow(ctx, *change)
	}
	return p.Apply(ctx, snap)
}

// rescue, deferred, turns a panic into an error.
func rescue(err *error) {
	if v := recover(); v != nil {
		*err = &panicked{v, debug.Stack()}
	}
}

// delay returns when the next pass is due. Where only single objects failed, the rest
// of the host goes on being checked at its interval.
func (l *Loop) delay(r result, err error, due bool) time.Duration {
	if err == nil {
		l.backoff.reset()
		return l.opts.Interval
	}
	d := l.backoff.next(due)
	if !r.stopped {
		d = min(d, l.opts.Interval)
	}
	return d
}

// report writes the pass to the log: a failure once, and its end.
func (l *Loop) report(ctx context.Context, r result, err error, reasons []string) {
	log := l.opts.Log.With("rev", r.revision)
	log.DebugContext(ctx, "pass ended", "reason", strings.Join(reasons, ", "), // empty if due by time
		"duration", time.Since(r.began), "whole", r.whole, "steps", r.took(), "failed", err != nil)
	l.tell(ctx, r.repairs, strings.Join(reasons, ", "))
	text := summary(err)
	switch {
	case text == l.last:
	case text == "":
		log.InfoContext(ctx, "the host is as it should be again")
	default:
		attrs := []any{"error", text, "stopped", r.stopped}
		if p, ok := errors.AsType[*panicked](err); ok {
			attrs = append(attrs, slog.String("stack", string(p.stack)))
		}
		log.ErrorContext(ctx, "the host is not as it should be, trying again", attrs...)
	}
	l.last = text
}
