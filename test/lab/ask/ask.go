// Package ask asks a server that answers every line with its name and the address it sees (probe serve): from wherever the caller's thread is.
package ask

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// Dial connects from a source address, with or without a port, or one of the kernel's choice if bind is empty. To an address that is no name the
// calling thread makes the socket, in its network namespace.
func Dial(ctx context.Context, network, addr, bind string, timeout time.Duration) (net.Conn, error) {
	local, err := source(network, bind)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: timeout, LocalAddr: local}
	if network == "sctp" {
		return sctp.Dial(ctx, d, addr)
	}
	return d.DialContext(ctx, network, addr)
}

// Line sends one line and reads the answer. Datagrams are sent again four times
// per timeout: a first one may be lost while the neighbour is being resolved.
func Line(c net.Conn, in *bufio.Reader, network string, timeout time.Duration) (string, error) {
	tries := 1
	if network[:3] != "tcp" {
		tries = 4
	}
	for {
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(timeout / time.Duration(tries))); err != nil {
			return "", err
		}
		line, err := in.ReadString('\n')
		timeout -= timeout / time.Duration(tries)
		tries--
		if err == nil || tries == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return line, err
		}
	}
}

// source is the local address to dial from; nil lets the kernel choose.
func source(network, bind string) (net.Addr, error) {
	if bind == "" {
		return nil, nil
	}
	ap, err := netip.ParseAddrPort(bind)
	if err != nil {
		addr, err := netip.ParseAddr(bind)
		if err != nil {
			return nil, fmt.Errorf("source address: %w", err)
		}
		ap = netip.AddrPortFrom(addr, 0)
	}
	if network[:3] == "tcp" {
		return net.TCPAddrFromAddrPort(ap), nil
	}
	return net.UDPAddrFromAddrPort(ap), nil
}

// Outcome names an error by what the firewall did: "refused" is a reset, a
// port unreachable or a protocol unreachable, "unreachable" any other ICMP rejection (administratively
// prohibited comes as EHOSTUNREACH for IPv4, as EACCES for IPv6; a drop on the
// way out of this very host as EPERM), "timeout" silence, "closed" a
// connection that was accepted and ended without an answer.
func Outcome(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "error"
}
