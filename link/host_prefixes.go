package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// resolvConfs are the files that name the host's DNS servers. The second holds the
// servers themselves where systemd-resolved puts its own address into the first.
var resolvConfs = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}

// maxDumps is how often a listing is tried that the kernel reports as interrupted by
// a change. A dump takes milliseconds, so ten in a row mean that something is wrong.
const maxDumps = 10

// HostPrefixes finds out which prefixes are in use on the host, so that a new network gets
// others. Its zero value reads the host's own resolv.conf.
type HostPrefixes struct {
	// ResolvConf are the files to read nameservers from; those that do not exist
	// are passed over. Nil means /etc/resolv.conf and that of systemd-resolved.
	ResolvConf []string
}

// OccupiedPrefixes returns, each once and in no particular order, of one family: the destinations of
// the routes of every table and type (a blackhole or an unreachable route is somebody's
// claim too), the interfaces' subnets and peers, and the nameservers (of both).
//
// Left out is what says nothing about a use of the addresses: default routes, also
// in the form of two halves that VPN programs prefer, and what is loopback, multicast or
// IPv6 link-local.
func (h HostPrefixes) OccupiedPrefixes(ctx context.Context, v6 bool) ([]netip.Prefix, error) {
	s, err := newScanner()
	if err != nil {
		return nil, err
	}
	defer s.close()
	found := prefixSet{}
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	// An interrupted listing is repeated. What was found in a broken one stays found: it was in use a moment ago.
	if err := s.routes(ctx, family, unix.RT_TABLE_UNSPEC, func(r route) { found.add(r.to) }); err != nil {
		return nil, fmt.Errorf("listing the host's routes: %w", err)
	}
	if err := s.addresses(ctx, family, 0, found.addAddress); err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	if err := found.addNameservers(h.ResolvConf); err != nil {
		return nil, fmt.Errorf("reading the host's nameservers: %w", err)
	}
	out := make([]netip.Prefix, 0, len(found))
	for p := range found {
		out = append(out, p)
	}
	return out, nil
}

// prefixSet collects prefixes. A route shows up in several tables and again as an
// address, and there may be very many.
type prefixSet map[netip.Prefix]struct{}

func (s prefixSet) add(p netip.Prefix) {
	if p.IsValid() && occupies(p) {
		s[p.Masked()] = struct{}{}
	}
}

func (s prefixSet) addAddress(a hostAddr) {
	s.add(a.to)
	if a.local != a.to.Addr() {
		s.add(netip.PrefixFrom(a.local, a.local.BitLen()))
	}
}

// occupies reports whether the prefix is a use of its addresses.
func occupies(p netip.Prefix) bool {
	if p.Bits() <= 1 {
		return false // 0.0.0.0/1 with 128.0.0.0/1 is a default route in two halves
	}
	a := p.Masked().Addr()
	return !a.IsLoopback() && !a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// uninterrupted repeats a listing until the kernel gave it in one piece.
func uninterrupted(ctx context.Context, list func() error) error {
	var err error
	for range maxDumps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return fmt.Errorf("it changed during each of %d attempts: %w", maxDumps, err)
}

func (s prefixSet) addNameservers(files []string) error {
	if files == nil {
		files = resolvConfs
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, a := range nameservers(text) {
			s.add(netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return nil
}

// nameservers reads the nameserver lines of resolv.conf(5). Like the resolver it passes
// over what it does not understand.
func nameservers(text []byte) []netip.Addr {
	var out []netip.Addr
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, a.WithZone("").Unmap())
		}
	}
	return out
}
