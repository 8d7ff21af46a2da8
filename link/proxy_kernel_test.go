//go:build kernel

package link

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// proxied are the addresses that a bridge answers for.
func (l *lab) proxied(bridge string) map[netip.Addr]bool {
	l.Helper()
	list, err := netlink.NeighProxyList(l.link(bridge).Attrs().Index, netlink.FAMILY_V6)
	must(l, err)
	out := map[netip.Addr]bool{}
	for _, n := range list {
		a, _ := netip.AddrFromSlice(n.IP)
		out[a] = true
	}
	return out
}

func (l *lab) isolated(e state.Endpoint) bool {
	l.Helper()
	info, err := netlink.LinkGetProtinfo(l.link(e.HostLink()))
	must(l, err)
	return info.Isolated
}

func TestApart(t *testing.T) {
	l := newLab(t)
	apart, together := network(1), network(2)
	apart.NoICC = true
	e, other := endpoint(1, 1), endpoint(2, 2)
	s := snapshot(apart, together, e, other)
	l.apply(s)
	l.same("isolated", l.isolated(e), true)
	l.same("isolated elsewhere", l.isolated(other), false)
	must(t, netlink.LinkSetIsolated(l.link(e.HostLink()), false))
	must(t, netlink.LinkSetIsolated(l.link(other.HostLink()), true))
	l.apply(s)
	l.same("isolated again", l.isolated(e), true)
	l.same("isolated elsewhere", l.isolated(other), false)
	l.same("proxy_arp_pvlan without links", l.sysctl("net/ipv4/conf/br1/proxy_arp_pvlan"), "0")
}

// TestProxies: the bridge answers for linked containers, and only while there are any.
func TestProxies(t *testing.T) {
	l := newLab(t)
	n := network(1)
	n.NoICC = true
	app, db, third := endpoint(1, 1), endpoint(1, 2), endpoint(1, 3)
	app.Links, db.Name = []string{"db"}, "db"
	switches := func(want string) {
		t.Helper()
		l.same("proxy_arp_pvlan", l.sysctl("net/ipv4/conf/br1/proxy_arp_pvlan"), want)
		l.same("proxy_ndp", l.sysctl("net/ipv6/conf/br1/proxy_ndp"), want)
	}
	l.prepare(snapshot(n, app, db, third))
	switches("0") // not before the firewall
	l.apply(snapshot(n, app, db, third))
	switches("1")
	l.same("send_redirects", l.sysctl("net/ipv4/conf/br1/send_redirects"), "0")
	l.same("proxy_delay", l.sysctl("net/ipv6/neigh/br1/proxy_delay"), "0")
	got := l.proxied("br1")
	l.same("answers for", len(got), 2)
	l.same("for app", got[app.Addr(true)], true)
	l.same("for db", got[db.Addr(true)], true)

	l.apply(snapshot(n, app, third))
	switches("0")
	l.same("answers for", len(l.proxied("br1")), 0)

	l.links.NoLinksV6 = true
	l.apply(snapshot(n, app, db))
	l.same("answers without rules for IPv6", len(l.proxied("br1")), 0)
}

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
