//go:build kernel

package link

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestHostMTU(t *testing.T) {
	l := newLab(t)
	n := network(1)
	n.MTU = 0
	mtu := func() int {
		t.Helper()
		fit, err := l.links.FitNetwork(t.Context(), n)
		must(t, err)
		return fit.HostMTU
	}
	route := func(link netlink.Link, gateway string, metric, mtu int) {
		t.Helper()
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: netip.MustParseAddr(gateway).AsSlice(), Priority: metric, MTU: mtu}))
	}
	l.same("without a default route", mtu(), 0)
	slow := l.foreign(vethNamed("slow0", "slow1"), "192.0.2.1/24", "2001:db8::1/64")
	must(t, netlink.LinkSetMTU(slow, 1300))
	l.up("slow0")
	l.up("slow1")
	route(slow, "2001:db8::9", 0, 0)
	l.same("IPv6 alone", mtu(), 1300)
	route(slow, "192.0.2.9", 100, 0)
	l.same("IPv4", mtu(), 1300)
	fast := l.foreign(vethNamed("fast0", "fast1"), "198.51.100.1/24")
	must(t, netlink.LinkSetMTU(fast, 9000))
	l.up("fast0")
	l.up("fast1")
	route(fast, "198.51.100.9", 50, 0)
	l.same("the better route", mtu(), 9000)
	everywhere := ipNet(netip.MustParsePrefix("0.0.0.0/0"))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: l.link("lo").Attrs().Index, Priority: 1, Dst: everywhere, Scope: netlink.SCOPE_HOST}))
	l.same("not by loopback", mtu(), 9000)
	l.apply(snapshot(network(2)))
	route(l.link("br2"), "10.2.0.9", 2, 0)
	l.same("not by a bridge of ours", mtu(), 9000)
	route(slow, "192.0.2.8", 3, 700)
	l.same("the route's own, and what IPv6 needs", mtu(), 1280)
	n.V6 = state.Subnet{}
	l.same("without IPv6", mtu(), 700)
}
