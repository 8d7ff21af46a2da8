package link

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// CheckNetwork says whether the host has room for a new network: its bridge's name must be
// free, and its subnets must not overlap one that a link of the host is on, since the kernel
// could then reach only one of the two.
func (l *Links) CheckNetwork(_ context.Context, n state.Network) error {
	have, err := l.inventory()
	if err != nil {
		return err
	}
	if link, ok := have[n.Bridge]; ok && !ours(link) {
		return fmt.Errorf("a link named %s exists already on this host: choose another name with -o com.docker.network.bridge.name=…", n.Bridge)
	}
	addrs, err := dumped(func() ([]netlink.Addr, error) { return l.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing the host's addresses: %w", err)
	}
	names := map[int]netlink.Link{}
	for _, link := range have {
		names[link.Attrs().Index] = link
	}
	for _, a := range addrs {
		link, ok := names[a.LinkIndex]
		if !ok || ours(link) {
			continue // networks of ours are compared in the state
		}
		p := prefixOf(a.IPNet)
		for _, s := range n.Subnets() {
			if s.Prefix.Overlaps(p.Masked()) && !p.Addr().IsLinkLocalUnicast() {
				return fmt.Errorf("subnet %s overlaps %s, which is on this host's link %s: choose another with --subnet", s.Prefix, p, link.Attrs().Name)
			}
		}
	}
	return nil
}
