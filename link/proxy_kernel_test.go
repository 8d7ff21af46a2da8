//go:build kernel

package link

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// linked returns a network that keeps containers apart, with two endpoints, of which the second is linked to the first.
func linked(adopted bool) (state.Network, state.Endpoint, state.Endpoint) {
	n := network(1)
	n.NoICC, n.Adopted = true, adopted
	db, web := endpoint(1, 1), endpoint(1, 2)
	db.Name, web.Links = "db", []string{"db"}
	return n, db, web
}

func (l *lab) sysctls(keys []string) (values string) {
	l.Helper()
	for _, key := range keys {
		values += l.sysctl(key) + " "
	}
	return values
}

// TestProxies: while containers are linked the bridge answers for them; afterwards it is as it was before.
func TestProxies(t *testing.T) {
	l := newLab(t)
	n, db, web := linked(false)
	l.apply(snapshot(n, db))
	switches, manners := proxySwitches("br1"), proxyManners("br1")
	before := l.sysctls(manners)

	l.apply(snapshot(n, db, web))
	l.same("switches", l.sysctls(switches), "1 1 ")
	l.same("manners", l.sysctls(manners), "0 0 0 ")
	neighbours, err := netlink.NeighProxyList(l.link("br1").Attrs().Index, netlink.FAMILY_V6)
	must(t, err)
	l.same("neighbours", len(neighbours), 2)

	l.apply(snapshot(n, db))
	l.same("switches without links", l.sysctls(switches), "0 0 ")
	l.same("manners without links", l.sysctls(manners), before)
}

// TestProxiesLeaveOthersAlone: what the owner of an adopted bridge has set is not touched: it would answer his machines too.
func TestProxiesLeaveOthersAlone(t *testing.T) {
	l := newLab(t)
	l.foreign(bridgeNamed("br1"))
	l.setSysctl("net/ipv4/conf/br1/send_redirects", "0")
	l.setSysctl("net/ipv4/conf/br1/proxy_arp_pvlan", "1")
	l.setSysctl("net/ipv6/conf/br1/disable_ipv6", "1")
	n, db, web := linked(true)
	for _, s := range []state.Snapshot{snapshot(n, db), snapshot(n, db, web), snapshot(n, db)} {
		l.apply(s)
		l.same("proxy_arp_pvlan", l.sysctl("net/ipv4/conf/br1/proxy_arp_pvlan"), "1")
		l.same("disable_ipv6", l.sysctl("net/ipv6/conf/br1/disable_ipv6"), "0")
	}
	l.apply(snapshot())
	l.same("send_redirects", l.sysctl("net/ipv4/conf/br1/send_redirects"), "0")
	l.same("proxy_arp_pvlan", l.sysctl("net/ipv4/conf/br1/proxy_arp_pvlan"), "1")
	l.same("disable_ipv6", l.sysctl("net/ipv6/conf/br1/disable_ipv6"), "1")
}

// TestProxiesOfAFamily: without rules for IPv6 nobody is answered for in it, and never before the firewall.
func TestProxiesOfAFamily(t *testing.T) {
	l := newLab(t)
	l.links.NoLinksV6 = true
	n, db, web := linked(false)
	l.prepare(snapshot(n, db, web))
	l.same("switches before the firewall", l.sysctls(proxySwitches("br1")), "0 0 ")
	l.apply(snapshot(n, db, web))
	neighbours, err := netlink.NeighProxyList(l.link("br1").Attrs().Index, netlink.FAMILY_V6)
	must(t, err)
	l.same("neighbours", len(neighbours), 0)
}
