package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Orphan is something in the state that Docker has forgotten.
type Orphan struct {
	Kind string `json:"kind"` // endpoint, network or pool
	ID   string `json:"id"`
	What string `json:"what"` // bridge, addresses and the like
	Why  string `json:"why"`  // how it is known to be forgotten
	// Since is when it was first found missing.
	Since time.Time `json:"since"`
	// Seen says that an engine was once seen to know it. What was not is not removed by itself, unless it is Unanswered.
	Seen bool `json:"seen"`
	// Unanswered says that the daemon ended while it made it, so that Docker may have heard nothing of it.
	Unanswered bool `json:"unanswered,omitempty"`
	// Removed and Error say what became of it when it was to be removed.
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"`
}

// orphans makes the answer from a source.
func orphans(list func(context.Context) ([]Orphan, error)) source {
	return func(ctx context.Context) (any, error) {
		all, err := list(ctx)
		if all == nil {
			all = []Orphan{}
		}
		return all, err
	}
}

// WriteOrphans shows orphans in words, one line each. Times are UTC.
func WriteOrphans(w io.Writer, list []Orphan) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "Docker has forgotten nothing")
		return err
	}
	var errs []error
	for _, o := range list {
		_, err := fmt.Fprintln(w, o.line())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o Orphan) line() string {
	id := o.ID
	if o.Kind != "pool" { // a pool's says what it is
		id = state.NetworkID(id).Short()
	}
	line := fmt.Sprintf("%s %s (%s): %s, since %s", o.Kind, id, oneLine(o.What), oneLine(o.Why), since(o.Since))
	if !o.Seen && !o.Unanswered {
		line += "; no engine was seen to know it, so that it does not go by itself"
	}
	switch {
	case o.Removed:
		line += ": removed"
	case o.Error != "":
		line += ": not removed: " + oneLine(o.Error)
	}
	return line
}
