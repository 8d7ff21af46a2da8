package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spray sends datagrams until it is killed. A connected socket would fail at the first ICMP error.
func spray(args []string) error {
	flags := flag.NewFlagSet("spray", flag.ContinueOnError)
	bind := flags.String("bind", "", "source address and port")
	every := flags.Duration("every", 10*time.Millisecond, "pause between two datagrams")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("usage: probe spray -bind IP:PORT [-every D] udp ADDR")
	}
	to, err := netip.ParseAddrPort(flags.Arg(1))
	if err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(*bind)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(from))
	if err != nil {
		return err
	}
	for {
		_, _ = c.WriteToUDPAddrPort([]byte("hello\n"), to)
		time.Sleep(*every)
	}
}

// tcpFlags are the bits of a TCP header by iptables' names.
var tcpFlags = map[string]byte{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32}

// segment sends one TCP segment without a connection, with numbers that fit none.
func segment(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: probe segment FLAGS IP:PORT IP:PORT")
	}
	var flags byte
	for name := range strings.SplitSeq(args[0], ",") {
		flags |= tcpFlags[name]
	}
	from, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(args[2])
	if err != nil {
		return err
	}
	fd, err := rawSocket(from.Addr(), unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, header(flags, from, to), 0, sockaddr(to.Addr()))
}

func header(flags byte, from, to netip.AddrPort) []byte {
	h := binary.BigEndian.AppendUint16(nil, from.Port())
	h = binary.BigEndian.AppendUint16(h, to.Port())
	h = binary.BigEndian.AppendUint32(h, 0x7eadbeef)
	h = binary.BigEndian.AppendUint32(h, 0x7eadcafe)
	h = append(h, 5<<4, flags, 255, 255, 0, 0, 0, 0)
	pseudo := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(h)))
	binary.BigEndian.PutUint16(h[16:], checksum(append(pseudo, h...)))
	return h
}

// checksum is the Internet's (RFC 1071), of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

// rawSocket sends from an address; the kernel writes the IP header.
func rawSocket(from netip.Addr, proto int) (int, error) {
	family := unix.AF_INET
	if from.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return -1, errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

// advertise is a router: it sends advertisements by which hosts get a default route for three seconds and an
// address for a minute, until it is told to end.
func advertise(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: probe advertise IFACE PREFIX")
	}
	iface, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	prefix, err := netip.ParsePrefix(args[1])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// Hosts believe only what comes from a neighbour (RFC 4861, 6.1.2).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	everybody := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(iface.Index)}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	for {
		if err := unix.Sendto(fd, advertisement(prefix, 3), 0, everybody); err != nil {
			fmt.Fprintln(os.Stderr, err) // the link-local address may not be ready yet
		}
		select {
		case <-end:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// advertisement is an ICMPv6 message (RFC 4861, 4.2 and 4.6.2); the kernel adds the checksum.
func advertisement(prefix netip.Prefix, lifetime uint16) []byte {
	const onLinkAndAutonomous = 0xc0
	m := []byte{134, 0, 0, 0, 64, 0}
	m = binary.BigEndian.AppendUint16(m, lifetime)
	m = append(m, 0, 0, 0, 0, 0, 0, 0, 0)
	m = append(m, 3, 4, byte(prefix.Bits()), onLinkAndAutonomous)
	m = binary.BigEndian.AppendUint32(m, 60)
	m = binary.BigEndian.AppendUint32(m, 60)
	m = append(m, 0, 0, 0, 0)
	return append(m, prefix.Addr().AsSlice()...)
}
