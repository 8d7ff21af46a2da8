package publish

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// reach is who comes to a socket beside the host itself, and as whom they come to the container. The zero reach is what a socket
// has from the first moment: nobody comes.
type reach struct {
	outside    bool // clients that do not come by the loopback interface
	containers bool // those on our networks among them: no rule leads them to the container
	asClient   bool // the container may see the client's own address, since its answers come to the host
}

// reach returns who comes to the socket of b in a state.
func (p *Publisher) reach(s state.Snapshot, b binding) reach {
	e, _ := s.Endpoint(b.endpoint)
	n, _ := s.Network(b.network)
	mode := p.servers.mode(s.Exposure(e))
	switch {
	case b.addr.Addr().IsLoopback(), mode == state.PublishLocalhost:
		return reach{}
	case p.servers.servesAll(b):
		return reach{outside: true, containers: true}
	case !mode.ByHost():
		return reach{}
	}
	v6 := b.target.Addr().Is6()
	bridge, has := n.Family(v6).BridgeAddr()
	return reach{outside: true, asClient: has && e.RouterIn(n, v6) == bridge.Addr()}
}

// admission is what every server knows of its socket, and whom it lets in.
type admission struct {
	b   binding
	o   *sockets
	now atomic.Pointer[reach] // nil for the zero reach
	// unsure says that the socket came with a filter that somebody else had given it.
	unsure bool
	// astray is until when the container is known to send its answers elsewhere, as time since epoch.
	astray atomic.Int64
}

func (a *admission) reach() reach {
	if r := a.now.Load(); r != nil {
		return *r
	}
	return reach{}
}

// admit lets in who belongs to r from now on, by the filter of the socket. The kernel exchanges filters at once, and connections
// that are there keep theirs.
func (a *admission) admit(fd int, r reach) error {
	old := a.reach()
	if r.outside { // who gets through is judged by the new reach
		a.now.Store(&r)
	}
	if a.unsure || r.outside != old.outside {
		filter := guard
		if r.outside {
			filter = everything
		}
		if err := attach(fd, filter); err != nil {
			a.now.Store(&old)
			return err
		}
		a.unsure = false
	}
	a.now.Store(&r)
	return nil
}

// everything passes every packet.
var everything = []bpf.Instruction{bpf.RetConstant{Val: wholePacket}}

// nets are the networks of a state, as far as they decide who is let in.
type nets struct {
	inner, all []state.Subnet
	bridges    map[string]bool
}

func netsOf(s state.Snapshot) *nets {
	out := &nets{bridges: map[string]bool{}}
	for _, n := range s.Networks {
		out.all = append(out.all, n.Subnets()...)
		if n.Internal {
			out.inner = append(out.inner, n.Subnets()...)
		}
		out.bridges[n.Bridge] = true
	}
	return out
}

// shuts reports whether a client is refused at a socket that serves who comes from outside. Containers are translated in their
// network's name, and come this way only while somebody has flushed the rules: without them nothing keeps networks apart. Where
// no rule leads containers, those of internal networks are refused, which may reach the host and no other network.
func (a *admission) shuts(client netip.Addr) bool {
	r := a.reach()
	n := a.o.nets.Load()
	if !r.outside || n == nil {
		return false
	}
	subnets := n.all
	if r.containers {
		subnets = n.inner
	}
	client = client.Unmap()
	return slices.ContainsFunc(subnets, func(s state.Subnet) bool {
		own, _ := s.BridgeAddr()
		return s.Prefix.Contains(client) && client != own.Addr() // which the host has
	})
}

// shutsLink reports whether what came by the link is refused, whatever source it bears: a datagram of a container may bear any. The
// handshake of TCP proves a source.
func (a *admission) shutsLink(index int) bool {
	r := a.reach()
	n := a.o.nets.Load()
	if !r.outside || r.containers || n == nil || index <= loopbackIndex {
		return false
	}
	name, err := linkName(index)
	return err == nil && n.bridges[name]
}

// linkName asks the kernel for one name; package net would list all links for it.
func linkName(index int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	request.SetUint32(uint32(index))
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, request); err != nil {
		return "", err
	}
	return request.Name(), nil
}
