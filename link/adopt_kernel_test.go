//go:build kernel

package link

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// owned is a bridge that its owner has set up, and a network that adopts it.
func (l *lab) owned() (netlink.Link, state.Network) {
	l.Helper()
	link := l.foreign(bridgeNamed("lan0"), "10.1.0.7/16")
	must(l, netlink.LinkSetAlias(link, "of the owner: 1"))
	must(l, netlink.LinkSetMTU(link, 1380))
	n := network(1)
	n.Bridge, n.MTU = "lan0", 0
	n, err := l.links.FitNetwork(l.Context(), n)
	must(l, err)
	return l.link("lan0"), n
}

// look describes what a link's owner can see of it.
func (l *lab) look(name string) string {
	l.Helper()
	a := l.link(name).Attrs()
	return fmt.Sprintf("group %d alias %q mtu %d [%s]", a.Group, a.Alias, a.MTU, l.addresses(name))
}

func TestAdopt(t *testing.T) {
	l := newLab(t)
	link, n := l.owned()
	nic := l.foreign(vethNamed("nic0", "nic1"))
	must(t, netlink.LinkSetMaster(nic, link))
	mac := l.link("lan0").Attrs().HardwareAddr.String()
	l.same("adopted", n.Adopted, true)
	l.same("MTU", n.LinkMTU(), 1380)
	before := l.look("lan0")
	e := endpoint(1, 1)
	l.apply(snapshot(n, e))
	now := l.link("lan0")
	l.same("same link", now.Attrs().Index, link.Attrs().Index)
	l.same("addresses", l.addresses("lan0"), "10.1.0.1/16 10.1.0.7/16 fd00:1::1/64")
	l.same("group", now.Attrs().Group, state.GroupBridge|state.GroupAdoptedBit)
	l.same("up", isUp(now), true)
	l.same("MTU", now.Attrs().MTU, 1380)
	l.same("MAC", now.Attrs().HardwareAddr.String(), mac)
	l.same("port", l.link(e.HostLink()).Attrs().MasterIndex, link.Attrs().Index)
	l.same("MTU of the port", l.link(e.HostLink()).Attrs().MTU, 1380)
	if !strings.HasSuffix(now.Attrs().Alias, ": of the owner: 1") {
		t.Errorf("alias %q", now.Attrs().Alias)
	}
	foreign, err := l.links.ForeignBridges()
	must(t, err)
	l.same("foreign bridges", len(foreign), 0)

	l.apply(snapshot(n, e)) // knows again what is its own
	l.same("alias", l.link("lan0").Attrs().Alias, now.Attrs().Alias)
	l.apply(snapshot())
	l.same("given back", l.look("lan0"), before)
	l.same("veth left", l.has(e.HostLink()), false)
}

// TestAdoptedCrashes gives back what was only half taken, and takes whole what was half taken.
func TestAdoptedCrashes(t *testing.T) {
	l := newLab(t)
	link, n := l.owned()
	before := l.look("lan0")
	half := adoption{network: n.ID, added: nil, before: "of the owner: 1"}
	for p := range bridgeAddrs(n) {
		half.added = append(half.added, p)
	}
	must(t, netlink.LinkSetAlias(link, half.String()))
	l.apply(snapshot())
	l.same("given back with the mark alone", l.look("lan0"), before)
	must(t, netlink.LinkSetAlias(link, half.String()))
	l.apply(snapshot(n))
	l.same("addresses", l.addresses("lan0"), "10.1.0.1/16 10.1.0.7/16 fd00:1::1/64")
	must(t, netlink.LinkSetAlias(l.link("lan0"), "mine again")) // somebody took the mark
	must(t, netlink.LinkSetGroup(l.link("lan0"), 7))
	l.apply(snapshot(n))
	l.same("group again", l.link("lan0").Attrs().Group, state.GroupBridge|state.GroupAdoptedBit)
	must(t, netlink.LinkSetAlias(l.link("lan0"), ""))
	l.apply(snapshot(n))
	l.same("group of one whose mark alone went", l.link("lan0").Attrs().Group, state.GroupBridge|state.GroupAdoptedBit)
	must(t, netlink.LinkSetDown(l.link("lan0")))
	must(t, netlink.LinkSetName(l.link("lan0"), "lan9"))
	if err := l.links.Prepare().Apply(t.Context(), snapshot(n)); err == nil || !strings.Contains(err.Error(), "rename it back") {
		t.Errorf("renamed: %v", err)
	}
	l.same("group of the renamed", l.link("lan9").Attrs().Group, state.GroupBridge|state.GroupAdoptedBit)
	must(t, netlink.LinkSetName(l.link("lan9"), "lan0"))
	must(t, netlink.LinkSetAlias(l.link("lan0"), ""))
	l.apply(snapshot())
	if !l.has("lan0") {
		t.Fatal("a bridge of somebody else was removed")
	}
	l.same("group", l.link("lan0").Attrs().Group, uint32(0))
}

func TestAdoptRefuses(t *testing.T) {
	l := newLab(t)
	l.foreign(bridgeNamed("grouped0"))
	must(t, netlink.LinkSetGroup(l.link("grouped0"), 7))
	l.foreign(bridgeNamed("talkative0"))
	must(t, netlink.LinkSetAlias(l.link("talkative0"), strings.Repeat("x", 200)))
	l.foreign(vethNamed("veth0", "veth1"))
	l.foreign(bridgeNamed("taken0"))
	other := network(2)
	other.Bridge = "taken0"
	other, err := l.links.FitNetwork(t.Context(), other)
	must(t, err)
	l.apply(snapshot(other))
	for name, want := range map[string]string{
		"grouped0": "is in device group 7", "talkative0": "alias of bridge talkative0 is too long",
		"veth0": "is no bridge", "taken0": "is in use by another network",
	} {
		n := network(1)
		n.Bridge = name
		if _, err := l.links.FitNetwork(t.Context(), n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	n := network(1)
	n.Bridge, n.Adopted = "gone0", true
	if err := l.links.Prepare().Apply(t.Context(), snapshot(n, other)); err == nil || !strings.Contains(err.Error(), "ip link add gone0 type bridge") {
		t.Errorf("a bridge that is gone: %v", err)
	}
}

func TestAliasOfAdopted(t *testing.T) {
	a := adoption{network: state.NetworkID(id(1)), ipv6: true, before: "a: b"}
	for p := range bridgeAddrs(network(1)) {
		a.added = append(a.added, p)
	}
	back, ok := parseAdoption(a.String())
	if !ok || back.String() != a.String() || back.before != a.before || back.network != a.network || len(back.added) != 2 || !back.ipv6 {
		t.Errorf("%q became %+v", a, back)
	}
	if none, ok := parseAdoption(adoption{network: a.network}.String()); !ok || len(none.added) != 0 || none.ipv6 || none.before != "" {
		t.Errorf("%+v", none)
	}
	if _, ok := parseAdoption(network(1).Alias()); ok {
		t.Error("a bridge of ours is taken for an adopted one")
	}
}
