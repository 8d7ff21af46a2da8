package driver

import (
	"context"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Detached returns the endpoints whose link is in no container, and the networks that have no other endpoints. An engine may have
// forgotten these; those that a call is at work on are left out.
func (d *Driver) Detached(ctx context.Context) ([]state.Endpoint, []state.Network, error) {
	s := d.store.Snapshot()
	lost, err := d.host.Lost(ctx, joined(s.Endpoints))
	if err != nil {
		return nil, nil, err
	}
	var endpoints []state.Endpoint
	attached := map[state.NetworkID]bool{}
	for _, e := range s.Endpoints {
		switch {
		case e.Joined() && !has(lost, e.ID):
			attached[e.Network] = true
		case !d.locks.taken(endpointLock(e.ID)):
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, slices.DeleteFunc(slices.Clone(s.Networks), func(n state.Network) bool {
		return attached[n.ID] || d.locks.taken(networkLock(n.ID))
	}), nil
}

// ForgetEndpoint removes an endpoint that Docker forgot, and reports whether it did: not if the endpoint has changed meanwhile, or if its
// link is in a container by now.
func (d *Driver) ForgetEndpoint(ctx context.Context, e state.Endpoint) (gone bool, err error) {
	return d.forgetIf(ctx, e, func() (bool, error) {
		lost, err := d.host.Lost(ctx, joined([]state.Endpoint{e}))
		return !e.Joined() || len(lost) > 0, err
	})
}

// ForgetNetwork removes a network that Docker forgot, with its pools, and reports whether it did: not if it has endpoints, nor if it has changed
// meanwhile.
func (d *Driver) ForgetNetwork(ctx context.Context, n state.Network) (gone bool, err error) {
	release, err := d.locks.take(ctx, networkLock(n.ID))
	if err != nil {
		return false, err
	}
	defer release()
	return d.removeIf(ctx, state.Scope{Network: n.ID}, func(tx *store.Tx) ([]state.Endpoint, bool) {
		current, ok := tx.Network(n.ID)
		if !ok || current != n || len(tx.EndpointsOf(n.ID)) > 0 {
			return nil, false
		}
		dropPools(tx, n.ID)
		return d.dropNetwork(tx, n.ID), true
	})
}
