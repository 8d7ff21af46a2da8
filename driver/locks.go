package driver

import (
	"context"
	"fmt"
	"sync"

	"github.com/drawbridge-net/drawbridge/state"
)

// locks serialises calls for the same object. The engine does so itself, except when it
// gave up waiting for a call that is still at work here.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock // guarded by mu
}

type lock struct {
	turn    chan struct{}
	waiting int // how many hold or want it; guarded by locks.mu
}

// The names of locks say in errors what is at work.
func networkLock(id state.NetworkID) string   { return "network " + string(id) }
func endpointLock(id state.EndpointID) string { return "endpoint " + string(id) }

// lockEndpoint checks the two ids that every call about an endpoint has, and waits for the
// endpoint's turn.
func (d *Driver) lockEndpoint(ctx context.Context, networkID, endpointID string) (state.Scope, func(), error) {
	nid, eid, err := parseIDs(networkID, endpointID)
	if err != nil {
		return state.Scope{}, nil, err
	}
	release, err := d.locks.take(ctx, endpointLock(eid))
	return state.Scope{Network: nid, Endpoint: eid}, release, err
}

// lockContainer waits for the turn of the container that the endpoint is in: what it publishes is taken from its other endpoints
// (families), whose locks are taken while its own is held.
func (d *Driver) lockContainer(ctx context.Context, endpointID string) (func(), error) {
	e, ok := d.store.Snapshot().Endpoint(state.EndpointID(endpointID))
	if !ok || !e.Joined() {
		return func() {}, nil
	}
	return d.locks.take(ctx, "container "+e.Sandbox)
}

// taken reports whether a call has the object or waits for it.
func (l *locks) taken(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[id] != nil
}

// take waits for the object's turn and returns what ends it.
func (l *locks) take(ctx context.Context, id string) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	k := l.held[id]
	if k == nil {
		k = &lock{turn: make(chan struct{}, 1)}
		l.held[id] = k
	}
	k.waiting++
	l.mu.Unlock()

	select {
	case k.turn <- struct{}{}:
		return func() { <-k.turn; l.drop(id, k) }, nil
	case <-ctx.Done():
		l.drop(id, k)
		return nil, fmt.Errorf("an earlier call for %s is still at work: %w", id, ctx.Err())
	}
}

func (l *locks) drop(id string, k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.waiting--; k.waiting == 0 {
		delete(l.held, id)
	}
}
