package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Proto is a transport protocol by its IP protocol number, the form in which
// Docker sends it.
type Proto uint8

// The protocols that can be published.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the name that docker, iptables and /etc/services use.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// Known reports whether ports of the protocol can be published and linked.
func (p Proto) Known() bool { return p == TCP || p == UDP || p == SCTP }

// MarshalText makes the name the stored form.
func (p Proto) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Proto) UnmarshalText(b []byte) error {
	switch string(b) {
	case "tcp":
		*p = TCP
	case "udp":
		*p = UDP
	case "sctp":
		*p = SCTP
	default:
		return fmt.Errorf("protocol %q is not tcp, udp or sctp", Clip(string(b)))
	}
	return nil
}

// Port is one published port: what arrives at HostIP:HostPort goes to the
// endpoint's ContainerPort.
type Port struct {
	Proto Proto `json:"proto"`
	// HostIP restricts the port to one address of the host. The zero Addr means
	// every address of the host in the families that the endpoint has; 0.0.0.0 or
	// :: means every address of that family.
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// HostPort is 0 where nothing is translated (ModeRouted): the container's port is open at
	// its own address, in the family of HostIP.
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
}

// Routed reports whether the port is open at the container's address and takes none of the host's.
func (p Port) Routed() bool { return p.HostPort == 0 }

// ComparePorts orders ports.
func ComparePorts(a, b Port) int {
	return cmp.Or(
		cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.HostPort, b.HostPort),
		cmp.Compare(a.ContainerPort, b.ContainerPort), a.HostIP.Compare(b.HostIP),
	)
}

// Bound returns the ports that take a port of the host.
func Bound(ports []Port) []Port {
	return slices.DeleteFunc(slices.Clone(ports), Port.Routed)
}

// PortRequest asks for a port to be published. HostPort 0 asks for an ephemeral
// port; HostPort < HostPortEnd asks for any free port of that range.
type PortRequest struct {
	Proto         Proto
	HostIP        netip.Addr // as in Port
	HostPort      uint16
	HostPortEnd   uint16
	ContainerPort uint16
}

// Validate reports what makes r unusable.
func (r PortRequest) Validate() error {
	switch {
	case !r.Proto.Known():
		return fmt.Errorf("container port %d cannot be published with protocol %s: tcp, udp and sctp are supported", r.ContainerPort, r.Proto)
	case r.ContainerPort == 0:
		return fmt.Errorf("a published port has no container port")
	case r.HostPort > r.HostPortEnd:
		return fmt.Errorf("host port range %d-%d ends before it begins", r.HostPort, r.HostPortEnd)
	case r.HostPort == 0 && r.HostPortEnd != 0:
		return fmt.Errorf("host port range %d-%d must not begin at 0", r.HostPort, r.HostPortEnd)
	case r.HostIP.IsValid() && (r.HostIP.IsMulticast() || r.HostIP.Is4In6() || r.HostIP.Zone() != ""):
		return fmt.Errorf("%s cannot be a host address of a published port", Clip(r.HostIP.String()))
	}
	return nil
}

// SortPortRequests brings requests into the order in which they are served: exact
// host ports first, then ranges, then ephemeral ones, so that no ephemeral choice takes a port
// that another request names. Docker 29 sends them in random order.
func SortPortRequests(rs []PortRequest) {
	class := func(r PortRequest) int {
		switch {
		case r.HostPort == 0:
			return 2
		case r.HostPort != r.HostPortEnd:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(rs, func(a, b PortRequest) int {
		if c := class(a) - class(b); c != 0 {
			return c
		}
		if c := int(a.Proto) - int(b.Proto); c != 0 {
			return c
		}
		if c := int(a.ContainerPort) - int(b.ContainerPort); c != 0 {
			return c
		}
		if c := int(a.HostPort) - int(b.HostPort); c != 0 {
			return c
		}
		return a.HostIP.Compare(b.HostIP)
	})
}

// String returns 192.0.2.1:8080/tcp, or *:8080/tcp where the port is on every address.
func (p Port) String() string {
	if p.Routed() {
		return fmt.Sprintf("%d/%s of the container", p.ContainerPort, p.Proto)
	}
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
		if p.HostIP.Is6() {
			host = "[" + host + "]"
		}
	}
	return fmt.Sprintf("%s:%d/%s", host, p.HostPort, p.Proto)
}

// Target returns where in the endpoint a connection to the port's host address of
// the given family ends, and whether the port exists in that family: an
// endpoint without IPv6 publishes nothing on the host's IPv6 addresses.
func (p Port) Target(e Endpoint, v6 bool) (netip.AddrPort, bool) {
	if p.HostIP.IsValid() && p.HostIP.Is6() != v6 {
		return netip.AddrPort{}, false
	}
	addr := e.Addr4
	if v6 {
		addr = e.Addr6
	}
	if !addr.IsValid() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Addr(), p.ContainerPort), true
}
