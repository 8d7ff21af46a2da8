package store

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// Tx is the state as one function of Update or View sees it: the state at its
// beginning and its own changes. What goes in and what comes out is copied, so that
// neither side can change the other's values. A Tx belongs to one goroutine.
type Tx struct {
	base *image
	run  string

	networks  edit[state.NetworkID, state.Network]
	endpoints edit[state.EndpointID, state.Endpoint]
	pools     edit[state.PoolID, state.Pool]
	leases    edit[leaseKey, state.Lease]
	retired   edit[string, string]

	host    host
	touched bool // SetForwarding or SetULA was called
}

func newTx(base *image) *Tx {
	return &Tx{
		base:      base,
		networks:  newEdit(networkKind, base.snapshot.Networks),
		endpoints: newEdit(endpointKind, base.snapshot.Endpoints),
		pools:     newEdit(poolKind, base.snapshot.Pools),
		leases:    newEdit(leaseKind, base.leases),
		retired:   newEdit(retiredKind, base.snapshot.Retired),
		host:      base.host(),
	}
}

// Revision returns that of the state at the beginning.
func (tx *Tx) Revision() uint64 { return tx.base.snapshot.Revision }

// Network returns the network with this id.
func (tx *Tx) Network(id state.NetworkID) (state.Network, bool) { return tx.networks.get(id) }

// PutNetwork adds n or replaces the network of the same id.
func (tx *Tx) PutNetwork(n state.Network) { tx.networks.put(n) }

// DeleteNetwork removes the network, if there is one. Its endpoints stay.
func (tx *Tx) DeleteNetwork(id state.NetworkID) { tx.networks.delete(id) }

// Networks returns all networks, sorted by id.
func (tx *Tx) Networks() []state.Network { return tx.networks.list(nil) }

// Endpoint returns the endpoint with this id.
func (tx *Tx) Endpoint(id state.EndpointID) (state.Endpoint, bool) { return tx.endpoints.get(id) }

// PutEndpoint adds e or replaces the endpoint of the same id.
func (tx *Tx) PutEndpoint(e state.Endpoint) { tx.endpoints.put(e) }

// DeleteEndpoint removes the endpoint, if there is one.
func (tx *Tx) DeleteEndpoint(id state.EndpointID) { tx.endpoints.delete(id) }

// Endpoints returns all endpoints, sorted by id.
func (tx *Tx) Endpoints() []state.Endpoint { return tx.endpoints.list(nil) }

// EndpointsOf returns the endpoints of one network, sorted by id.
func (tx *Tx) EndpointsOf(network state.NetworkID) []state.Endpoint {
	return tx.endpoints.list(func(e state.Endpoint) bool { return e.Network == network })
}

// Pool returns the pool with this id.
func (tx *Tx) Pool(id state.PoolID) (state.Pool, bool) { return tx.pools.get(id) }

// Run tells this opening of the store from every other one.
func (tx *Tx) Run() string { return tx.run }

// PutPool adds p or replaces the pool of the same id; its leases stay as they are.
func (tx *Tx) PutPool(p state.Pool) { tx.pools.put(p) }

// DeletePool removes the pool, if there is one, and all its leases.
func (tx *Tx) DeletePool(id state.PoolID) {
	tx.pools.delete(id)
	for _, l := range tx.Leases(id) {
		tx.leases.delete(leaseKey{id, l.Addr})
	}
}

// Pools returns all pools, sorted by id.
func (tx *Tx) Pools() []state.Pool { return tx.pools.list(nil) }

// Lease returns the lease of address a in the pool; there is none while a is free.
func (tx *Tx) Lease(pool state.PoolID, a netip.Addr) (state.Lease, bool) {
	return tx.leases.get(leaseKey{pool, a})
}

// PutLease adds l or replaces the lease of the same pool and address.
func (tx *Tx) PutLease(l state.Lease) { tx.leases.put(l) }

// DeleteLease makes address a free, whether or not it was in use.
func (tx *Tx) DeleteLease(pool state.PoolID, a netip.Addr) { tx.leases.delete(leaseKey{pool, a}) }

// LeaseCount returns how many addresses of the pool are in use.
func (tx *Tx) LeaseCount(pool state.PoolID) int {
	of := tx.leasesOf(pool)
	return of.count()
}

// Leases returns the pool's leases, sorted by address.
func (tx *Tx) Leases(pool state.PoolID) []state.Lease {
	of := tx.leasesOf(pool)
	return of.list(nil)
}

// leasesOf cuts one pool out of the leases of all.
func (tx *Tx) leasesOf(pool state.PoolID) edit[leaseKey, state.Lease] {
	rows := tx.leases.base
	from, _ := slices.BinarySearchFunc(rows, pool, func(l state.Lease, p state.PoolID) int {
		return strings.Compare(string(l.Pool), string(p))
	})
	length, _ := slices.BinarySearchFunc(rows[from:], pool, func(l state.Lease, p state.PoolID) int {
		if l.Pool == p {
			return -1 // the end is looked for, not the first of them
		}
		return 1
	})
	of := newEdit(leaseKind, rows[from:from+length])
	for key, c := range tx.leases.changed {
		if key.pool == pool {
			of.changed[key] = c
		}
	}
	return of
}

// Retire remembers that a bridge of this name was ours, see [state.Snapshot].
func (tx *Tx) Retire(bridge string) { tx.retired.put(bridge) }

// Unretire forgets the name, once nothing is left of the bridge or it is in use again.
func (tx *Tx) Unretire(bridge string) { tx.retired.delete(bridge) }

// Retired returns the names that are remembered, sorted.
func (tx *Tx) Retired() []string { return tx.retired.list(nil) }

// Forwarding returns which forwarding switches of the host Drawbridge turned on.
func (tx *Tx) Forwarding() state.Forwarding { return tx.host.forwarding }

// SetForwarding replaces what Forwarding returns.
func (tx *Tx) SetForwarding(f state.Forwarding) {
	tx.host.forwarding, tx.touched = f, true
}

// ULA returns the host's unique local prefix (RFC 4193, a /48), out of which IPv6
// pools are made, and whether one was chosen yet.
func (tx *Tx) ULA() (netip.Prefix, bool) { return tx.host.ula, tx.host.ula.IsValid() }

// SetULA replaces the host's unique local prefix; the zero Prefix removes it.
func (tx *Tx) SetULA(p netip.Prefix) {
	tx.host.ula, tx.touched = p, true
}

// wrote reports whether anything was put, set or deleted, with effect or without.
func (tx *Tx) wrote() bool {
	return tx.touched || tx.networks.touched || tx.endpoints.touched || tx.pools.touched ||
		tx.leases.touched || tx.retired.touched
}

// dirty reports whether the state differs from that at the beginning.
func (tx *Tx) dirty() bool {
	return tx.host != tx.base.host() || len(tx.networks.changed)+len(tx.endpoints.changed)+
		len(tx.pools.changed)+len(tx.leases.changed)+len(tx.retired.changed) > 0
}
