//go:build kernel

package link

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

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
