package state

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
)

// Endpoint is the attachment of one container to one network: a veth pair whose
// one end is a port of the bridge.
type Endpoint struct {
	ID      EndpointID `json:"id"`
	Network NetworkID  `json:"network"`

	// Addr4 and Addr6 are the container's addresses with the length of the
	// subnet, zero where the endpoint lacks the family.
	Addr4 netip.Prefix `json:"addr4,omitzero"`
	Addr6 netip.Prefix `json:"addr6,omitzero"`
	MAC   MAC          `json:"mac"`

	// Sandbox is the path of the container's network namespace as Join gave it,
	// empty while the endpoint is not joined. Up to Docker 27 the path does not
	// exist yet when Join names it.
	Sandbox string `json:"sandbox,omitempty"`

	// Ports are published, all of them or none; empty between Revoke and Program.
	Ports []Port `json:"ports,omitempty"`
	// Closed are published no more, in one family each, and some of their connections may go on: they are ended behind the pass that closes a
	// port, and a daemon that is killed between leaves that to the next one.
	Closed []Port `json:"closed,omitempty"`
	// WantsPorts says that the container was made with published ports. Which of its endpoints publishes them
	// is known later, and may change.
	WantsPorts bool `json:"wantsPorts,omitempty"`

	// Exposure of these ports, above that of the network.
	Exposure Exposure `json:"exposure,omitzero"`

	// LinkPrefix begins the name of the link in the container; empty for that of the network.
	LinkPrefix string `json:"linkPrefix,omitempty"`

	// Name is what other containers of the network call this one in their Links.
	Name string `json:"name,omitempty"`
	// Links are the names of the containers whose exposed ports this one may reach where the
	// network keeps containers apart (NoICC).
	Links []string `json:"links,omitempty"`
	// Exposed are the container's exposed ports (EXPOSE, --expose), sorted.
	Exposed []ContainerPort `json:"exposed,omitempty"`
}

// Joined reports whether the engine has put the endpoint into a container.
func (e Endpoint) Joined() bool { return e.Sandbox != "" }

// Publishes reports whether the endpoint publishes ports, or may come to.
func (e Endpoint) Publishes() bool { return e.WantsPorts || len(e.Ports) > 0 }

// Addrs returns the container's addresses, IPv4 first.
func (e Endpoint) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, p := range []netip.Prefix{e.Addr4, e.Addr6} {
		if p.IsValid() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// Addr returns the container's address in one family, the zero Addr if it has none.
func (e Endpoint) Addr(v6 bool) netip.Addr {
	if v6 {
		return e.Addr6.Addr()
	}
	return e.Addr4.Addr()
}

// defaultLinkPrefix begins the name of the link in the container, as with Docker's own networks.
const defaultLinkPrefix = "eth"

// PrefixIn returns what begins the name of the link in the container of an endpoint of network n; the engine adds a number.
func (e Endpoint) PrefixIn(n Network) string {
	return cmp.Or(e.LinkPrefix, n.LinkPrefix, defaultLinkPrefix)
}

// RouterIn returns the default gateway that network n offers the endpoint's container in one family, the zero Addr for none. On an
// internal network that is only what the user named; the bridge leads nowhere.
func (e Endpoint) RouterIn(n Network, v6 bool) netip.Addr {
	s := n.Family(v6)
	switch {
	case !e.Addr(v6).IsValid():
	case s.Router.IsValid():
		return s.Router
	case !n.Internal:
		return s.Gateway
	}
	return netip.Addr{}
}

// Validate reports the first thing that makes e unusable in network n.
func (e Endpoint) Validate(n Network) error {
	if _, err := ParseEndpointID(string(e.ID)); err != nil {
		return err
	}
	if e.Network != n.ID {
		return fmt.Errorf("endpoint %s is not of network %s", e.ID.Short(), n.ID.Short())
	}
	if !e.Addr4.IsValid() && !e.Addr6.IsValid() {
		return fmt.Errorf("endpoint %s has no address: create the network with --ipam-driver drawbridge", e.ID.Short())
	}
	if err := checkEndpointAddr(e.Addr4, n.V4); err != nil {
		return err
	}
	if err := checkEndpointAddr(e.Addr6, n.V6); err != nil {
		return err
	}
	if e.MAC.IsZero() || e.MAC.isMulticast() {
		return fmt.Errorf("MAC address %s cannot be given to a container: its first octet must be even and it must not be all zero", e.MAC)
	}
	return e.Exposure.check(n)
}

func checkEndpointAddr(p netip.Prefix, s Subnet) error {
	switch {
	case !p.IsValid():
		return nil
	case s.IsZero():
		return fmt.Errorf("address %s is of a family that the network has no subnet of", p.Addr())
	case !s.Prefix.Contains(p.Addr()):
		return fmt.Errorf("address %s is outside the network's subnet %s", p.Addr(), s.Prefix)
	case s.reserves(p.Addr()):
		return fmt.Errorf("address %s is the network or the broadcast address of %s", p.Addr(), s.Prefix)
	case p.Addr() == s.Gateway:
		return fmt.Errorf("address %s is the network's gateway", p.Addr())
	}
	return nil
}

// MAC is a 48-bit Ethernet address.
type MAC [6]byte

// ParseMAC reads the usual forms (02:42:0a:00:00:02 and those of net.ParseMAC).
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("MAC address %q is malformed: write six octets such as 02:42:0a:00:00:02", Clip(s))
	}
	return MAC(hw), nil
}

// GenerateMAC returns a locally administered address made from an id. It stays the
// same when asked again, so that nothing needs to be remembered.
func GenerateMAC(id string) MAC {
	sum := sha256.Sum256([]byte("drawbridge mac " + id))
	mac := MAC(sum[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return mac
}

// IsZero reports whether no address is set.
func (m MAC) IsZero() bool { return m == MAC{} }

func (m MAC) isMulticast() bool { return m[0]&1 != 0 }

// String returns the colon form in lower case.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText makes the colon form the one that is stored.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(b []byte) error {
	parsed, err := ParseMAC(string(b))
	*m = parsed
	return err
}
