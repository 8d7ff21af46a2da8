package sctp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// A Server answers at one port, on one address or on all of both families.
type Server struct {
	port  uint16
	conns []net.PacketConn
}

// Listen makes a Server for host:port; an empty host means every address. Clients that come before
// Serve is called wait.
func Listen(addr string) (*Server, error) {
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q is not a port number", number)
	}
	hosts := []string{host}
	if host == "" {
		hosts = []string{"0.0.0.0", "::"}
	}
	s := &Server{port: uint16(port)}
	for _, h := range hosts {
		ip, err := netip.ParseAddr(h)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		c, err := net.ListenPacket(network(ip), h)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.conns = append(s.conns, c)
	}
	return s, nil
}

// Close ends Serve.
func (s *Server) Close() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Serve tells each client what answer returns for its address, until the first error.
func (s *Server) Serve(answer func(peer netip.AddrPort) string) error {
	failed := make(chan error, len(s.conns))
	for _, c := range s.conns {
		go func() { failed <- s.serve(c, answer) }()
	}
	return <-failed
}

func (s *Server) serve(c net.PacketConn, answer func(netip.AddrPort) string) error {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		in, ok := parse(buf[:n])
		if !ok || in.chunk != chunkInit || in.to != s.port {
			continue
		}
		ip, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		out := packet{
			from: in.to, to: in.from, vtag: in.tag, chunk: chunkInitAck, tag: 1 + rand.Uint32N(1<<31),
			cookie: []byte(answer(netip.AddrPortFrom(ip.Unmap(), in.from))),
		}
		// One client's ICMP error must not end the server for the others.
		_, _ = c.WriteTo(out.marshal(), from)
	}
}
