package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Network is one network of Docker's and the bridge that carries it. Its values are
// comparable; the zero value of a setting is Docker's default.
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

	// NoICC keeps the containers of the network from reaching each other, except by
	// published ports and by links.
	NoICC bool `json:"noICC,omitempty"`

	// NoMasquerade lets containers leave the host with their own addresses.
	NoMasquerade bool `json:"noMasquerade,omitempty"`

	// HostIP is the host address of ports published without one; the zero Addr leaves
	// that to the daemon.
	HostIP netip.Addr `json:"hostIP,omitzero"`

	// LinkPrefix begins the names of links in containers; empty for eth.
	LinkPrefix string `json:"linkPrefix,omitempty"`

	// Trusted are links of the host from which published ports may be reached at the
	// containers' own addresses.
	Trusted LinkNames `json:"trusted,omitempty"`

	// Exposure of the network's published ports.
	Exposure Exposure `json:"exposure,omitzero"`

	// MTU of the bridge and of its veth pairs as the user gave it, in bytes; 0 leaves it
	// to the host.
	MTU int `json:"mtu,omitempty"`

	// What follows depends on the host and is found out when the network is made.

	// Adopted says that the bridge was there before the network. It is not removed with it.
	Adopted bool `json:"adopted,omitempty"`
	// HostMTU stands in where MTU is 0: that of the link with the default route; 0 leaves
	// the kernel's default.
	HostMTU int `json:"hostMTU,omitempty"`

	// Seen says that an engine was seen to know the network. It means nothing to the host.
	Seen bool `json:"seen,omitempty"`
	// Made is the run of the daemon that made the network, until that run is sure to have answered for it. One that was killed before
	// may have left Docker without an answer, and then no engine knows the network.
	Made string `json:"made,omitempty"`
}

// Subnet is a network's addressing in one family.
type Subnet struct {
	Prefix netip.Prefix `json:"prefix"`
	// Gateway is the bridge's own address, inside Prefix. It may be missing where
	// the host is not on the network (ModeIsolated).
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Router is the containers' default gateway where that is not the bridge.
	Router netip.Addr `json:"router,omitzero"`
	// NoAddress keeps Gateway off the bridge: some other machine on the bridge has it.
	NoAddress bool `json:"noAddress,omitempty"`
	// Mode is how the world and the containers reach each other.
	Mode GatewayMode `json:"mode,omitempty"`
	// SNAT is the source address of what leaves the host; the zero Addr is that
	// of the link by which it leaves.
	SNAT netip.Addr `json:"snat,omitzero"`
}

// Asked returns the network without what was found out about it, so that what was asked for can be
// compared.
func (n Network) Asked() Network {
	n.Adopted, n.HostMTU, n.Seen, n.Made = false, 0, false, ""
	return n
}

// LinkMTU returns the MTU for the network's links, 0 for the kernel's default.
func (n Network) LinkMTU() int {
	if n.MTU != 0 {
		return n.MTU
	}
	return n.HostMTU
}

// IsZero reports whether the network lacks this family.
func (s Subnet) IsZero() bool { return !s.Prefix.IsValid() }

// BridgeAddr returns the address that the bridge has, with the length of the subnet, and whether
// it has one.
func (s Subnet) BridgeAddr() (netip.Prefix, bool) {
	if s.IsZero() || s.NoAddress || s.Mode == ModeIsolated || !s.Gateway.IsValid() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(s.Gateway, s.Prefix.Bits()), true
}

// Masquerades reports whether the source of what leaves the host is rewritten by the network's mode.
func (s Subnet) Masquerades() bool { return s.Mode == ModeNAT || s.Mode == ModeUnprotected }

// Family returns the network's addressing in IPv6 or IPv4.
func (n Network) Family(v6 bool) Subnet {
	if v6 {
		return n.V6
	}
	return n.V4
}

// Forwards reports whether the host has to forward packets for the network: out and in, or between
// linked containers.
func (n Network) Forwards() bool { return !n.Internal || n.NoICC }

// NeedForwarding reports in which families one of the networks needs the host to forward.
func NeedForwarding(networks []Network) (v4, v6 bool) {
	for _, n := range networks {
		v4 = v4 || n.Forwards() && !n.V4.IsZero()
		v6 = v6 || n.Forwards() && !n.V6.IsZero()
	}
	return v4, v6
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
	group := GroupBridge
	if n.Internal {
		group = GroupInternal
	}
	if n.Adopted {
		group |= GroupAdoptedBit
	}
	return group
}

// MTU limits: below 68 IPv4 does not work (RFC 791), below 1280 IPv6 does not
// (RFC 8200); the kernel's own upper bound for veth and bridge is 65535.
const (
	minMTU4 = 68
	minMTU6 = 1280
	maxMTU  = 65535
)

// LeastMTU returns the smallest MTU with which the network's families work, in bytes.
func (n Network) LeastMTU() int {
	if n.V6.IsZero() {
		return minMTU4
	}
	return minMTU6
}

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
	if err := n.V4.validate("IPv4", is4); err != nil {
		return err
	}
	if err := n.V6.validate("IPv6", is6); err != nil {
		return err
	}
	if !n.Internal && (n.V4.Mode == ModeIsolated || n.V6.Mode == ModeIsolated) {
		return errors.New("gateway mode isolated is for internal networks: add --internal, or choose nat or routed")
	}
	if err := n.Exposure.check(n); err != nil {
		return err
	}
	return n.validateMTU()
}

func (n Network) validateMTU() error {
	least := n.LeastMTU()
	if n.MTU != 0 && (n.MTU < least || n.MTU > maxMTU) {
		return fmt.Errorf("an MTU of %d is not possible here: give %d to %d, or 0 for that of the link with the default route", n.MTU, least, maxMTU)
	}
	return nil
}

func is4(a netip.Addr) bool { return a.Is4() }
func is6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() }

// CheckSource4 refuses what cannot be a network's SNAT address of IPv4. Validate does the same, but only for
// families that the network has.
func CheckSource4(a netip.Addr) error {
	if !isSource(a, is4) {
		return sourceError(a, "IPv4")
	}
	return nil
}

// CheckSource6 is the same for IPv6.
func CheckSource6(a netip.Addr) error {
	if !isSource(a, is6) {
		return sourceError(a, "IPv6")
	}
	return nil
}

func isSource(a netip.Addr, in func(netip.Addr) bool) bool {
	return in(a) && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.Zone() == ""
}

func sourceError(a netip.Addr, family string) error {
	return fmt.Errorf("%s cannot be the source address of %s packets that leave the host", Clip(a.String()), family)
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
	case s.SNAT.IsValid() && !isSource(s.SNAT, in):
		return sourceError(s.SNAT, family)
	case !s.Gateway.IsValid() && s.Mode == ModeIsolated:
		return s.validateRouter("default gateway", s.Router)
	case !s.Gateway.IsValid():
		return fmt.Errorf("subnet %s has no gateway address: create the network with --ipam-driver drawbridge", s.Prefix)
	}
	return errors.Join(s.validateRouter("gateway", s.Gateway), s.validateRouter("default gateway", s.Router))
}

// validateRouter checks an address of the subnet that is no container's; the zero Addr is fine.
func (s Subnet) validateRouter(what string, a netip.Addr) error {
	switch {
	case !a.IsValid():
		return nil
	case a.Zone() != "" || !s.Prefix.Contains(a):
		return fmt.Errorf("%s %s is outside the subnet %s", what, a, s.Prefix)
	case s.reserves(a):
		return fmt.Errorf("%s %s is the network or the broadcast address of %s: choose another", what, a, s.Prefix)
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
