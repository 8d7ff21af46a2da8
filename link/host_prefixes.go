package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
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

// OccupiedPrefixes returns, each once and in no particular order: the destinations of the
// routes of every table and type in both families (a blackhole or an unreachable route
// is somebody's claim too), the interfaces' subnets and peers, and the nameservers.
//
// Left out is what says nothing about a use of the addresses: default routes, also
// in the form of two halves that VPN programs prefer, and what is loopback, multicast or
// IPv6 link-local.
func (h HostPrefixes) OccupiedPrefixes(ctx context.Context) ([]netip.Prefix, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	defer handle.Close()
	found := prefixSet{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if err := found.addRoutes(ctx, handle, family); err != nil {
			return nil, fmt.Errorf("listing the host's routes: %w", err)
		}
		if err := found.addAddresses(ctx, handle, family); err != nil {
			return nil, fmt.Errorf("listing the host's addresses: %w", err)
		}
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

func (s prefixSet) addIPNet(n *net.IPNet) {
	if n == nil {
		return // older kernels' default route, or an address without a peer
	}
	if p, ok := netipx.FromStdIPNet(n); ok {
		s.add(p)
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

// addRoutes asks for the routes of all tables: without a filter the library leaves out
// all but the main one.
func (s prefixSet) addRoutes(ctx context.Context, h *netlink.Handle, family int) error {
	allTables := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	return uninterrupted(ctx, func() error {
		return h.RouteListFilteredIter(family, allTables, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			s.addIPNet(r.Dst)
			return true
		})
	})
}

func (s prefixSet) addAddresses(ctx context.Context, h *netlink.Handle, family int) error {
	return uninterrupted(ctx, func() error {
		addrs, err := h.AddrList(nil, family)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			s.addIPNet(a.IPNet)
			s.addIPNet(a.Peer) // for a point-to-point link the prefix length is the peer's
		}
		return nil
	})
}

// uninterrupted repeats a listing until the kernel gave it in one piece. What was found
// in a broken one stays found: it was in use a moment ago.
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
