package link

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// hostMTU returns the MTU for a network's links where the user gave none: that of the adopted bridge, or of the
// link by which packets leave the host, so that what containers send passes there without being
// fragmented or lost. It is 0, for the kernel's default, on a host without a default route.
func (l *Links) hostMTU(ctx context.Context, bridge netlink.Link, n state.Network) (int, error) {
	if n.Adopted {
		return bridge.Attrs().MTU, nil
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		mtu, err := l.defaultRouteMTU(ctx, family)
		if err != nil {
			return 0, err
		}
		if mtu != 0 {
			return max(mtu, n.LeastMTU()), nil
		}
	}
	return 0, nil
}

// defaultRouteMTU returns the MTU of the family's best default route, 0 if there is none. Routes by the loopback
// link, which some hosts have for policy routing, and by links of ours lead nowhere.
func (l *Links) defaultRouteMTU(ctx context.Context, family int) (int, error) {
	var defaults []route
	err := l.scanner.routes(ctx, family, unix.RT_TABLE_MAIN, func(r route) {
		if r.to.Bits() == 0 && r.kind == unix.RTN_UNICAST {
			defaults = append(defaults, r)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("listing the host's routes: %w", err)
	}
	slices.SortStableFunc(defaults, func(a, b route) int { return cmp.Compare(a.priority, b.priority) })
	for _, r := range defaults {
		link, err := l.handle.LinkByIndex(r.link)
		if gone(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("reading the link of the default route: %w", err)
		}
		if link.Attrs().Name == "lo" || ours(link) || adopted(link) {
			continue
		}
		if r.mtu != 0 {
			return min(int(r.mtu), link.Attrs().MTU), nil
		}
		return link.Attrs().MTU, nil
	}
	return 0, nil
}
