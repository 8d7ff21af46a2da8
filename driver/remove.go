package driver

import (
	"context"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// removal is what a deletion took, found out inside its transaction.
type removal struct {
	nothing bool             // and nothing is left over from earlier ones
	deleted []state.Endpoint // as they were
	closed  []state.Endpoint // as they were; they are still there and publish nothing
}

// remove carries out a deletion and ends the connections of the endpoints that do returns.
// It is not undone: the engine forgets the object whatever the answer is, and the loop goes on
// trying.
func (d *Driver) remove(ctx context.Context, scope state.Scope, do func(*store.Tx) []state.Endpoint) error {
	_, err := d.removeIf(ctx, scope, func(tx *store.Tx) ([]state.Endpoint, bool) { return do(tx), true })
	return err
}

// removeIf is remove for what need not be there any more, as do says, and reports whether the state is without it now.
func (d *Driver) removeIf(ctx context.Context, scope state.Scope, do func(*store.Tx) ([]state.Endpoint, bool)) (gone bool, err error) {
	r, err := d.record(ctx, func(tx *store.Tx) (out []state.Endpoint) {
		out, gone = do(tx)
		return out
	})
	if err != nil {
		return false, err
	}
	if r.nothing {
		return gone, nil
	}
	return gone, d.finish(ctx, scope, r)
}

// finish waits until the host is without what was removed, and ends its connections.
func (d *Driver) finish(ctx context.Context, scope state.Scope, r removal) error {
	err := d.settle(ctx, scope)
	if err == nil {
		// Not after a failure: the rules may still lead to these ports, where somebody
		// else would then listen. The pass that takes the rules away closes the ports.
		for _, e := range append(r.deleted, r.closed...) {
			d.ports.Release(e.ID, nil)
		}
	}
	d.end(r)
	return err
}

// record carries a deletion out in the state.
func (d *Driver) record(ctx context.Context, do func(*store.Tx) []state.Endpoint) (removal, error) {
	var r removal
	var before uint64
	var leftover bool
	after, err := d.store.Update(ctx, func(tx *store.Tx) error {
		before = tx.Revision()
		for _, e := range do(tx) {
			if _, stays := tx.Endpoint(e.ID); stays {
				r.closed = append(r.closed, e)
			} else {
				r.deleted = append(r.deleted, e)
			}
		}
		leftover = len(tx.Retired()) > 0
		return nil
	})
	r.nothing = after == before && !leftover
	return r, err
}

// end cuts off who was connected. The address of a deleted endpoint goes to somebody else, so
// that all its flows must end; one that only closed its ports keeps its own connections.
func (d *Driver) end(r removal) {
	for _, e := range r.deleted {
		d.flows.Forget(e.Addrs())
	}
	for _, e := range r.closed {
		d.flows.ForgetPublished(e, e.Ports)
	}
}

// Settle waits for the host and forgets what removals left behind, those of an earlier process too, if it does not fail.
func (d *Driver) Settle(ctx context.Context) error {
	s := d.store.Snapshot()
	closed := slices.DeleteFunc(slices.Clone(s.Endpoints), func(e state.Endpoint) bool { return len(e.Closed) == 0 })
	if len(s.Retired)+len(closed) == 0 {
		return nil
	}
	err := d.settle(ctx, state.Scope{})
	for _, e := range closed {
		if err == nil {
			err = d.endClosed(ctx, e)
		}
	}
	return err
}

// endClosed ends, and forgets, what came by ports that an endpoint has lost, as it was when the host was last waited for.
func (d *Driver) endClosed(ctx context.Context, was state.Endpoint) error {
	release, err := d.locks.take(ctx, endpointLock(was.ID))
	if err != nil {
		return err
	}
	defer release()
	if e, ok := d.store.Snapshot().Endpoint(was.ID); !ok || !slices.Equal(e.Closed, was.Closed) {
		return nil
	}
	d.flows.ForgetPublished(was, was.Closed)
	if err := d.flows.Settle(ctx); err != nil {
		return err
	}
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		if e, ok := tx.Endpoint(was.ID); ok {
			e.Closed = nil
			tx.PutEndpoint(e)
		}
		return nil
	})
	return err
}

// settle waits for the host. If everything went well, nothing is left of any bridge that was
// retired until then, and their names are forgotten: those that an earlier call had to leave
// behind, too. What failed elsewhere than in the scope is not the caller's.
//
// A name may have been in use again meanwhile and retired anew, which no pass has seen. Where
// any was retired meanwhile all are kept, therefore; the call that did it comes here too.
func (d *Driver) settle(ctx context.Context, scope state.Scope) error {
	retirements := d.retirements.Load() // before the snapshot, or one could fall between
	s := d.store.Snapshot()
	if err := d.loop.Wait(ctx, s.Revision, state.Scope{}); err != nil {
		return scope.Select(err)
	}
	_, err := d.store.Update(ctx, func(tx *store.Tx) error {
		if d.retirements.Load() != retirements {
			return nil
		}
		for _, bridge := range s.Retired {
			tx.Unretire(bridge)
		}
		return nil
	})
	return err
}
