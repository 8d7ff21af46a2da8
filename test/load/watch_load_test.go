//go:build load

package load

import (
	"context"
	"time"
)

// askTime bounds an answer on the control socket, a little beyond what the daemon gives itself for it.
const askTime = 12 * time.Second

// question is one that the daemon's command line asks.
type question struct {
	name string
	ask  func(context.Context) error
}

func (m *machine) questions() []question {
	return []question{
		{"status", func(ctx context.Context) error { _, err := m.status.Status(ctx); return err }},
		{"ports", func(ctx context.Context) error { _, err := m.status.Ports(ctx); return err }},
		{"rules", func(ctx context.Context) error { _, err := m.status.Rules(ctx); return err }},
		// How they differ in the midst of changes says nothing.
		{"verify", func(ctx context.Context) error { _, err := m.status.Verify(ctx); return err }},
	}
}

// pause is that between two questions of one kind: a reader in a hurry.
const pause = 50 * time.Millisecond

// watch asks until it is over.
func (m *machine) watch(q question, over <-chan struct{}) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(m.t.Context(), askTime)
		began := time.Now()
		err := q.ask(ctx)
		cancel()
		m.figures.timed(q.name, began)
		if err != nil {
			m.t.Errorf("%s under load: %v", q.name, err)
			return
		}
		select {
		case <-over:
			return
		case <-tick.C:
		}
	}
}
