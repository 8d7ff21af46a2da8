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

	"github.com/drawbridge-net/drawbridge/test/lab/ask"
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
//
// Where it can, this process asks, by a thread in the place's network namespace: on a virtual machine, where a process costs most, half of
// the time of a test went into those that ask.
func Get(ctx context.Context, from Place, r Request) (Reply, error) {
	r.Timeout = cmp.Or(r.Timeout, defaultTimeout)
	ns, err := netNS(ctx, from, r)
	if err != nil {
		return Reply{}, err
	}
	if ns == "" {
		return getThere(ctx, from, r)
	}
	line, err := askIn(ctx, ns, r)
	if err != nil {
		return Reply{}, cmp.Or(named(ask.Outcome(err), err.Error()), err)
	}
	return parseReply(line)
}

// getThere has the place's own program ask.
func getThere(ctx context.Context, from Place, r Request) (Reply, error) {
	args := []string{"get", "-timeout", r.Timeout.String()}
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
