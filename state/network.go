package state

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Network is one network of Docker's and the bridge that carries it.
type Network struct {
	ID     NetworkID `json:"id"`
	Bridge string    `json:"bridge"` // name of the bridge link

	// V4 and V6 hold the addressing of the families that the network has; a
	// family that it has not is the zero Subnet. At least one is set.
	V4 Subnet `json:"v4,omitzero"`
	V6 Subnet `json:"v6,omitzero"`

	// Internal networks get no way in or out: no gateway for their
	// containers, nothing forwarded, nothing published.
	Internal bool `json:"internal,omitempty"`

	// MTU of the bridge and of its veth pairs, in bytes; 0 leaves the
	// kernel's default.
	MTU int `json:"mtu,omitempty"`
}

// Subnet is a network's addressing in one family.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"` // the bridge's own address, inside Prefix
}

// IsZero reports whether the network lacks this family.
func (s Subnet) IsZero() bool { return !s.Prefix.IsValid() }

// GatewayPrefix returns the gateway with the length of the subnet, the form in
// which it is put on the bridge.
func (s Subnet) GatewayPrefix() netip.Prefix {
	return netip.PrefixFrom(s.Gateway, s.Prefix.Bits())
}

// Subnets returns the families that the network has, IPv4 first.
func (n Network) Subnets() []Subnet {
	var out []Subnet
	for _, s := range []Subnet{n.V4, n.V6} {
		if !s.IsZero() {
			out = append(out, s)
		}
	}
	return out
}

// Group returns the device group that the network's bridge carries.
func (n Network) Group() uint32 {
	if n.Internal {
		return GroupInternal
	}
	return GroupBridge
}

// MTU limits: below 68 IPv4 does not work (RFC 791), below 1280 IPv6 does not
// (RFC 8200); the kernel's own upper bound for veth and bridge is 65535.
const (
	minMTU4 = 68
	minMTU6 = 1280
	maxMTU  = 65535
)

// Validate reports the first thing that makes n unusable, in a sentence for the user.
func (n Network) Validate() error {
	if _, err := ParseNetworkID(string(n.ID)); err != nil {
		return err
	}
	if err := CheckLinkName(n.Bridge); err != nil {
		return err
	}
	if n.V4.IsZero() && n.V6.IsZero() {
		return fmt.Errorf("network %s has neither an IPv4 nor an IPv6 subnet", n.ID.Short())
	}
	if err := n.V4.validate("IPv4", func(a netip.Addr) bool { return a.Is4() }); err != nil {
		return err
	}
	if err := n.V6.validate("IPv6", func(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }); err != nil {
		return err
	}
	return n.validateMTU()
}

func (n Network) validateMTU() error {
	least := minMTU4
	if !n.V6.IsZero() {
		least = minMTU6
	}
	if n.MTU != 0 && (n.MTU < least || n.MTU > maxMTU) {
		return fmt.Errorf("an MTU of %d is not possible here: give %d to %d, or 0 for the kernel's default", n.MTU, least, maxMTU)
	}
	return nil
}

func (s Subnet) validate(family string, in func(netip.Addr) bool) error {
	switch {
	case s.IsZero():
		return nil
	case !in(s.Prefix.Addr()):
		return fmt.Errorf("subnet %s is not an %s prefix", s.Prefix, family)
	case s.Prefix != s.Prefix.Masked():
		return fmt.Errorf("subnet %s has host bits set: write %s", s.Prefix, s.Prefix.Masked())
	case s.Prefix.Addr().IsMulticast() || s.Prefix.Addr().IsLoopback():
		return fmt.Errorf("subnet %s cannot be used for containers: it is a multicast or loopback prefix", s.Prefix)
	case s.Prefix.Bits() == 0:
		return fmt.Errorf("subnet %s is the whole address space: give a smaller one", s.Prefix)
	case !s.Gateway.IsValid() || s.Gateway.Zone() != "":
		return fmt.Errorf("subnet %s has no usable gateway address", s.Prefix)
	case !s.Prefix.Contains(s.Gateway):
		return fmt.Errorf("gateway %s is outside the subnet %s", s.Gateway, s.Prefix)
	case s.reserves(s.Gateway):
		return fmt.Errorf("gateway %s is the network or the broadcast address of %s: choose another", s.Gateway, s.Prefix)
	}
	return nil
}

// reserves reports whether an address of the subnet is no host's: the first, and in IPv4 the
// last, except in subnets of two addresses and of one (RFC 3021, RFC 6164).
func (s Subnet) reserves(a netip.Addr) bool {
	if s.Prefix.Bits() >= a.BitLen()-1 {
		return false
	}
	return a == s.Prefix.Addr() || a.Is4() && a == broadcast(s.Prefix)
}

// broadcast returns the last address of an IPv4 prefix.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|host)
	return netip.AddrFrom4(a)
}
