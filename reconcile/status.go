package reconcile

import (
	"errors"
	"slices"
	"time"
)

// Status is how the loop is doing.
type Status struct {
	// Running says whether Run has been called and has not returned.
	Running bool `json:"running"`
	// Step is the step that is running, empty between passes.
	Step string `json:"step,omitempty"`
	// Busy is since when the loop has been at one piece of work, a pass or a look; zero while it waits for some.
	Busy time.Time `json:"busy,omitzero"`
	// Passes counts the passes that have ended.
	Passes uint64 `json:"passes"`
	// Waiting counts the calls of Wait that have not been answered.
	Waiting int `json:"waiting"`

	// Applied is the revision of the last pass in which nothing failed, and AppliedAt
	// when it ended; the zero Time if there was none.
	Applied   uint64    `json:"applied"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`

	// Revision, Ended and Duration (in nanoseconds) are those of the last pass,
	// whatever came of it.
	Revision uint64        `json:"revision"`
	Ended    time.Time     `json:"ended,omitzero"`
	Duration time.Duration `json:"duration"`

	// Disputed is what somebody keeps undoing, so that its repair waits; empty if nobody does. Each pass tells anew.
	Disputed string `json:"disputed,omitempty"`

	Steps []StepStatus `json:"steps"` // in the order in which they run
}

// StepStatus is how one step is doing.
type StepStatus struct {
	Name string `json:"name"`
	// Error says in one line what failed when the step ran the last time; empty if
	// nothing did. Of many failures it names the first few.
	Error string `json:"error,omitempty"`
	// Skipped says that the last pass ended before this step.
	Skipped bool `json:"skipped,omitempty"`
}

// Failed reports whether the last pass left anything undone, or none has ended yet.
func (s Status) Failed() bool {
	return slices.ContainsFunc(s.Steps, func(s StepStatus) bool { return s.Error != "" || s.Skipped })
}

// Status returns how the loop is doing now.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Running = l.phase == running
	s.Step = l.step
	s.Busy = l.busy
	s.Waiting = len(l.queued) + len(l.riding)
	s.Steps = slices.Clone(s.Steps)
	return s
}

// work notes that a piece of work begins, until done is called.
func (l *Loop) work() (done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = time.Now()
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.busy = time.Time{}
	}
}

// add enters a pass that has ended.
func (s *Status) add(r result, err error) {
	s.Passes++
	s.Revision = r.revision
	s.Ended = time.Now()
	s.Duration = s.Ended.Sub(r.began)
	if err == nil {
		s.Applied, s.AppliedAt = r.revision, s.Ended
	}
	for i := range s.Steps {
		s.Steps[i].Skipped = i >= len(r.steps)
		if !s.Steps[i].Skipped {
			s.Steps[i].Error = summary(errors.Join(r.steps[i].errs...))
		}
	}
}
