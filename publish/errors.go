package publish

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// errClosed is what a Publisher answers after Close.
var errClosed = errors.New("published ports are no longer served: drawbridge is shutting down")

// conflict is a place that someone has already. It is an EADDRINUSE to errors.Is.
type conflict struct {
	at     place
	twice  bool     // by the same call
	holder *binding // one of ours
	owner  string   // name and pid of a process, where it could be found
}

func (c *conflict) Error() string {
	switch {
	case c.twice:
		return fmt.Sprintf("port %s is requested twice", c.at)
	case c.holder != nil:
		return fmt.Sprintf("port %s is already published by endpoint %s of network %s", c.at, c.holder.endpoint.Short(), c.holder.network.Short())
	case c.owner != "":
		return fmt.Sprintf("port %s is already in use by %s", c.at, c.owner)
	}
	return fmt.Sprintf("port %s is already in use on this host", c.at)
}

func (c *conflict) Unwrap() error { return syscall.EADDRINUSE }

// refusal is a sentence in place of what the kernel said, which stays reachable.
type refusal struct {
	at     place
	reason string
	err    error
}

func (r *refusal) Error() string {
	return fmt.Sprintf("port %s cannot be published: %s", r.at, r.reason)
}
func (r *refusal) Unwrap() error { return r.err }

// shortage is that of files for many ports. It is an EMFILE to errors.Is.
type shortage struct {
	ports  int
	needed int // files
	free   int // of those that ports may have
	limit  int
	enough int // would be, as a limit
}

func (s *shortage) Error() string {
	return fmt.Sprintf("%d ports cannot be published: they take %d files, and drawbridge may open %d more for ports: raise the limit of %d to %d at least %s, or publish fewer of them",
		s.ports, s.needed, s.free, s.limit, s.enough, whereLimited)
}
func (s *shortage) Unwrap() error { return syscall.EMFILE }

// whereLimited says where the limit of open files is set.
const whereLimited = "(LimitNOFILE= in drawbridge-relay.service, ulimit -n elsewhere)"

// refuse turns an error of bind(2) other than EADDRINUSE into a sentence for the user.
func refuse(at place, err error) error {
	ip := at.addr.Addr()
	because := func(format string, args ...any) error {
		return &refusal{at: at, reason: fmt.Sprintf(format, args...), err: err}
	}
	switch {
	case errors.Is(err, errOnlyByRules):
		return because("%v, and --iptables=false allows none", errOnlyByRules)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return because("%s is not an address of this host", ip)
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return because("this host has no %s", family(at))
	case errors.Is(err, syscall.EINVAL) && ip.IsLinkLocalUnicast():
		return because("%s is a link-local address, which is not unique on this host: give another address or none", ip)
	case errors.Is(err, syscall.EMFILE):
		return because("drawbridge has as many files open as it may: raise the limit %s", whereLimited)
	case errors.Is(err, syscall.ENFILE):
		return because("this host has as many files open as it may: raise the sysctl fs.file-max")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return because("drawbridge is not permitted to bind it: it needs CAP_NET_ADMIN, for low ports CAP_NET_BIND_SERVICE, and a security module may forbid more")
	}
	return fmt.Errorf("binding port %s: %w", at, err)
}

func family(at place) string {
	if at.addr.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// unavailable reports whether the host lacks the address or its whole family.
func unavailable(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// mostLookups bounds the searches through /proc of one call: a range of ten thousand
// ports that are all taken must not cost ten thousand of them.
const mostLookups = 16

// explain finds the process behind each conflict that is not ours. It reads all of /proc, so
// the mutex must not be held.
func (p *Publisher) explain(ctx context.Context, errs ...error) {
	lookups := 0
	for _, err := range errs {
		var c *conflict
		if !errors.As(err, &c) || c.twice || c.holder != nil || lookups == mostLookups {
			continue
		}
		lookups++
		c.owner = p.proc.owner(ctx, c.at)
	}
}
