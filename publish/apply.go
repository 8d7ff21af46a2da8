package publish

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"

	"github.com/drawbridge-net/drawbridge/state"
)

// Apply makes the sockets equal to the ports of s, leaving alone what Reserve holds for a
// later snapshot. It closes what is no longer published, with its connections, binds what
// is missing, as after a restart, and serves the clients of every port in s.
//
// A port that cannot be bound is a *state.ObjectError of its endpoint; the other ports, and
// the port's other sockets, are held all the same, and the next Apply tries again. An error
// that is no ObjectError means that Apply did not finish.
func (p *Publisher) Apply(ctx context.Context, s state.Snapshot) error {
	return p.bring(ctx, s, newPlan(s.Endpoints), p.all)
}

// Follow does the same for the endpoints that differ between two states, of which the sockets are those of the first.
func (p *Publisher) Follow(ctx context.Context, c state.Change) error {
	if len(c.Endpoints)+len(c.Networks) == 0 {
		return ctx.Err()
	}
	var changed []state.Endpoint
	for _, e := range c.To.Endpoints { // in their order
		if c.Endpoints[e.ID] || c.Networks[e.Network] { // whose exposure may differ
			changed = append(changed, e)
		}
	}
	return p.bring(ctx, c.To, newPlan(changed), func() iter.Seq[*socket] { return p.heldFor(c.Endpoints) })
}

// Inspect tells which ports of s have no socket, and changes nothing.
func (p *Publisher) Inspect(_ context.Context, s state.Snapshot) ([]state.Difference, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := newPlan(s.Endpoints)
	var out []state.Difference
	for _, b := range want.bindings {
		if held, ok := p.held[b.place()]; (!ok || held.binding != b) && !b.helper {
			out = append(out, state.Difference{Scope: state.Scope{Network: b.network, Endpoint: b.endpoint}, Text: fmt.Sprintf("published port %s is not held", b.place())})
		}
	}
	return out, errors.Join(want.errs...)
}

// bring makes the sockets that are concerned equal to the plan.
func (p *Publisher) bring(ctx context.Context, s state.Snapshot, want *plan, concerned func() iter.Seq[*socket]) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.apply(ctx, s, want, concerned); err != nil {
		return err
	}
	p.explain(ctx, want.errs...)
	return errors.Join(want.errs...)
}

func (p *Publisher) apply(ctx context.Context, s state.Snapshot, want *plan, concerned func() iter.Seq[*socket]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errClosed
	}
	p.servers.nets.Store(netsOf(s))
	// First what goes, so that a port can move from one endpoint to another.
	for held := range concerned() {
		if !p.stays(held, s, want) {
			_ = p.release(held)
		}
	}
	for _, b := range want.bindings {
		err := p.publish(ctx, s, b)
		if err != nil && ctx.Err() != nil {
			return err
		}
		want.fail(b, err)
	}
	return nil
}

// all are the sockets that are held. p.mu is held.
func (p *Publisher) all() iter.Seq[*socket] { return maps.Values(p.held) }

// heldFor are those of some endpoints. p.mu is held.
func (p *Publisher) heldFor(endpoints map[state.EndpointID]bool) iter.Seq[*socket] {
	return func(yield func(*socket) bool) {
		for id := range endpoints {
			for s := range p.of[id] {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// stays decides about a socket that is held.
func (p *Publisher) stays(held *socket, s state.Snapshot, want *plan) bool {
	wanted, ok := want.at[held.place()]
	if ok && wanted == held.binding {
		return true
	}
	if ok && wanted.endpoint == held.endpoint || !held.reserved {
		return false
	}
	_, exists := s.Endpoint(held.endpoint)
	gone := held.shown && !exists
	held.shown = held.shown || exists
	return !gone
}

// publish holds one socket of the state, and serves the clients that it has in s.
func (p *Publisher) publish(ctx context.Context, s state.Snapshot, b binding) error {
	held, ok := p.held[b.place()]
	if ok && held.binding != b {
		return &conflict{at: b.place(), holder: &held.binding}
	}
	r := p.reach(s, b)
	if ok && p.servers.mistaken(held, r) {
		_ = p.release(held)
		ok = false
	}
	if !ok {
		var err error
		if held, err = p.hold(ctx, b, r.outside); errors.Is(err, errAbsent) {
			return nil
		} else if err != nil {
			return err
		}
	}
	held.reserved = false
	if err := held.server.admit(r); err != nil {
		return fmt.Errorf("admitting clients to port %s: %w", b.place(), err)
	}
	p.serve(held)
	return nil
}

// plan is what endpoints ask for.
type plan struct {
	bindings []binding // in the order of the snapshot
	at       map[place]binding
	errs     []error // each a *state.ObjectError
	failed   map[failure]bool
}

// failure is a port that has been reported.
type failure struct {
	endpoint state.EndpointID
	port     state.Port
}

func newPlan(endpoints []state.Endpoint) *plan {
	want := &plan{at: map[place]binding{}, failed: map[failure]bool{}}
	for _, e := range endpoints {
		for _, port := range state.Bound(e.Ports) {
			needed, err := bindings(e, port)
			want.fail(binding{endpoint: e.ID, network: e.Network, port: port}, err)
			for _, b := range needed {
				want.add(b)
			}
		}
	}
	return want
}

// add gives a place to the first that asks for it. The others fail when it is published.
func (w *plan) add(b binding) {
	w.bindings = append(w.bindings, b)
	if _, taken := w.at[b.place()]; !taken {
		w.at[b.place()] = b
	}
}

// fail records the first failure of a port: the others follow from it more often than not.
func (w *plan) fail(b binding, err error) {
	key := failure{b.endpoint, b.port}
	if err == nil || w.failed[key] {
		return
	}
	w.failed[key] = true
	w.errs = append(w.errs, &state.ObjectError{Network: b.network, Endpoint: b.endpoint, Err: err})
}
