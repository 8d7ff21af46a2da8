package firewalld

import (
	"context"
	"errors"
	"fmt"

	"github.com/drawbridge-net/drawbridge/state"
)

// found notes what of firewalld is not as the state wants it, and is mended or, in a look, left as it is.
type found struct {
	looking     bool
	paced       bool // by the reloads that it takes each time, which an administrator may ask for as often as he likes
	differences []state.Difference
}

func (f *found) note(about state.Scope, format string, args ...any) {
	f.differences = append(f.differences, state.Difference{Scope: about, Text: "firewalld: " + fmt.Sprintf(format, args...), Paced: f.paced})
}

// Found tells what the last Apply mended.
func (p *Plane) Found() []state.Difference {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found.differences
}

// Inspect tells how firewalld differs from s.
func (p *Plane) Inspect(ctx context.Context, s state.Snapshot) ([]state.Difference, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := &found{looking: true}
	err := p.with(ctx, func(b *bus) error {
		missing, err := missingObjects(ctx, b)
		if err != nil {
			return err
		}
		for _, o := range missing {
			f.note(state.Scope{}, "there is no %s %s", o.what, o.name)
		}
		return errors.Join(bind(ctx, b, s, f), unbind(ctx, b, s, f))
	})
	return f.differences, err
}
