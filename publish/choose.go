package publish

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// span is a range of port numbers, both ends included.
type span struct{ first, last int }

func (s span) contains(n int) bool { return s.first <= n && n <= s.last }

// from yields all numbers of s but those in skip, beginning at start and going
// around.
func (s span) from(start int, skip []span) iter.Seq[uint16] {
	size := s.last - s.first + 1
	return func(yield func(uint16) bool) {
		for i := range size {
			n := s.first + (start-s.first+i)%size
			reserved := slices.ContainsFunc(skip, func(r span) bool { return r.contains(n) })
			if !reserved && !yield(uint16(n)) {
				return
			}
		}
	}
}

// candidates returns the host ports that can satisfy r, in the order in which they are
// tried. An ephemeral search begins at random, so that a port is not given to the
// next container right after its release.
func (p procfs) candidates(r state.PortRequest) (iter.Seq[uint16], error) {
	if r.HostPort != 0 {
		s := span{int(r.HostPort), int(r.HostPortEnd)}
		return s.from(s.first, nil), nil
	}
	s, skip, err := p.ephemeral()
	if err != nil {
		return nil, fmt.Errorf("choosing an ephemeral host port: %w", err)
	}
	return s.from(s.first+rand.IntN(s.last-s.first+1), skip), nil
}

// ephemeral returns the host's range of ephemeral ports, and what the admin
// reserved in it. One pair of sysctls serves both families.
func (p procfs) ephemeral() (span, []span, error) {
	text, err := p.sysctl("ip_local_port_range")
	if err != nil {
		return span{}, nil, err
	}
	s, err := parseSpan(strings.Join(strings.Fields(text), "-"))
	if err != nil {
		return span{}, nil, fmt.Errorf("sysctl net.ipv4.ip_local_port_range: %w", err)
	}
	text, err = p.sysctl("ip_local_reserved_ports")
	if err != nil {
		return span{}, nil, err
	}
	skip, err := parseSpans(text)
	if err != nil {
		return span{}, nil, fmt.Errorf("sysctl net.ipv4.ip_local_reserved_ports: %w", err)
	}
	return s, skip, nil
}

func (p procfs) sysctl(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(p), "sys/net/ipv4", name))
	return strings.TrimSpace(string(b)), err
}

// parseSpans reads the form of ip_local_reserved_ports: 8080,9000-9100.
func parseSpans(text string) ([]span, error) {
	var out []span
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		s, err := parseSpan(part)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func parseSpan(text string) (span, error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a > b {
		return span{}, fmt.Errorf("%q is not a range of ports", text)
	}
	return span{int(a), int(b)}, nil
}

// noneFree is the error of a request whose candidates are all taken.
func noneFree(r state.PortRequest) error {
	if r.HostPort == 0 {
		return fmt.Errorf("no ephemeral host port is free for container port %d/%s: widen the sysctl net.ipv4.ip_local_port_range", r.ContainerPort, r.Proto)
	}
	where := ""
	if r.HostIP.IsValid() {
		where = " on " + r.HostIP.String()
	}
	return fmt.Errorf("no host port of %d-%d/%s is free%s for container port %d", r.HostPort, r.HostPortEnd, r.Proto, where, r.ContainerPort)
}
