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
	// from and links are the port's limits (state.Exposure). It has them though nobody comes: who came while others did may still
	// wait to be accepted.
	from  state.Prefixes
	links state.LinkNames
}

// limited reports whether some clients from outside are kept out.
func (r reach) limited() bool { return r.from != "" || r.links != "" }

// filter is what the socket lets through, of one family.
func (r reach) filter(v6 bool) []bpf.Instruction {
	switch {
	case !r.outside:
		return guard
	case !r.limited():
		return everything
	case v6:
		return honest6
	}
	return honest4
}

// reach returns who comes to the socket of b in a state.
func (p *Publisher) reach(s state.Snapshot, b binding) reach {
	if b.addr.Addr().IsLoopback() {
		return reach{}
	}
	e, _ := s.Endpoint(b.endpoint)
	exposure := s.Exposure(e)
	r := p.comers(s, e, exposure, b)
	r.from, r.links = exposure.From, exposure.Links
	return r
}

// comers is reach without limits.
func (p *Publisher) comers(s state.Snapshot, e state.Endpoint, exposure state.Exposure, b binding) reach {
	n, _ := s.Network(b.network)
	mode := p.servers.mode(exposure)
	switch {
	case mode == state.PublishLocalhost:
		return reach{}
	case exposure.Limited() && p.servers.unruled(b): // no rule would keep out whom the limits do, of what is translated elsewhere
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
	// unsure says that the socket's filter may be another than that of now: somebody else had given it, or it could not be exchanged.
	unsure bool
	// astray is until when the container is known to send its answers elsewhere, as time since epoch; answers says that it has answered a client.
	astray  atomic.Int64
	answers atomic.Bool
}

func (a *admission) reach() reach {
	if r := a.now.Load(); r != nil {
		return *r
	}
	return reach{}
}

// admit lets in who belongs to r from now on, by the filter of the socket. The kernel exchanges filters at once, and connections
// that are there keep theirs.
func (a *admission) admit(fd int, to reach) error {
	old := a.reach()
	if to == old && !a.unsure {
		return nil
	}
	r := to
	if r.outside { // who gets through is judged by the new reach
		a.now.Store(&r)
	}
	v6 := a.b.addr.Addr().Is6()
	if filter := r.filter(v6); a.unsure || !slices.Equal(filter, old.filter(v6)) {
		if err := attach(fd, filter); err != nil {
			a.unsure = true
			old.from, old.links = r.from, r.links // whomever the filter lets through
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

// honest4 and honest6 pass what came in by the loopback interface, and of the rest what does not bear the address that it is sent to
// as its source. A socket of IPv6 is told that what the host sends to an address of its own came by the link that has the
// address: by the two addresses the host is known, if nobody else can bear them.
var (
	honest4 = honest(12, 16, 4)
	honest6 = honest(8, 24, 16)
)

// honest gets where a header has the two addresses, and how long they are. A word of four bytes takes four instructions.
func honest(source, destination, size uint32) []bpf.Instruction {
	const header, word = 1<<32 - 1<<20, 4 // SKF_NET_OFF
	out := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtInterfaceIndex},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: loopbackIndex, SkipTrue: uint8(size + 1)},
	}
	for at := uint32(0); at < size; at += word {
		out = append(out,
			bpf.LoadAbsolute{Off: header + source + at, Size: word},
			bpf.TAX{},
			bpf.LoadAbsolute{Off: header + destination + at, Size: word},
			bpf.JumpIfX{Cond: bpf.JumpNotEqual, SkipTrue: uint8(size - at - word + 1)},
		)
	}
	return append(out, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: wholePacket})
}

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

// keepsOut reports whether the port's limits refuse a client that came by a link to an address of the host. The rules ask before, with
// the same result, and for what is translated they alone; but they see published ports at addresses of the host, and not what
// somebody leads there from another port, nor what is sent to all of a link, and they may be gone. The host itself and what comes by
// bridges of ours is not limited. What came by a link that is not known came by none that is listed.
func (a *admission) keepsOut(client, local netip.Addr, link int) bool {
	r := a.reach()
	client = client.Unmap().WithZone("") // as packets have it
	if !r.limited() || link == loopbackIndex || client == local {
		return false
	}
	from := r.from == "" || r.from.Contains(client)
	if from && r.links == "" {
		return false
	}
	name, err := linkName(link)
	if n := a.o.nets.Load(); err == nil && n != nil && n.bridges[name] {
		return false
	}
	return !from || err != nil || !slices.Contains(r.links.All(), name)
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
