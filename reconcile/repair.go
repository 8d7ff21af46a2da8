package reconcile

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	step  string
	found []Finding // no two with the same text
}

func (r stepRepairs) texts() []string { return textsOf(r.found) }

func textsOf(found []Finding) []string {
	var out []string
	for _, f := range found {
		out = append(out, f.Text)
	}
	return out
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
		if undone || d.TouchedBy(*change) || slices.ContainsFunc(r.found, func(f Finding) bool { return f.Text == d.Text }) {
			continue
		}
		r.found = append(r.found, Finding{step.Name, d})
	}
	return r, len(r.found) > 0
}

// tell writes repairs to the log, and notes what somebody undoes again and again.
func (l *Loop) tell(ctx context.Context, r repairs, reasons string) {
	var all []Finding
	for _, s := range r.steps {
		attrs := []any{"part", s.step, "found", inOneLine(s.texts())}
		if reasons != "" {
			attrs = append(attrs, "noticed", reasons)
		}
		l.opts.Log.WarnContext(ctx, "repaired what somebody else changed", attrs...)
		all = append(all, s.found...)
	}
	news := l.fight.note(all, time.Now())
	if len(news) > 0 {
		l.opts.Log.WarnContext(ctx, "somebody keeps undoing repairs: find the program that changes this; until it stops, these repairs wait longer and longer",
			"found", inOneLine(textsOf(news)), "at most", maxTruce)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Disputed = inOneLine(l.fight.disputed())
}

// inOneLine names the first few texts.
func inOneLine(texts []string) string {
	if more := len(texts) - maxTold; more > 0 {
		texts = append(slices.Clone(texts[:maxTold]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}
