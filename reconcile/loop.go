package reconcile

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

var (
	errTwice   = errors.New("the reconcile loop was started a second time")
	errStopped = errors.New("drawbridge is shutting down")
)

// Loop applies the state to the host. Its methods may be called from any goroutine.
type Loop struct {
	source Source
	steps  []Step
	opts   Options

	// now and soon hold at most one request each: to begin a pass at once, or after
	// the debounce time. They are emptied before a pass takes its snapshot, so that a
	// request is never older than the pass that answers it.
	now, soon chan struct{}

	inspections chan inspection
	ended       chan struct{} // closed when Run has returned

	// What follows is used by Run alone.
	backoff backoff
	last    string          // text of the last failure, to log it once
	equal   *state.Snapshot // what the last pass made the host equal to; nil if something failed in it
	known   *state.Snapshot // what the host was last known to be equal to
	// unsettled is what has differed from known in passes since then.
	unsettled state.Change
	fight     fight

	mu sync.Mutex
	// mu guards what follows. No plane and no source is called while it is held.
	phase   phase
	step    string               // the step of the running pass, "" between passes
	busy    time.Time            // when the work began at which Run is, zero between
	covers  uint64               // revision of the running pass's snapshot
	queued  map[*waiter]struct{} // wait for a pass that has not begun
	riding  map[*waiter]struct{} // wait for the running pass
	reasons []string             // of the next pass, for the log
	suspect bool                 // something but the state may have changed since the last pass began
	status  Status
}

type phase int

const (
	notStarted phase = iota
	running
	stopped
)

// New returns a loop over the steps, in their order. It does nothing until Run.
func New(src Source, steps []Step, o Options) *Loop {
	l := &Loop{
		source: src,
		steps:  slices.Clone(steps),
		opts:   o.withDefaults(),
		now:    make(chan struct{}, 1),
		soon:   make(chan struct{}, 1),

		inspections: make(chan inspection),
		ended:       make(chan struct{}),
		queued:      map[*waiter]struct{}{},
		riding:      map[*waiter]struct{}{},
	}
	for _, s := range steps {
		l.status.Steps = append(l.status.Steps, StepStatus{Name: s.Name, Skipped: true})
	}
	return l
}

// Run applies the state at once and then whenever there is reason to, until ctx ends;
// it returns nil then. A pass that is running is interrupted, and those who still wait get an
// error. Run may be called once.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.start(); err != nil {
		return err
	}
	defer l.stop()
	due := false
	for ctx.Err() == nil {
		delay := l.pass(ctx, due)
		due = l.idle(ctx, delay)
	}
	return nil
}

// Trigger asks for a pass even though the state has not changed, for instance because
// something changed on the host. It never blocks. The reason goes to the log.
func (l *Loop) Trigger(reason string) { l.request(reason, true, l.soon) }

// Hurry is Trigger for what leaves the host open until the pass: it does not wait for further triggers, nor for who undoes repairs.
func (l *Loop) Hurry(reason string) { l.request(reason, true, l.now) }

// Glance asks for a pass that looks only where it costs nothing: a Follower whose part of the state is as it was tells by itself
// whether somebody has changed what it keeps. It never blocks. The reason goes to the log.
func (l *Loop) Glance(reason string) { l.request(reason, false, l.soon) }

// request asks for a pass, of the whole host where something is suspect.
func (l *Loop) request(reason string, suspect bool, when chan struct{}) {
	l.mu.Lock()
	l.because(reason)
	l.suspect = l.suspect || suspect
	l.mu.Unlock()
	poke(when)
}

// idle waits for the next pass and reports whether it is due by time: nobody asked.
func (l *Loop) idle(ctx context.Context, delay time.Duration) (due bool) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-l.now:
		case <-l.soon:
			return l.collect(ctx, timer.C)
		case q := <-l.inspections:
			if drain(l.now) { // the question came after the change
				timer.Reset(l.pass(ctx, false))
			}
			l.inspect(q)
			continue
		case <-timer.C:
			return true
		}
		return false
	}
}

// collect lets further triggers arrive, and goes on doing so while all that differs is what somebody undoes whenever a pass
// mends it. It reports whether the next pass was due by time before that.
func (l *Loop) collect(ctx context.Context, due <-chan time.Time) bool {
	timer := time.NewTimer(l.opts.Debounce)
	defer timer.Stop()
	var events chan struct{} // that may be of something else; nil while they are collected
	for {
		select {
		case <-ctx.Done():
		case <-l.now:
		case <-due:
			return true
		case <-events:
			events = nil
			timer.Reset(lookPause)
			continue
		case <-timer.C:
			if wait := l.truce(ctx); wait > 0 {
				events = l.soon
				timer.Reset(wait)
				continue
			}
		case q := <-l.inspections:
			if drain(l.now) { // the question came after the change
				l.pass(ctx, false)
			}
			l.inspect(q)
			continue
		}
		return false
	}
}

func (l *Loop) start() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase != notStarted {
		return errTwice
	}
	l.phase = running
	l.because("start")
	return nil
}

// stop answers all who wait and makes later ones return at once.
func (l *Loop) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.ended)
	l.phase = stopped
	l.step = ""
	l.answer(l.queued, errStopped)
	l.answer(l.riding, errStopped)
}

// maxReasons bounds what a storm of different reasons can make of a log line.
const maxReasons = 8

// because notes why a pass was asked for, and forgets the oldest of many reasons; the caller holds mu.
func (l *Loop) because(reason string) {
	if slices.Contains(l.reasons, reason) {
		return
	}
	if len(l.reasons) == maxReasons {
		l.reasons = slices.Delete(l.reasons, 0, 1)
	}
	l.reasons = append(l.reasons, reason)
}

// poke leaves a request in c unless there is one already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// drain takes the request out of c and reports whether there was one.
func drain(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
