package ipam

import (
	"context"
	"net/netip"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// ReleasePool frees the pool and all its addresses, unless a network in the store was made of
// it: then DeleteNetwork takes the pool along; the package comment says why. That there is no
// such pool is no error.
func (d *Driver) ReleasePool(ctx context.Context, r *api.ReleasePoolRequest) error {
	_, err := d.store.Update(ctx, func(tx *store.Tx) error {
		pool, ok := tx.Pool(state.PoolID(r.PoolID))
		if ok && !hasNetwork(tx, pool) {
			tx.DeletePool(pool.ID)
		}
		return nil
	})
	return err
}

// ReleaseAddress frees an address. It is no error, and nothing happens, if there is
// no such pool, if the address is free, or if an endpoint or a network in the store
// still has it; the package comment says who frees it then.
func (d *Driver) ReleaseAddress(ctx context.Context, r *api.ReleaseAddressRequest) error {
	a, err := parseAddr(r.Address)
	if err != nil {
		return err
	}
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		release(tx, state.PoolID(r.PoolID), a)
		return nil
	})
	return err
}

// release frees an address that nothing uses.
func release(tx *store.Tx, id state.PoolID, a netip.Addr) {
	pool, ok := tx.Pool(id)
	if !ok {
		return
	}
	if _, ok := tx.Lease(id, a); !ok {
		return
	}
	if _, ok := users(tx, pool)[a]; ok {
		return
	}
	tx.DeleteLease(id, a)
	// The cursor may stand before a, if a was asked for by name.
	if next, ok := findFree(tx, pool, pool.Next); ok && next == a {
		pool.Next = a.Next()
		tx.PutPool(pool)
	}
}
