package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Mender is a plane that tells what it mended.
type Mender interface {
	// Found returns the differences that the last Apply or Follow met, as far as it made an end of them. Those that concern an
	// object may come from a change of the state; those that concern none are somebody else's doing. The slice is read before the
	// next call.
	Found() []state.Difference
}

// maxTold is how many repairs of one step a log line names.
const maxTold = 5

// repairs are what a pass mended that nobody had changed in the state.
type repairs struct {
	steps []stepRepairs
}

type stepRepairs struct {
	step       string
	texts      []string
	disputable []string // those that count in a fight
}

// repairsOf asks a step that has run. Without a state to which the host was equal nothing is known to have been changed, and what
// belongs to an object for which the step failed, or to a step that failed as a whole, may not have been mended.
func (l *Loop) repairsOf(step Step, change *state.Change, errs []error) (stepRepairs, bool) {
	mender, ok := step.Plane.(Mender)
	if !ok || change == nil {
		return stepRepairs{}, false
	}
	failed := map[state.Scope]bool{}
	for _, err := range errs {
		failed[scopeOf(err)] = true
	}
	if failed[state.Scope{}] {
		return stepRepairs{}, false
	}
	r := stepRepairs{step: step.Name}
	for _, d := range mender.Found() {
		undone := failed[d.Scope] || failed[state.Scope{Network: d.Scope.Network}]
		if undone || d.TouchedBy(*change) || slices.Contains(r.texts, d.Text) {
			continue
		}
		r.texts = append(r.texts, d.Text)
		if !d.Paced {
			r.disputable = append(r.disputable, d.Text)
		}
	}
	return r, len(r.texts) > 0
}

// tell writes repairs to the log, and notes whether somebody undoes them again and again.
func (l *Loop) tell(ctx context.Context, r repairs, reasons string) {
	var all []string
	for _, s := range r.steps {
		attrs := []any{"part", s.step, "found", shorten(s.texts)}
		if reasons != "" {
			attrs = append(attrs, "noticed", reasons)
		}
		l.opts.Log.WarnContext(ctx, "repaired what somebody else changed", attrs...)
		all = append(all, s.disputable...)
	}
	defer l.dispute()
	if disputed, wait := l.fight.note(all, time.Now()); disputed != "" {
		l.opts.Log.WarnContext(ctx, "somebody keeps undoing repairs: find the program that changes this; until it stops, repairs wait longer and longer",
			"found", disputed, "wait", wait, "at most", maxTruce)
	}
}

// dispute shows in the status what is fought over.
func (l *Loop) dispute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Disputed = l.fight.text
}

// shorten names the first few texts.
func shorten(texts []string) []string {
	if more := len(texts) - maxTold; more > 0 {
		return append(slices.Clone(texts[:maxTold]), fmt.Sprintf("and %d more", more))
	}
	return texts
}

// How a fight is told from a number of accidents: the same repair so often, each time within so long of the one before. While
// it lasts passes that events ask for wait, twice as long each time. Calls of the engine do not wait, and the pass that is due by
// time is not later than ever.
const (
	fightCount = 4
	fightPause = 20 * time.Second
	minTruce   = 2 * time.Second
	maxTruce   = time.Minute
	maxRepairs = 512 // that are remembered
)

// fight tells whether somebody undoes repairs as soon as they are made.
type fight struct {
	seen  map[string]repaired
	text  string        // what is disputed
	truce time.Duration // 0 while there is no fight
	until time.Time     // no event has a pass begin before
}

// repaired is how often something was repaired in short succession.
type repaired struct {
	times int
	last  time.Time
}

// note counts repairs and returns one that is disputed if that is news, and how long events wait.
func (f *fight) note(texts []string, now time.Time) (disputed string, wait time.Duration) {
	f.forget(now)
	for _, text := range texts {
		r := f.seen[text]
		r.times, r.last = r.times+1, now
		if f.seen == nil {
			f.seen = map[string]repaired{}
		}
		if len(f.seen) < maxRepairs || r.times > 1 {
			f.seen[text] = r
		}
		if r.times >= fightCount && disputed == "" {
			disputed = text
		}
	}
	if disputed == "" {
		return "", 0
	}
	news := f.truce == 0
	f.text = disputed
	f.truce = min(max(2*f.truce, minTruce), maxTruce)
	f.until = now.Add(f.truce)
	if !news {
		disputed = ""
	}
	return disputed, f.truce
}

// forget drops what was not repaired again for longer than the truce, and with the last of it the fight.
func (f *fight) forget(now time.Time) {
	fought := false
	for text, r := range f.seen {
		if now.Sub(r.last) > f.truce+fightPause {
			delete(f.seen, text)
			continue
		}
		fought = fought || r.times >= fightCount
	}
	if !fought {
		f.text, f.truce, f.until = "", 0, time.Time{}
	}
}

// wait returns how long events have to wait.
func (f *fight) wait(now time.Time) time.Duration {
	f.forget(now)
	return max(f.until.Sub(now), 0)
}
