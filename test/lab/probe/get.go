package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/test/sctp"
)

// A request is what get was asked for.
type request struct {
	network, addr, bind string
	timeout             time.Duration // for the connection and for each answer
	count               int           // answers wanted on the one connection
	every               time.Duration // pause between two requests
	lines, length       int           // of one request: that many lines at once, of that many bytes
}

// get prints one line per answer. When there is none it exits 1 with one of
// the words of outcome on standard output and the whole error on standard error.
func get(args []string) error {
	var r request
	flags := flag.NewFlagSet("get", flag.ContinueOnError)
	flags.StringVar(&r.bind, "bind", "", "source address, with or without a port")
	flags.DurationVar(&r.timeout, "timeout", 2*time.Second, "how long to wait for the connection and for each answer")
	flags.IntVar(&r.count, "count", 1, "how many requests to make on one connection")
	flags.DurationVar(&r.every, "every", 100*time.Millisecond, "pause between two requests")
	flags.IntVar(&r.lines, "lines", 1, "how many lines one request has; each is answered")
	flags.IntVar(&r.length, "length", len("hello"), "how long these lines are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("usage: probe get [-bind IP] [-timeout D] [-count N -every D] [-lines N] [-length N] tcp|udp|sctp ADDR")
	}
	r.network, r.addr = flags.Arg(0), flags.Arg(1)
	err := fetch(os.Stdout, r)
	if err != nil {
		fmt.Println(outcome(err))
	}
	return err
}

func fetch(out io.Writer, r request) error {
	local, err := source(r.network, r.bind)
	if err != nil {
		return err
	}
	c, err := dial(net.Dialer{Timeout: r.timeout, LocalAddr: local}, r)
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for i := range r.count {
		if i > 0 {
			time.Sleep(r.every)
		}
		line, err := r.ask(c, in)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, line); err != nil {
			return err
		}
	}
	return nil
}

// ask makes one request.
func (r request) ask(c net.Conn, in *bufio.Reader) (string, error) {
	if r.lines > 1 {
		return r.pour(c, in)
	}
	return ask(c, in, r)
}

// pour sends many lines and returns the last answer. It reads meanwhile, or both sides would wait for each other.
func (r request) pour(c net.Conn, in *bufio.Reader) (string, error) {
	if err := c.SetDeadline(time.Now().Add(r.timeout)); err != nil {
		return "", err
	}
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, strings.Repeat(strings.Repeat("x", r.length)+"\n", r.lines))
		written <- err
	}()
	var last string
	for range r.lines {
		var err error
		if last, err = in.ReadString('\n'); err != nil {
			return "", err
		}
	}
	return last, <-written
}

func dial(d net.Dialer, r request) (net.Conn, error) {
	if r.network == "sctp" {
		return sctp.Dial(context.Background(), d, r.addr)
	}
	return d.Dial(r.network, r.addr)
}

// ask sends one line and reads the answer. Datagrams are sent again four times
// per timeout: a first one may be lost while the neighbour is being resolved.
func ask(c net.Conn, in *bufio.Reader, r request) (string, error) {
	tries := 1
	if r.network[:3] != "tcp" {
		tries = 4
	}
	for {
		if _, err := io.WriteString(c, "hello\n"); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(r.timeout / time.Duration(tries))); err != nil {
			return "", err
		}
		line, err := in.ReadString('\n')
		r.timeout -= r.timeout / time.Duration(tries)
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

// outcome names an error by what the firewall did: "refused" is a reset, a
// port unreachable or a protocol unreachable, "unreachable" any other ICMP rejection (administratively
// prohibited comes as EHOSTUNREACH for IPv4, as EACCES for IPv6; a drop on the
// way out of this very host as EPERM), "timeout" silence, "closed" a
// connection that was accepted and ended without an answer.
func outcome(err error) string {
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
