package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Docker marks the request for a network's gateway with this option (moby,
// daemon/libnetwork/ipamapi and netlabel).
const (
	typeOption  = "RequestAddressType"
	gatewayType = "com.docker.network.gateway"
)

// RequestAddress gives out the address that the request names, or a free one of the
// pool's range. The answer has the length of the pool's subnet.
//
// An address that is leased but not in use by an endpoint may be asked for by name: nobody has
// it, or Docker repeats a request, which it does with its arguments only if they were lost
// with an earlier process (moby#35459). So where no network in the store says who has the address,
// it is refused if this process has leased it. The gateway is the same however
// often it is asked for.
func (d *Driver) RequestAddress(ctx context.Context, r *api.RequestAddressRequest) (*api.RequestAddressResponse, error) {
	var named netip.Addr
	var err error
	if r.Address != "" {
		if named, err = parseAddr(r.Address); err != nil {
			return nil, err
		}
	}
	var given netip.Prefix
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		pool, ok := tx.Pool(state.PoolID(r.PoolID))
		if !ok {
			return fmt.Errorf("drawbridge has no address pool %q: remove the network and create it again", state.Clip(r.PoolID))
		}
		addr, err := d.lease(tx, pool, named, r.Options[typeOption] == gatewayType)
		given = netip.PrefixFrom(addr, pool.Prefix.Bits())
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.RequestAddressResponse{Address: given.String()}, nil
}

func (d *Driver) lease(tx *store.Tx, pool state.Pool, named netip.Addr, gateway bool) (a netip.Addr, err error) {
	made := hasNetwork(tx, pool)
	switch {
	case named.IsValid():
		a, err = named, d.takeAddr(tx, pool, named, gateway, made)
	case gateway:
		a, err = chooseGateway(tx, pool)
	default:
		a, err = chooseAddr(tx, pool)
	}
	if err == nil {
		d.memory.noteRequest(pool.ID, gateway, named.IsValid(), d.now())
		d.memory.noteLease(pool.ID, a, made)
	}
	return a, err
}

// takeAddr leases the address that a request names.
func (d *Driver) takeAddr(tx *store.Tx, pool state.Pool, a netip.Addr, gateway, made bool) error {
	if !pool.Prefix.Contains(a) {
		return fmt.Errorf("address %s is outside subnet %s: choose one inside it", a, pool.Prefix)
	}
	if what := reserved(pool.Prefix, a); what != "" {
		return fmt.Errorf("address %s cannot be given out, because it is the %s address of subnet %s: choose another", a, what, pool.Prefix)
	}
	lease, leased := tx.Lease(pool.ID, a)
	if leased && lease.Gateway {
		if gateway {
			return nil
		}
		return fmt.Errorf("address %s is in use as the gateway of subnet %s: choose another", a, pool.Prefix)
	}
	if user, ok := users(tx, pool)[a]; ok {
		return fmt.Errorf("address %s is in use %s: choose another", a, user)
	}
	if made && lease.Reserved {
		return fmt.Errorf("address %s is reserved by --aux-address of subnet %s: choose another", a, pool.Prefix)
	}
	if leased && !made && d.memory.given[leaseKey{pool.ID, a}] {
		return fmt.Errorf("address %s of subnet %s is in use already: choose another", a, pool.Prefix)
	}
	// Docker marks no request for an --aux-address; it is the one without a network yet.
	tx.PutLease(state.Lease{Pool: pool.ID, Addr: a, Gateway: gateway, Reserved: !gateway && !made})
	return nil
}

// chooseGateway leases the first address of the range, as Docker's own IPAM does.
func chooseGateway(tx *store.Tx, pool state.Pool) (netip.Addr, error) {
	for _, l := range tx.Leases(pool.ID) {
		if l.Gateway {
			return l.Addr, nil
		}
	}
	a, ok := findFree(tx, pool, pool.Range.Addr())
	if !ok {
		return netip.Addr{}, fmt.Errorf("%s has no free address for the gateway: name one with --gateway, or use a larger --subnet or --ip-range", pool.Range)
	}
	tx.PutLease(state.Lease{Pool: pool.ID, Addr: a, Gateway: true})
	return a, nil
}

// chooseAddr leases the next free address and moves the cursor behind it.
func chooseAddr(tx *store.Tx, pool state.Pool) (netip.Addr, error) {
	a, ok := findFree(tx, pool, pool.Next)
	if !ok {
		return netip.Addr{}, full(tx, pool)
	}
	tx.PutLease(state.Lease{Pool: pool.ID, Addr: a})
	pool.Next = a.Next()
	tx.PutPool(pool)
	return a, nil
}

// findFree returns the first free address of the range, going round from the given one;
// from the beginning where that is not in the range.
//
// Each step that finds nothing is over a reserved address or one in use, so the steps
// are as many as there are of those, however large the range is.
func findFree(tx *store.Tx, pool state.Pool, from netip.Addr) (netip.Addr, bool) {
	first := pool.Range.Addr()
	if !pool.Range.Contains(from) {
		from = first
	}
	inUse := users(tx, pool)
	for a := from; ; {
		_, leased := tx.Lease(pool.ID, a)
		_, used := inUse[a]
		if !leased && !used && reserved(pool.Prefix, a) == "" {
			return a, true
		}
		if a = a.Next(); !pool.Range.Contains(a) {
			a = first
		}
		if a == from {
			return netip.Addr{}, false
		}
	}
}

// full is the error when the range has no free address for a container.
func full(tx *store.Tx, pool state.Pool) error {
	what := "subnet " + pool.Prefix.String()
	if n, ok := networkOf(tx, pool); ok {
		what = "network " + n.ID.Short()
	}
	n := capacity(pool)
	theGateways := slices.ContainsFunc(tx.Leases(pool.ID), func(l state.Lease) bool { return l.Gateway && pool.Range.Contains(l.Addr) })
	switch {
	case n == 0:
		return fmt.Errorf("%s has no free address: %s holds none that can be given out; use a network with a larger --subnet or --ip-range, or name an address with --ip", what, pool.Range)
	case n == 1 && theGateways:
		return fmt.Errorf("%s has no free address: the gateway has the only one of %s; use a network with a larger --subnet or --ip-range", what, pool.Range)
	}
	return fmt.Errorf("%s has no free address: all %d of %s are in use; remove containers, or use a network with a larger --subnet or --ip-range", what, n, pool.Range)
}
