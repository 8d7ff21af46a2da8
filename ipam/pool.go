package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// RequestPool gives a network its subnet: the one that the request names, or a free one.
//
// Two requests that name none get two different pools, because Docker asks again while
// it holds on to an answer that it does not like.
func (d *Driver) RequestPool(ctx context.Context, r *api.RequestPoolRequest) (*api.RequestPoolResponse, error) {
	want, err := parsePoolRequest(r)
	if err != nil {
		return nil, err
	}
	var pool state.Pool
	if want.subnet.IsValid() {
		pool, err = d.takePool(ctx, want)
	} else {
		pool, err = d.choosePool(ctx, want)
	}
	if err != nil {
		return nil, err
	}
	return &api.RequestPoolResponse{PoolID: string(pool.ID), Pool: pool.Prefix.String()}, nil
}

// ReleasePool frees the pool and all its addresses. That there is no such pool is
// no error.
func (d *Driver) ReleasePool(ctx context.Context, r *api.ReleasePoolRequest) error {
	_, err := d.store.Update(ctx, func(tx *store.Tx) error {
		tx.DeletePool(state.PoolID(r.PoolID))
		return nil
	})
	return err
}

// takePool gives the subnet that the request names.
func (d *Driver) takePool(ctx context.Context, want poolRequest) (state.Pool, error) {
	pool := newPool(want.subnet, want.ipRange)
	_, err := d.store.Update(ctx, func(tx *store.Tx) error {
		if old, ok := tx.Pool(pool.ID); ok && untouched(tx, old) {
			pool = old
			dropLeases(tx, old) // this network's gateway may be another
			return nil
		}
		if err := checkOverlap(tx, pool.Prefix); err != nil {
			return err
		}
		tx.PutPool(pool)
		return nil
	})
	return pool, err
}

// untouched reports whether nothing has come of the pool: its answer was lost, or Docker died
// before it made the network. Docker remembers nothing of such a pool and never releases it.
func untouched(tx *store.Tx, pool state.Pool) bool {
	for _, n := range tx.Networks() {
		for _, s := range n.Subnets() {
			if s.Prefix.Overlaps(pool.Prefix) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(tx.Leases(pool.ID), func(l state.Lease) bool { return !l.Gateway })
}

func dropLeases(tx *store.Tx, pool state.Pool) {
	for _, l := range tx.Leases(pool.ID) {
		tx.DeleteLease(pool.ID, l.Addr)
	}
}

// checkOverlap refuses a subnet that overlaps one of ours, and says which. Networks come
// first: their names mean something to the user.
func checkOverlap(tx *store.Tx, p netip.Prefix) error {
	for _, n := range tx.Networks() {
		for _, s := range n.Subnets() {
			if s.Prefix.Overlaps(p) {
				return fmt.Errorf("subnet %s overlaps %s of network %s: choose another with --subnet, or remove that network", p, s.Prefix, n.ID.Short())
			}
		}
	}
	for _, pool := range tx.Pools() {
		if pool.Prefix.Overlaps(p) {
			return fmt.Errorf("subnet %s overlaps %s, which was given to a network that is still being created or removed: try again later, or choose another with --subnet", p, pool.Prefix)
		}
	}
	return nil
}

// choosePool gives a subnet that nothing else uses.
func (d *Driver) choosePool(ctx context.Context, want poolRequest) (state.Pool, error) {
	occupied, err := d.host.OccupiedPrefixes(ctx)
	if err != nil {
		return state.Pool{}, fmt.Errorf("finding out which addresses the host uses: %w", err)
	}
	var pool state.Pool
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		bases := d.basesOf(tx, want.v6)
		taken := takenPrefixes(tx, occupied)
		for _, base := range bases {
			if want.size != 0 {
				base.Size = want.size
			}
			if base.Size < base.Base.Bits() {
				continue
			}
			if p, ok := base.firstFree(taken); ok {
				pool = newPool(p, p)
				tx.PutPool(pool)
				return nil
			}
		}
		return exhausted(tx, want, bases)
	})
	return pool, err
}

// takenPrefixes returns, sorted, what a chosen pool must not overlap.
func takenPrefixes(tx *store.Tx, occupied []netip.Prefix) []netip.Prefix {
	var taken []netip.Prefix
	for _, p := range occupied {
		if p.Bits() > 0 { // a default route is no use of the addresses
			taken = append(taken, p.Masked())
		}
	}
	for _, pool := range tx.Pools() {
		taken = append(taken, pool.Prefix)
	}
	for _, n := range tx.Networks() { // with another IPAM driver they have no pool
		for _, s := range n.Subnets() {
			taken = append(taken, s.Prefix)
		}
	}
	sortPrefixes(taken)
	return taken
}

// exhausted is the error when no base pool has a free piece.
func exhausted(tx *store.Tx, want poolRequest, bases []BasePool) error {
	var names []string
	used, fits := 0, false
	for _, b := range bases {
		names = append(names, b.Base.String())
		fits = fits || want.size == 0 || want.size >= b.Base.Bits()
	}
	from := strings.Join(names, " and ")
	if !fits {
		return fmt.Errorf("no subnet of size /%d can be chosen: the %s address pools are cut from %s; give a larger one with --default-address-pool, or name a subnet with --subnet",
			want.size, family(want.v6), from)
	}
	for _, p := range tx.Pools() {
		if p.Prefix.Addr().Is6() == want.v6 {
			used++
		}
	}
	return fmt.Errorf("no %s address pool is free: %d are in use, and together with this host's routes and addresses they take all of %s; remove unused networks (docker network prune), name a subnet with --subnet, or give more room with --default-address-pool",
		family(want.v6), used, from)
}

// newPool names a pool by its prefixes alone: Docker keeps the name in its records of
// networks and endpoints and expects the same one when it asks for the pool again.
func newPool(subnet, ipRange netip.Prefix) state.Pool {
	id := "drawbridge/" + subnet.String()
	if ipRange != subnet {
		id += "/" + ipRange.String()
	}
	return state.Pool{ID: state.PoolID(id), Prefix: subnet, Range: ipRange}
}
