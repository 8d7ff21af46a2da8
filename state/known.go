package state

import "net/netip"

// Known is what the engines of a host say that they know.
type Known struct {
	Networks map[NetworkID]bool
	// Endpoints are those of the networks in Inspected; about others nothing was asked.
	Endpoints map[EndpointID]bool
	Inspected map[NetworkID]bool
	// Subnets of all networks, whatever their driver. A network that asked for no more than a size has one such
	// as 0.0.0.0/26.
	Subnets map[netip.Prefix]bool
}

// NewKnown returns one that knows nothing yet.
func NewKnown() Known {
	return Known{
		Networks: map[NetworkID]bool{}, Inspected: map[NetworkID]bool{},
		Endpoints: map[EndpointID]bool{}, Subnets: map[netip.Prefix]bool{},
	}
}

// HasEndpoint reports whether the endpoint is known, or may be: where its network was not looked into.
func (k Known) HasEndpoint(e Endpoint) bool {
	return k.Networks[e.Network] && (!k.Inspected[e.Network] || k.Endpoints[e.ID])
}

// HasPool reports whether a network has the pool, or may have it.
func (k Known) HasPool(p Pool) bool {
	return k.HasSubnet(p.Prefix) || k.Subnets[netip.PrefixFrom(anyAddr(p.Prefix.Addr()), p.Prefix.Bits())]
}

// HasSubnet reports whether a network says that it has the subnet.
func (k Known) HasSubnet(p netip.Prefix) bool { return k.Subnets[p] }

func anyAddr(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
