package publish

import (
	"context"
	"errors"
	"iter"
	"slices"
	"syscall"

	"github.com/drawbridge-net/drawbridge/state"
)

// Reserve binds the sockets for all requests of an endpoint, or none of them, and returns the
// ports with the numbers that were chosen, in the order of state.SortPortRequests.
//
// It may come again for the same endpoint. What the endpoint has, held here or listed in e.Ports, is kept: an
// ephemeral request gets the same port as before, and an exact one may name another container
// port, which takes effect with the next Apply. Ports that are no longer requested stay held
// until Apply or Release closes them.
//
// Clients are not served before Apply has seen the ports in the state. Errors are
// sentences for the user; a port that is taken is an EADDRINUSE to errors.Is.
func (p *Publisher) Reserve(ctx context.Context, e state.Endpoint, want []state.PortRequest) ([]state.Port, error) {
	requests := slices.Clone(want)
	state.SortPortRequests(requests)
	for _, r := range requests {
		if err := r.Validate(); err != nil {
			return nil, err
		}
	}
	ports, err := p.reserve(ctx, e, requests)
	if err != nil {
		p.explain(ctx, err)
		return nil, err
	}
	return ports, nil
}

func (p *Publisher) reserve(ctx context.Context, e state.Endpoint, requests []state.PortRequest) ([]state.Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	r := newReservation(p, e)
	if err := r.fits(requests); err != nil {
		return nil, err
	}
	ports := make([]state.Port, 0, len(requests))
	for _, request := range requests {
		port, err := r.choose(ctx, request)
		if err != nil {
			r.undo(0)
			return nil, err
		}
		ports = append(ports, port)
	}
	r.keep()
	return ports, nil
}

// Release undoes a Reserve whose ports were not committed to the state: it closes the
// endpoint's sockets but those of the ports in keep. After a commit that took ports out of the
// state, Release(id, nil) ends reservations that no snapshot has shown.
func (p *Publisher) Release(id state.EndpointID, keep []state.Port) {
	kept := map[state.Port]bool{}
	for _, port := range keep {
		kept[hostSide(port)] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.of[id] {
		if !kept[hostSide(s.port)] {
			_ = p.release(s) // closing a socket gives back its place even when it reports an error
		}
	}
}

// hostSide is what decides which sockets a port has.
func hostSide(p state.Port) state.Port {
	p.ContainerPort = 0
	return p
}

// reservation is one call of Reserve. The Publisher's mutex is held for all its life.
type reservation struct {
	*Publisher
	endpoint state.Endpoint
	known    []state.Port         // what the endpoint has
	state    map[state.Port]bool  // of these, what the state has
	claimed  map[place]state.Port // by this call
	opened   []*socket            // by this call
}

func newReservation(p *Publisher, e state.Endpoint) *reservation {
	r := &reservation{
		Publisher: p,
		endpoint:  e,
		known:     slices.Clone(e.Ports),
		state:     map[state.Port]bool{},
		claimed:   map[place]state.Port{},
	}
	for _, port := range e.Ports {
		r.state[port] = true
	}
	for s := range p.of[e.ID] {
		if !s.helper {
			r.known = append(r.known, s.port)
		}
	}
	// A map has no order; without one, two like requests could swap their ports.
	slices.SortFunc(r.known[len(e.Ports):], func(a, b state.Port) int { return int(a.HostPort) - int(b.HostPort) })
	return r
}

// fits refuses more ports than there are files for. Without it that is found out thousands of sockets later, if the caller waits for so long.
func (r *reservation) fits(requests []state.PortRequest) error {
	needed := -len(r.of[r.endpoint.ID]) // it may go on with all of them
	for _, request := range requests {
		needed += r.sockets(request)
	}
	if free := maxSockets() - len(r.held); needed > free && len(requests) > 1 {
		return &shortage{ports: len(requests), needed: needed, free: max(free, 0), limit: fileLimit(), enough: len(r.held) + needed + spareFiles}
	}
	return nil
}

// sockets is how many a request takes at least: a host that lacks a family goes without helpers.
func (r *reservation) sockets(request state.PortRequest) (n int) {
	some := state.Port{Proto: request.Proto, HostIP: request.HostIP, HostPort: request.HostPort, ContainerPort: request.ContainerPort}
	needed, _ := bindings(r.endpoint, some) // what is wrong with it is told where it is bound
	for _, b := range needed {
		if !b.helper {
			n++
		}
	}
	return n
}

// choose finds the host port for one request and binds its sockets.
func (r *reservation) choose(ctx context.Context, request state.PortRequest) (state.Port, error) {
	candidates, err := r.proc.candidates(request)
	if err != nil {
		return state.Port{}, err
	}
	exact := request.HostPort != 0 && request.HostPort == request.HostPortEnd
	for _, numbers := range []iter.Seq[uint16]{r.before(request), candidates} {
		for n := range numbers {
			port := state.Port{Proto: request.Proto, HostIP: request.HostIP, HostPort: n, ContainerPort: request.ContainerPort}
			err := r.bind(ctx, port, exact)
			if err == nil {
				return port, nil
			}
			if exact || !errors.Is(err, syscall.EADDRINUSE) {
				return state.Port{}, err
			}
		}
	}
	return state.Port{}, noneFree(request)
}

// before yields the host ports that the endpoint has for such a request already.
func (r *reservation) before(request state.PortRequest) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		if request.HostPort != 0 && request.HostPort == request.HostPortEnd {
			return
		}
		for _, port := range r.known {
			fits := request.HostPort == 0 || request.HostPort <= port.HostPort && port.HostPort <= request.HostPortEnd
			same := port.Proto == request.Proto && port.HostIP == request.HostIP && port.ContainerPort == request.ContainerPort
			if fits && same && !yield(port.HostPort) {
				return
			}
		}
	}
}

// bind makes sure of all sockets of one port, or leaves things as they were.
func (r *reservation) bind(ctx context.Context, port state.Port, exact bool) error {
	needed, err := bindings(r.endpoint, port)
	if err != nil {
		return err
	}
	before := len(r.opened)
	for _, b := range needed {
		if err := r.socket(ctx, b, exact); err != nil {
			r.undo(before)
			return err
		}
	}
	for _, b := range needed {
		r.claimed[b.place()] = port
	}
	return nil
}

func (r *reservation) socket(ctx context.Context, b binding, exact bool) error {
	at := b.place()
	if _, taken := r.claimed[at]; taken {
		return &conflict{at: at, twice: true}
	}
	if s, ok := r.held[at]; ok {
		// Only an exact request may take a socket over from another port of its endpoint: a search has others to try.
		if s.binding == b || exact && s.endpoint == b.endpoint {
			return nil
		}
		return &conflict{at: at, holder: &s.binding}
	}
	s, err := r.hold(ctx, b, false)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err == nil {
		r.opened = append(r.opened, s)
	}
	return err
}

// undo closes what was opened since there were n.
func (r *reservation) undo(n int) {
	for _, s := range r.opened[n:] {
		_ = r.release(s)
	}
	r.opened = r.opened[:n]
}

// keep protects what the call claimed from snapshots that do not show it yet, and ends the
// protection of what an earlier call claimed and this one did not. Ports that are in the state need
// none: they go when the state loses them.
func (r *reservation) keep() {
	for at, s := range r.held {
		if s.endpoint != r.endpoint.ID {
			continue
		}
		port, claimed := r.claimed[at]
		s.reserved = claimed && !r.state[port]
		s.shown = false
	}
}
