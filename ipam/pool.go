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

// takePool gives the subnet that the request names.
func (d *Driver) takePool(ctx context.Context, want poolRequest) (state.Pool, error) {
	pool := newPool(want.subnet, want.ipRange)
	occupied, err := d.occupiedBehind(ctx, pool.Prefix)
	if err != nil {
		return state.Pool{}, err
	}
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		if err := d.makeRoom(tx, pool, occupied); err != nil {
			return err
		}
		d.put(tx, pool)
		return nil
	})
	return pool, err
}

func (d *Driver) put(tx *store.Tx, pool state.Pool) {
	pool.Made = tx.Run()
	tx.PutPool(pool)
	d.memory.begun[pool.ID] = d.now()
}

// occupiedBehind asks the host, if there are pools in the way of the prefix.
func (d *Driver) occupiedBehind(ctx context.Context, p netip.Prefix) ([]netip.Prefix, error) {
	overlaps := func(pool state.Pool) bool { return pool.Prefix.Overlaps(p) }
	if !slices.ContainsFunc(d.store.Snapshot().Pools, overlaps) {
		return nil, nil
	}
	return d.occupied(ctx, p.Addr().Is6())
}

func (d *Driver) occupied(ctx context.Context, v6 bool) ([]netip.Prefix, error) {
	occupied, err := d.host.OccupiedPrefixes(ctx, v6)
	if err != nil {
		return nil, fmt.Errorf("finding out which addresses the host uses: %w", err)
	}
	return occupied, nil
}

// makeRoom refuses a pool that overlaps one of ours, and says which. Networks come first: their
// ids mean something to the user. Abandoned pools give way.
func (d *Driver) makeRoom(tx *store.Tx, want state.Pool, occupied []netip.Prefix) error {
	for _, n := range tx.Networks() {
		for _, s := range n.Subnets() {
			if s.Prefix.Overlaps(want.Prefix) {
				return fmt.Errorf("subnet %s overlaps %s of network %s: choose another with --subnet, or remove that network", want.Prefix, s.Prefix, n.ID.Short())
			}
		}
	}
	for _, pool := range tx.Pools() {
		switch {
		case !pool.Prefix.Overlaps(want.Prefix):
			continue
		case d.memory.isUnderWay(pool.ID, d.now()):
			return fmt.Errorf("subnet %s overlaps %s of a network that is being created at this moment: choose another with --subnet, or try again in %s", want.Prefix, pool.Prefix, underWay)
		case !d.abandoned(tx, pool, want, occupied):
			return fmt.Errorf("subnet %s overlaps %s, which another network has (one of another network driver, or one that was not completed): choose another with --subnet", want.Prefix, pool.Prefix)
		}
		tx.DeletePool(pool.ID)
	}
	return nil
}

// abandoned reports whether the pool, of which no network in the store was made, seems to be left
// over from a creation that failed or was cut short; Docker then remembers nothing of it and
// never releases it. What speaks against it is that the host has the gateway's address, as
// it has for Docker's own bridges, or that containers have asked for addresses.
func (d *Driver) abandoned(tx *store.Tx, pool, want state.Pool, occupied []netip.Prefix) bool {
	_, begun := d.memory.begun[pool.ID]
	if pool.ID != want.ID && !begun {
		return false
	}
	return !slices.ContainsFunc(tx.Leases(pool.ID), func(l state.Lease) bool {
		onHost := l.Gateway && slices.Contains(occupied, netip.PrefixFrom(l.Addr, l.Addr.BitLen()))
		aux := l.Reserved && begun
		return onHost || !l.Gateway && !aux
	})
}

// choosePool gives a subnet that nothing else uses.
func (d *Driver) choosePool(ctx context.Context, want poolRequest) (state.Pool, error) {
	occupied, err := d.occupied(ctx, want.v6)
	if err != nil {
		return state.Pool{}, err
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
				d.put(tx, pool)
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
