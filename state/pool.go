package state

import "net/netip"

// Pool is an address pool that the IPAM driver handed out.
type Pool struct {
	ID     PoolID       `json:"id"`
	Prefix netip.Prefix `json:"prefix"`
	// Range is the part of Prefix from which addresses are chosen (--ip-range);
	// equal to Prefix when the user gave none.
	Range netip.Prefix `json:"range"`
	// Next is where the search for a free address begins, so that an address is
	// not given to the next container right after its release.
	Next netip.Addr `json:"next,omitzero"`
	// Seen says that an engine was seen to have a network with this prefix.
	Seen bool `json:"seen,omitempty"`
	// Made is as with Network.
	Made string `json:"made,omitempty"`
}

// Lease is one address of a pool that is in use.
type Lease struct {
	Pool    PoolID     `json:"pool"`
	Addr    netip.Addr `json:"addr"`
	Gateway bool       `json:"gateway,omitempty"` // requested as the network's gateway
	// Reserved is set for an address that the user keeps from containers (--aux-address).
	Reserved bool `json:"reserved,omitempty"`
}
