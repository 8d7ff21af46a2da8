package reconcile

import (
	"context"
	"log/slog"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Plane makes one part of the host (links, rules, the firewalld zone, listeners)
// equal to the state. Apply
//
//   - receives the whole desired state, never a difference, and must not change it,
//   - is idempotent: where nothing is to be done it writes nothing,
//   - leaves alone what Drawbridge does not own,
//   - reports a failure of one network or endpoint as *state.ObjectError, many of them
//     joined by errors.Join, and goes on with the other objects,
//   - returns any other error for what concerns all, which ends the pass,
//   - returns soon after ctx ends.
//
// It is called by one goroutine at a time.
type Plane interface {
	Apply(ctx context.Context, s state.Snapshot) error
}

// Follower is a plane that can do less where the host is known to be equal to an earlier state: only what differs from it. Apply
// still has to find and mend whatever else changed on the host.
type Follower interface {
	Plane
	// Follow makes the host equal to the state c.To. No event, failure or pause gives reason to think that it is
	// not equal to c.From. The rules of Apply hold.
	Follow(ctx context.Context, c state.Change) error
}

// Step is a plane with the name that it has in errors, logs and the status.
type Step struct {
	Name  string
	Plane Plane
}

// Source is where the desired state comes from. Snapshot is called once for each pass.
type Source interface {
	Snapshot() state.Snapshot
}

// Options are the settings of a Loop. The zero value of each field means its default.
type Options struct {
	// Log receives a line when passes begin to fail, fail in another way, or succeed
	// again, and one at level debug for each pass. Default: none is written.
	Log *slog.Logger
	// Interval is the time from the end of a pass to the next if nobody asks for one
	// earlier. Default 30 s.
	Interval time.Duration
	// Timeout ends the context of a pass. Default 20 s.
	Timeout time.Duration
	// Debounce is how long the loop collects triggers before it begins a pass for
	// them, which bounds what a storm of events can cost. A Wait ends it at once.
	// Default 0: it begins at once.
	Debounce time.Duration
}

const (
	defaultInterval = 30 * time.Second
	defaultTimeout  = 20 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return o
}
