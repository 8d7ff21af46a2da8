package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// serve listens on every address, says "ready" on standard output once all of
// them are bound, and answers until it is killed.
func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	name := flags.String("name", hostname(), "the name to answer with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() < 2 {
		return errors.New("usage: probe serve [-name N] tcp|udp|sctp ADDR...")
	}
	failed := make(chan error)
	for _, addr := range flags.Args()[1:] {
		answer, err := listen(flags.Arg(0), addr, *name)
		if err != nil {
			return err
		}
		go func() { failed <- answer() }()
	}
	fmt.Println("ready")
	return <-failed
}

// listen binds one address and returns the function that answers on it. The
// network may also be tcp4, udp6 and so on.
func listen(network, addr, name string) (func() error, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		l, err := net.Listen(network, addr)
		if err != nil {
			return nil, err
		}
		return func() error { return answerTCP(l, name) }, nil
	case "udp", "udp4", "udp6":
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return nil, err
		}
		return func() error { return answerUDP(c, name) }, nil
	case "sctp":
		s, err := sctp.Listen(addr)
		if err != nil {
			return nil, err
		}
		return func() error { return answerSCTP(s, name) }, nil
	}
	return nil, fmt.Errorf("network %q is not tcp, udp or sctp", network)
}

func answerTCP(l net.Listener, name string) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for in := bufio.NewScanner(c); in.Scan(); {
				fmt.Fprintln(c, name, peer(c.RemoteAddr()))
			}
		}()
	}
}

func answerUDP(c net.PacketConn, name string) error {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		// One client's ICMP error must not end the server for the others.
		_, _ = c.WriteTo([]byte(name+" "+peer(from)+"\n"), from)
	}
}

func answerSCTP(s *sctp.Server, name string) error {
	return s.Serve(func(peer netip.AddrPort) string { return name + " " + peer.String() + "\n" })
}

// peer writes an address as a dual-stack socket's user means it: 192.0.2.1:5
// and not [::ffff:192.0.2.1]:5.
func peer(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unnamed"
	}
	return name
}
