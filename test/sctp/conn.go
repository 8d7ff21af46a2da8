package sctp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
)

// Conn asks one port. What is written to it goes out as an INIT whatever it is, and what is read is
// the text that the server put into its INIT ACK. Deadlines work as usual.
type Conn struct {
	*net.IPConn
	local, remote netip.AddrPort
	tag           uint32
}

// Dial prepares a Conn; nothing is sent yet. The dialer's LocalAddr is a *net.UDPAddr or
// nil, its port may be 0; it may have a Control function.
func Dial(ctx context.Context, d net.Dialer, addr string) (*Conn, error) {
	remote, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	port := uint16(0)
	if at, ok := d.LocalAddr.(*net.UDPAddr); ok {
		port = uint16(at.Port)
		d.LocalAddr = &net.IPAddr{IP: at.IP, Zone: at.Zone}
	}
	if port == 0 {
		port = 32768 + uint16(rand.N(1<<14))
	}
	c, err := d.DialContext(ctx, network(remote.Addr()), remote.Addr().String())
	if err != nil {
		return nil, err
	}
	local, _ := netip.AddrFromSlice(c.LocalAddr().(*net.IPAddr).IP)
	return &Conn{
		IPConn: c.(*net.IPConn), remote: remote, tag: 1 + rand.Uint32N(1<<31),
		local: netip.AddrPortFrom(local.Unmap(), port),
	}, nil
}

// network is the name of SCTP's raw sockets.
func network(a netip.Addr) string {
	if a.Is4() {
		return "ip4:132"
	}
	return "ip6:132"
}

// LocalAddr is the source address and port.
func (c *Conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// Write sends an INIT.
func (c *Conn) Write(b []byte) (int, error) {
	init := packet{from: c.local.Port(), to: c.remote.Port(), chunk: chunkInit, tag: c.tag}
	if _, err := c.IPConn.Write(init.marshal()); err != nil {
		return 0, refused(err)
	}
	return len(b), nil
}

// Read waits for the INIT ACK. Everything else that comes for this protocol is somebody else's.
func (c *Conn) Read(b []byte) (int, error) {
	buf := make([]byte, 2048)
	for {
		n, _, err := c.IPConn.ReadFrom(buf) // unlike Read it takes the IPv4 header off
		if err != nil {
			return 0, refused(err)
		}
		p, ok := parse(buf[:n])
		if ok && p.chunk == chunkInitAck && p.from == c.remote.Port() && p.to == c.local.Port() && p.vtag == c.tag {
			return copy(b, p.cookie), nil
		}
	}
}

// refused gives an error the meaning that it has for TCP: a kernel without SCTP says "protocol
// unreachable" in IPv4 and "unrecognized next header" in IPv6, for every port alike.
func refused(err error) error {
	if errors.Is(err, syscall.ENOPROTOOPT) || errors.Is(err, syscall.EPROTO) {
		return fmt.Errorf("%w: %w", syscall.ECONNREFUSED, err)
	}
	return err
}
