package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"
)

// What a firewall can do to a request that is not let through.
var (
	// ErrRefused is a TCP reset, an ICMP port unreachable or, from a kernel without sctp, a protocol unreachable.
	ErrRefused = errors.New("refused")
	// ErrUnreachable is any other ICMP answer, or a route or rule of the sender's own.
	ErrUnreachable = errors.New("unreachable")
	// ErrTimeout is silence.
	ErrTimeout = errors.New("timeout")
	// ErrClosed is a connection that was made and ended without an answer.
	ErrClosed = errors.New("closed")
)

// A Request is one question to a server started with Serve.
type Request struct {
	Network string        // tcp, udp or sctp
	Addr    string        // host:port
	Bind    string        // source address, with or without a port; default the kernel's choice
	Timeout time.Duration // for the connection and for the answer; default 2 s
}

const defaultTimeout = 2 * time.Second

// A Reply is what the server answered.
type Reply struct {
	Server string         // its name: a container's hostname, a Client's name, or "host"
	Peer   netip.AddrPort // the source address that it saw
}

// Get asks and returns the answer, or an error that is one of ErrRefused,
// ErrUnreachable, ErrTimeout and ErrClosed if the network had a part in it.
func Get(ctx context.Context, from Place, r Request) (Reply, error) {
	args := []string{"get", "-timeout", cmp.Or(r.Timeout, defaultTimeout).String()}
	if r.Bind != "" {
		args = append(args, "-bind", r.Bind)
	}
	args = append(args, r.Network, r.Addr)
	out, err := run(from.Command(ctx, from.Probe(), args...), append([]string{"probe"}, args...))
	if err != nil {
		return Reply{}, networkError(err)
	}
	return parseReply(out)
}

// A Result is what became of a request: an answer, or an error as Get returns it.
type Result struct {
	Reply
	Err error
}

// GetEach asks several servers at once and returns what became of each request, in their order. Timeouts are the first one's, and none may have
// a source address. It costs hardly more than one Get.
func GetEach(ctx context.Context, from Place, requests []Request) ([]Result, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	args := []string{"each", "-timeout", cmp.Or(requests[0].Timeout, defaultTimeout).String()}
	for _, r := range requests {
		if r.Bind != "" || r.Timeout != requests[0].Timeout {
			return nil, fmt.Errorf("requests that are made together have one timeout and no source address: %+v", r)
		}
		args = append(args, r.Network, r.Addr)
	}
	out, err := run(from.Command(ctx, from.Probe(), args...), append([]string{"probe"}, args...))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != len(requests) {
		return nil, fmt.Errorf("%d requests, and %d lines: %q", len(requests), len(lines), out)
	}
	results := make([]Result, len(requests))
	for i, line := range lines {
		results[i] = parseResult(line)
	}
	return results, nil
}

// parseResult reads a line of the probe's.
func parseResult(line string) (r Result) {
	word, rest, _ := strings.Cut(line, " ")
	if word == "answered" {
		r.Reply, r.Err = parseReply(rest)
		return r
	}
	r.Err = named(word, rest)
	if r.Err == nil {
		r.Err = errors.New(rest)
	}
	return r
}

// networkError puts the probe's word for what happened into the error.
func networkError(err error) error {
	var command *CommandError
	if !errors.As(err, &command) {
		return err
	}
	if known := named(strings.TrimSpace(command.Stdout), strings.TrimSpace(command.Stderr)); known != nil {
		return known
	}
	return err
}

// named is the error that a word of the probe's stands for, nil if it is none that the network had a part in.
func named(word, whole string) error {
	for _, known := range []error{ErrRefused, ErrUnreachable, ErrTimeout, ErrClosed} {
		if word == known.Error() {
			return fmt.Errorf("%w: %s", known, whole)
		}
	}
	return nil
}

func parseReply(text string) (Reply, error) {
	name, peer, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return Reply{}, fmt.Errorf("the server's answer is %q, not a name and an address", text)
	}
	addr, err := netip.ParseAddrPort(peer)
	return Reply{Server: name, Peer: addr}, err
}

// Ping sends one ICMP echo request and waits at most a second for the answer.
func Ping(ctx context.Context, from Place, addr netip.Addr) error {
	args := []string{"ping", "-c", "1", "-W", "1", addr.String()}
	_, err := run(from.Command(ctx, busybox, args...), args)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}
