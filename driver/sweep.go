package driver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// How long an endpoint may look forgotten before it is. An engine moves the link within seconds of
// Join, and joins within seconds of CreateEndpoint; one that this process saw so far gets longer, since
// a stalled engine may still go on.
const (
	lostPatience     = 30 * time.Second
	underWayPatience = 5 * time.Minute
)

// suspects remembers, for the life of the process, what Sweep found and what was joined.
type suspects struct {
	mu     sync.Mutex
	since  map[state.EndpointID]time.Time // guarded by mu
	joined map[state.EndpointID]bool      // by this process; guarded by mu
}

// Sweep removes endpoints that Docker forgot: it drops the errors of Leave and DeleteEndpoint, so that a
// container that is stopped while the daemon is away leaves its endpoint, ports and addresses
// behind. An endpoint is taken for forgotten when its link has been in no container for a while, or when it
// was never joined. Sweep is to be called every few seconds; it returns what it removed.
func (d *Driver) Sweep(ctx context.Context, now time.Time) ([]state.Endpoint, error) {
	s := d.store.Snapshot()
	lost, err := d.host.Lost(ctx, joined(s.Endpoints))
	if err != nil {
		return nil, err
	}
	return d.forget(ctx, slices.DeleteFunc(d.suspects.overdue(s.Endpoints, lost, now), d.runs))
}

// Unlinked returns joined endpoints that have had no link for a sweep or more, and got none since: those of containers that run,
// which have to be restarted, and those of containers that are gone, which Sweep is about to remove.
func (d *Driver) Unlinked(ctx context.Context) (running, gone []state.Endpoint, err error) {
	suspects := d.suspects.among(joined(d.store.Snapshot().Endpoints))
	if len(suspects) == 0 {
		return nil, nil, nil
	}
	lost, err := d.host.Lost(ctx, suspects)
	for _, e := range lost {
		if d.runs(e) {
			running = append(running, e)
		} else {
			gone = append(gone, e)
		}
	}
	return running, gone, err
}

// among returns those of the endpoints that are suspects.
func (m *suspects) among(endpoints []state.Endpoint) []state.Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(endpoints, func(e state.Endpoint) bool {
		_, suspect := m.since[e.ID]
		return !suspect
	})
}

// runs reports whether the container of an endpoint that has joined one runs: somebody has deleted its link.
func (d *Driver) runs(e state.Endpoint) bool { return e.Joined() && d.host.Running(e) }

func joined(endpoints []state.Endpoint) []state.Endpoint {
	return slices.DeleteFunc(slices.Clone(endpoints), func(e state.Endpoint) bool { return !e.Joined() })
}

// overdue returns the endpoints that have looked forgotten for long enough, and forgets
// about those that no longer do.
func (m *suspects) overdue(all, lost []state.Endpoint, now time.Time) []state.Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	since, here := map[state.EndpointID]time.Time{}, map[state.EndpointID]bool{}
	var out []state.Endpoint
	for _, e := range all {
		patience := underWayPatience
		if m.joined[e.ID] {
			here[e.ID] = true
		} else if e.Joined() {
			patience = lostPatience
		}
		if e.Joined() && !has(lost, e.ID) {
			continue
		}
		first, known := m.since[e.ID]
		if !known {
			first = now
		}
		since[e.ID] = first
		if now.Sub(first) >= patience {
			out = append(out, e)
		}
	}
	m.since, m.joined = since, here
	return out
}

func has(endpoints []state.Endpoint, id state.EndpointID) bool {
	return slices.ContainsFunc(endpoints, func(e state.Endpoint) bool { return e.ID == id })
}

// evict removes at once what holds one of the wanted ports and is certainly forgotten: lost,
// and joined before this process began, so that hardly an engine is about to move its link.
func (d *Driver) evict(ctx context.Context, except state.EndpointID, want []state.PortRequest) (any bool, err error) {
	lost, err := d.host.Lost(ctx, joined(d.store.Snapshot().Endpoints))
	if err != nil {
		return false, err
	}
	removed, err := d.forget(ctx, slices.DeleteFunc(lost, func(e state.Endpoint) bool {
		return e.ID == except || d.suspects.joinedHere(e.ID) || !holds(e, want) || d.host.Running(e)
	}))
	return len(removed) > 0, err
}

// holds reports whether one of the endpoint's ports is among those wanted.
func holds(e state.Endpoint, want []state.PortRequest) bool {
	return slices.ContainsFunc(state.Bound(e.Ports), func(p state.Port) bool {
		return slices.ContainsFunc(want, func(r state.PortRequest) bool {
			return r.Proto == p.Proto && r.HostPort <= p.HostPort && p.HostPort <= r.HostPortEnd
		})
	})
}

func (m *suspects) noteJoin(id state.EndpointID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joined == nil {
		m.joined = map[state.EndpointID]bool{}
	}
	m.joined[id] = true
	delete(m.since, id)
}

func (m *suspects) joinedHere(id state.EndpointID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined[id]
}

// forget removes endpoints for Docker, with their leases: nobody will release them.
func (d *Driver) forget(ctx context.Context, endpoints []state.Endpoint) (removed []state.Endpoint, err error) {
	var errs []error
	for _, e := range endpoints {
		gone, err := d.forgetOne(ctx, e)
		if gone {
			removed = append(removed, e)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// forgetOne leaves alone an endpoint that has changed meanwhile: then somebody knows it.
func (d *Driver) forgetOne(ctx context.Context, e state.Endpoint) (gone bool, err error) {
	return d.forgetIf(ctx, e, func() (bool, error) { return true, nil })
}

// forgetIf is forgetOne for an endpoint of which a condition holds, while no call is at work on it.
func (d *Driver) forgetIf(ctx context.Context, e state.Endpoint, holds func() (bool, error)) (gone bool, err error) {
	scope, release, err := d.lockEndpoint(ctx, string(e.Network), string(e.ID))
	if err != nil {
		return false, err
	}
	defer release()
	if ok, err := holds(); err != nil || !ok {
		return false, err
	}
	gone, err = d.removeIf(ctx, scope, func(tx *store.Tx) ([]state.Endpoint, bool) {
		current, ok := tx.Endpoint(e.ID)
		if !ok || current.Sandbox != e.Sandbox || !slices.Equal(current.Ports, e.Ports) {
			return nil, false
		}
		tx.DeleteEndpoint(e.ID)
		return []state.Endpoint{current}, true
	})
	if !gone {
		return gone, err
	}
	// Not before its flows are to be cut: whoever gets the address waits for those that are.
	_, failed := d.store.Update(ctx, func(tx *store.Tx) error {
		releaseLeases(tx, e)
		return nil
	})
	return gone, errors.Join(err, failed)
}

func releaseLeases(tx *store.Tx, e state.Endpoint) {
	for _, p := range tx.Pools() {
		for _, a := range e.Addrs() {
			if p.Prefix.Contains(a) {
				tx.DeleteLease(p.ID, a)
			}
		}
	}
}
