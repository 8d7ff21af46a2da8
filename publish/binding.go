package publish

import (
	"fmt"
	"net/netip"

	"github.com/drawbridge-net/drawbridge/state"
)

// place is what the kernel lets only one socket have.
type place struct {
	proto state.Proto
	addr  netip.AddrPort
}

// String returns the form of state.Port: 127.0.0.1:8080/tcp.
func (p place) String() string { return fmt.Sprintf("%s/%s", p.addr, p.proto) }

// overlaps reports whether the kernel refuses p because of q. Sockets of the two
// families never meet: ours are V6ONLY.
func (p place) overlaps(q place) bool {
	a, b := p.addr.Addr(), q.addr.Addr()
	return p.proto == q.proto && p.addr.Port() == q.addr.Port() && a.Is4() == b.Is4() &&
		(a == b || a.IsUnspecified() || b.IsUnspecified())
}

// binding says everything about one socket. A socket whose binding is in the
// desired state is left alone.
type binding struct {
	endpoint state.EndpointID
	network  state.NetworkID
	port     state.Port
	addr     netip.AddrPort // where the socket is bound
	target   netip.AddrPort // where its clients end: in the container
	helper   bool           // left out on a host that lacks the family
}

func (b binding) place() place { return place{b.port.Proto, b.addr} }

var (
	any4  = netip.IPv4Unspecified()
	any6  = netip.IPv6Unspecified()
	self4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	self6 = netip.IPv6Loopback()
)

// bindings returns the sockets that port p of endpoint e needs: the table of the
// package's manual.
func bindings(e state.Endpoint, p state.Port) ([]binding, error) {
	has4, has6 := e.Addr4.IsValid(), e.Addr6.IsValid()
	if !has4 && !has6 {
		return nil, fmt.Errorf("port %s cannot be published: the container has no address on this network", p)
	}
	switch ip := p.HostIP; {
	case !ip.IsValid():
		return everywhere(e, p), nil
	case ip.IsLoopback() && p.Proto == state.SCTP:
		return nil, fmt.Errorf("port %s cannot be published: sctp is not served on loopback addresses, give another host address or none", p)
	case p.Proto == state.SCTP && (ip.Is4() && !has4 || ip.Is6() && !has6):
		return nil, fmt.Errorf("port %s cannot be published: sctp is not led from one address family to the other, give a host address of the container's", p)
	}
	return []binding{newBinding(e, p, p.HostIP, false)}, nil
}

func everywhere(e state.Endpoint, p state.Port) []binding {
	var out []binding
	if e.Addr4.IsValid() {
		out = append(out, newBinding(e, p, any4, false))
	}
	if e.Addr6.IsValid() {
		out = append(out, newBinding(e, p, any6, false))
	}
	switch {
	case p.Proto == state.SCTP: // is not proxied, and that is what helpers are for
	case !e.Addr6.IsValid():
		out = append(out, newBinding(e, p, self6, true))
	case !e.Addr4.IsValid():
		out = append(out, newBinding(e, p, self4, true))
	}
	return out
}

func newBinding(e state.Endpoint, p state.Port, at netip.Addr, helper bool) binding {
	// Asked without the host address, Target tells only which families the container has.
	anywhere := state.Port{Proto: p.Proto, ContainerPort: p.ContainerPort}
	target, ok := anywhere.Target(e, at.Is6())
	if !ok {
		target, _ = anywhere.Target(e, !at.Is6())
	}
	return binding{
		endpoint: e.ID,
		network:  e.Network,
		port:     p,
		addr:     netip.AddrPortFrom(at, p.HostPort),
		target:   target,
		helper:   helper,
	}
}
