package control

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Port is one published port in one address family.
type Port struct {
	// HostAddress is where the host listens; 0.0.0.0 and :: stand for every address of
	// the host in that family. HostPort is 0 where the network is routed: then nothing is
	// translated, and the container's port is open at its own address.
	HostAddress netip.Addr  `json:"hostAddress"`
	HostPort    uint16      `json:"hostPort"`
	Protocol    state.Proto `json:"protocol"` // tcp, udp or sctp

	// ContainerAddress and ContainerPort are where a connection ends.
	ContainerAddress netip.Addr `json:"containerAddress"`
	ContainerPort    uint16     `json:"containerPort"`

	// Mode is how clients from outside the host come to the port: dnat, host, learned or localhost, as drawbridge.publish says it;
	// or routed. Why says in words where that comes from. From, empty for all, are the sources that may come, and Interfaces the
	// links by which.
	Mode       string          `json:"mode"`
	Why        string          `json:"why"`
	From       state.Prefixes  `json:"from,omitempty"`
	Interfaces state.LinkNames `json:"interfaces,omitempty"`

	Endpoint state.EndpointID `json:"endpoint"` // Docker's full id
	Network  state.NetworkID  `json:"network"`  // Docker's full id
	Bridge   string           `json:"bridge"`   // name of the network's bridge
}

// Ports lists what s publishes, one row for each family in which a port exists, sorted
// by protocol, host port and host address. Internal networks publish nothing.
func Ports(s state.Snapshot, publishing Publishing) []Port {
	rows := []Port{} // an empty list, not null, in JSON
	for _, e := range s.Endpoints {
		n, known := s.Network(e.Network)
		if !known || n.Internal {
			continue
		}
		for _, p := range e.Ports {
			first := len(rows)
			rows = appendFamilies(rows, n, e, p)
			for i := first; i < len(rows); i++ {
				rows[i].expose(s, e, p, publishing)
			}
		}
	}
	slices.SortFunc(rows, comparePorts)
	return rows
}

func appendFamilies(rows []Port, n state.Network, e state.Endpoint, p state.Port) []Port {
	for _, every := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		target, exists := p.Target(e, every.Is6())
		if !exists {
			target, exists = proxied(e, p, every.Is6())
		}
		if !exists {
			continue
		}
		host := p.HostIP
		if !host.IsValid() {
			host = every
		}
		rows = append(rows, Port{
			HostAddress: host, HostPort: p.HostPort, Protocol: p.Proto,
			ContainerAddress: target.Addr(), ContainerPort: target.Port(),
			Endpoint: e.ID, Network: n.ID, Bridge: n.Bridge,
		})
	}
	return rows
}

// expose says who comes to the port, and how.
func (p *Port) expose(s state.Snapshot, e state.Endpoint, port state.Port, publishing Publishing) {
	p.Mode, p.Why = publishing.mode(s, e, port, p.HostAddress.Is6(), p.ContainerAddress.Is6())
	if p.Mode != string(state.PublishLocalhost) {
		exposure := s.Exposure(e)
		p.From, p.Interfaces = exposure.From, exposure.Links
	}
}

// proxied is where a port on an address of the family leads that the container lacks: to its address of the other family, by a proxy.
func proxied(e state.Endpoint, p state.Port, v6 bool) (netip.AddrPort, bool) {
	if !p.HostIP.IsValid() || p.HostIP.Is6() != v6 || p.Routed() || p.Proto == state.SCTP {
		return netip.AddrPort{}, false
	}
	p.HostIP = netip.Addr{}
	return p.Target(e, !v6)
}

// comparePorts ends with the endpoint, so that the order is the same each time whatever
// the state holds.
func comparePorts(a, b Port) int {
	return cmp.Or(
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.HostPort, b.HostPort),
		a.HostAddress.Compare(b.HostAddress),
		cmp.Compare(a.Endpoint, b.Endpoint),
		cmp.Compare(a.ContainerPort, b.ContainerPort),
	)
}
