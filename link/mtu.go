package link

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// hostMTU returns the MTU for a network's links where the user gave none: that of the adopted bridge, or of the
// link by which packets leave the host, so that what containers send passes there without being
// fragmented or lost. It is 0, for the kernel's default, on a host without a default route.
func (l *Links) hostMTU(bridge netlink.Link, n state.Network) (int, error) {
	if n.Adopted {
		return bridge.Attrs().MTU, nil
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		mtu, err := l.defaultRouteMTU(family)
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
func (l *Links) defaultRouteMTU(family int) (int, error) {
	routes, err := dumped(func() ([]netlink.Route, error) {
		return l.handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return 0, fmt.Errorf("listing the host's routes: %w", err)
	}
	routes = slices.DeleteFunc(routes, func(r netlink.Route) bool { return !isDefault(r) })
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, r := range routes {
		index := r.LinkIndex
		if len(r.MultiPath) > 0 {
			index = r.MultiPath[0].LinkIndex
		}
		link, err := l.handle.LinkByIndex(index)
		if gone(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("reading the link of the default route: %w", err)
		}
		if link.Attrs().Name == "lo" || ours(link) || adopted(link) {
			continue
		}
		if r.MTU != 0 {
			return min(r.MTU, link.Attrs().MTU), nil
		}
		return link.Attrs().MTU, nil
	}
	return 0, nil
}

func isDefault(r netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	bits, _ := r.Dst.Mask.Size()
	return bits == 0
}
