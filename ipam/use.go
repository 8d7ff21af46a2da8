package ipam

import (
	"fmt"
	"iter"
	"net/netip"

	"go4.org/netipx"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// user is what has an address: an endpoint, or a network for its gateway.
type user struct {
	network  state.NetworkID
	endpoint state.EndpointID // empty for the gateway
}

// String completes the sentence "address … is in use".
func (u user) String() string {
	if u.endpoint == "" {
		return fmt.Sprintf("as the gateway of network %s", u.network.Short())
	}
	return fmt.Sprintf("by endpoint %s of network %s", u.endpoint.Short(), u.network.Short())
}

// users returns what the networks and endpoints in the store have of the pool. Leases
// say what was given out, this says what has come of it.
func users(tx *store.Tx, pool state.Pool) map[netip.Addr]user {
	n, ok := networkOf(tx, pool)
	if !ok {
		return nil
	}
	return usersOf(tx, n, pool.Prefix)
}

func usersOf(tx *store.Tx, n state.Network, prefix netip.Prefix) map[netip.Addr]user {
	out := map[netip.Addr]user{}
	for _, s := range n.Subnets() {
		if s.Prefix == prefix {
			out[s.Gateway] = user{network: n.ID}
		}
	}
	for _, e := range tx.EndpointsOf(n.ID) {
		for _, a := range e.Addrs() {
			if prefix.Contains(a) {
				out[a] = user{network: n.ID, endpoint: e.ID}
			}
		}
	}
	return out
}

// networkOf returns the network in the store that was made of the pool. There is one at most,
// since subnets of networks do not overlap.
func networkOf(tx *store.Tx, pool state.Pool) (state.Network, bool) {
	for _, n := range tx.Networks() {
		if n.V4.Prefix == pool.Prefix || n.V6.Prefix == pool.Prefix {
			return n, true
		}
	}
	return state.Network{}, false
}

func hasNetwork(tx *store.Tx, pool state.Pool) bool {
	_, ok := networkOf(tx, pool)
	return ok
}

// madePools goes through the pools of which networks in the store were made, with what users
// returns for each, and through the networks only once.
func madePools(tx *store.Tx) iter.Seq2[state.Pool, map[netip.Addr]user] {
	return func(yield func(state.Pool, map[netip.Addr]user) bool) {
		networks := map[netip.Prefix]state.Network{}
		for _, n := range tx.Networks() {
			for _, s := range n.Subnets() {
				networks[s.Prefix] = n
			}
		}
		for _, pool := range tx.Pools() {
			if n, ok := networks[pool.Prefix]; ok && !yield(pool, usersOf(tx, n, pool.Prefix)) {
				return
			}
		}
	}
}

// reserved names the role that makes an address of the subnet unusable for a host, or
// returns nothing. A subnet of two addresses or one has no such roles (RFC 3021 for IPv4,
// RFC 6164 for IPv6).
func reserved(subnet netip.Prefix, a netip.Addr) string {
	v4 := a.Is4()
	switch {
	case subnet.Bits() >= a.BitLen()-1:
		return ""
	case a == subnet.Addr() && v4:
		return "network"
	case a == subnet.Addr():
		return "subnet-router anycast" // RFC 4291, section 2.6.1
	case v4 && a == netipx.PrefixLastIP(subnet):
		return "broadcast"
	}
	return ""
}

// capacity returns how many addresses of the range can be given out; for a range of
// 2^63 and more, which nobody fills, some large number.
func capacity(pool state.Pool) uint64 {
	host := min(pool.Range.Addr().BitLen()-pool.Range.Bits(), 63)
	n := uint64(1) << host
	first, last := pool.Range.Addr(), netipx.PrefixLastIP(pool.Range)
	if reserved(pool.Prefix, first) != "" {
		n--
	}
	if last != first && reserved(pool.Prefix, last) != "" {
		n--
	}
	return n
}
