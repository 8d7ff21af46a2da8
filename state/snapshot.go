package state

import (
	"cmp"
	"slices"
)

// Snapshot is the whole desired state at one revision. It is immutable; slices are
// sorted by id, so that equal states are equal values.
type Snapshot struct {
	// Revision grows by one with each change.
	Revision  uint64
	Networks  []Network
	Endpoints []Endpoint
	Pools     []Pool
	// Retired are names of bridges whose networks are gone and whose traces outside the
	// kernel (the firewalld zone) may still have to be taken away.
	Retired    []string
	Forwarding Forwarding
}

// Forwarding records which of the host's forwarding switches Drawbridge turned on.
type Forwarding struct {
	V4 bool `json:"v4"` // net.ipv4.ip_forward
	V6 bool `json:"v6"` // net.ipv6.conf.all.forwarding
	// RA are the links from whose router advertisements the host has routes. With forwarding the kernel
	// stops to listen to them, unless it is told to go on (accept_ra=2).
	RA LinkNames `json:"ra,omitempty"`
	// Boot is the boot in which that happened; the switches do not outlive it.
	Boot string `json:"boot,omitempty"`
}

// Network returns the network with this id.
func (s Snapshot) Network(id NetworkID) (Network, bool) {
	i, ok := slices.BinarySearchFunc(s.Networks, id, func(n Network, id NetworkID) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return Network{}, false
	}
	return s.Networks[i], true
}

// Endpoint returns the endpoint with this id.
func (s Snapshot) Endpoint(id EndpointID) (Endpoint, bool) {
	i, ok := slices.BinarySearchFunc(s.Endpoints, id, func(e Endpoint, id EndpointID) int { return cmp.Compare(e.ID, id) })
	if !ok {
		return Endpoint{}, false
	}
	return s.Endpoints[i], true
}

// Sort brings the slices into the order that Snapshot promises. It is for those who
// build a Snapshot by hand.
func (s *Snapshot) Sort() {
	slices.SortFunc(s.Networks, func(a, b Network) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Endpoints, func(a, b Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Pools, func(a, b Pool) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(s.Retired)
}
