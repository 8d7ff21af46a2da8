//go:build kernel

package link

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestBindings: on a network that keeps containers apart, addresses are tied to ports.
func TestBindings(t *testing.T) {
	l := newLab(t)
	apart, together := network(1), network(2)
	apart.NoICC = true
	e, gone, other := endpoint(1, 1), endpoint(1, 2), endpoint(2, 3)
	l.apply(snapshot(apart, together, e, gone, other))
	check := func(neighbours, stations int) {
		t.Helper()
		ports, err := l.links.bridgePorts(part{whole: true}, nil)
		must(t, err)
		b, err := l.links.readBindings(snapshot(apart).Networks)
		must(t, err)
		n := 0
		for key, mac := range b.neighbours {
			if key.link == l.link("br1").Attrs().Index {
				n++
				if key.addr == e.Addr(key.addr.Is6()) {
					l.same("MAC", mac, e.MAC)
				}
			}
			if key.link == l.link("br2").Attrs().Index {
				t.Errorf("%s is tied on a network that keeps nobody apart", key.addr)
			}
		}
		l.same("neighbours", n, neighbours)
		l.same("stations", len(b.stations), stations)
		l.same("locked", ports[l.link(e.HostLink()).Attrs().Index].locked, true)
		l.same("locked elsewhere", ports[l.link(other.HostLink()).Attrs().Index].locked, false)
	}
	check(4, 2)
	s := snapshot(apart, together, e, other)
	l.apply(s)
	check(2, 1)

	// Somebody undoes it.
	must(t, netlink.NeighSet(&netlink.Neigh{
		LinkIndex: l.link("br1").Attrs().Index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: e.Addr(false).AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9},
	}))
	must(t, netlink.NeighDel(&netlink.Neigh{
		LinkIndex: l.link(e.HostLink()).Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		HardwareAddr: net.HardwareAddr(e.MAC[:]),
	}))
	l.apply(s)
	check(2, 1)
}
