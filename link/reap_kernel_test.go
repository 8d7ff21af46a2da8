//go:build kernel

package link

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestDoomed: what is removed does nothing any more from then on, is gone soon, and stands in nobody's way.
func TestDoomed(t *testing.T) {
	l := newLab(t)
	n, e, stays := network(1), endpoint(1, 1), endpoint(1, 2)
	l.apply(snapshot(n, e, stays))
	r := l.links.reaper
	r.mu.Lock()
	r.timer = time.NewTimer(time.Hour) // what is doomed is looked at, which a busy machine may take longer for than it would be there
	r.mu.Unlock()
	must(t, l.links.Prepare().Apply(t.Context(), snapshot(n, stays)))
	link := l.link(e.HostLink())
	if link.Attrs().Flags&net.FlagUp != 0 {
		t.Error("the veth is up")
	}
	l.follow(snapshot(n, stays), snapshot(n, e, stays)) // made again at once
	if again := l.link(e.HostLink()); again.Attrs().Group != state.GroupPort || again.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("group %#x, flags %v", again.Attrs().Group, again.Attrs().Flags)
	}
	must(t, l.links.Prepare().Apply(t.Context(), state.Snapshot{}))
	bridge := l.link(n.Bridge)
	addrs, err := netlink.AddrList(bridge, netlink.FAMILY_ALL)
	must(t, err)
	if len(addrs) > 0 || bridge.Attrs().Flags&net.FlagUp != 0 {
		t.Errorf("the bridge has %v, flags %v", addrs, bridge.Attrs().Flags)
	}
	r.mu.Lock()
	r.timer = nil
	r.mu.Unlock()
	must(t, l.links.Prepare().Apply(t.Context(), state.Snapshot{}))
	// It takes part of a second, unless others make the kernel delete links, too.
	for deadline := time.Now().Add(10 * time.Second); l.has(n.Bridge) || l.has(e.HostLink()) || l.has(stays.ContainerLink()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there after ten seconds")
		}
	}
}

// TestDoomedByAnother: a daemon that was killed left doomed links behind.
func TestDoomedByAnother(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	l.apply(snapshot(n, e))
	must(t, l.links.disable(l.link(e.HostLink())))
	must(t, l.links.disable(l.link(n.Bridge)))
	l.foreign(bridgeNamed("br-lan"))
	must(t, netlink.LinkSetGroup(l.link("br-lan"), int(state.GroupPort)))
	must(t, netlink.LinkSetAlias(l.link("br-lan"), "somebody's"))
	l.apply(snapshot(network(2)))
	if l.has(n.Bridge) || l.has(e.HostLink()) || !l.has(network(2).Bridge) || !l.has("br-lan") {
		t.Errorf("bridge %v, veth %v, new bridge %v, foreign bridge %v", l.has(n.Bridge), l.has(e.HostLink()), l.has(network(2).Bridge), l.has("br-lan"))
	}
}

// TestOthersInTheGroup: what somebody else put into the group stays.
func TestOthersInTheGroup(t *testing.T) {
	l := newLab(t)
	n, e := network(1), endpoint(1, 1)
	l.apply(snapshot(n, e))
	link := bridgeNamed("br-lan")
	link.Group = state.GroupDoomed
	l.foreign(link)
	l.prepare(state.Snapshot{})
	if l.has(n.Bridge) || l.has(e.HostLink()) || !l.has("br-lan") {
		t.Errorf("bridge %v, veth %v, foreign bridge %v", l.has(n.Bridge), l.has(e.HostLink()), l.has("br-lan"))
	}
}

// TestBridgeAnew: a network gets the bridge's name of another one that was removed, of which the link may still be there.
func TestBridgeAnew(t *testing.T) {
	l := newLab(t)
	old, n := network(1), network(2)
	n.Bridge = old.Bridge
	check := func(when string) {
		t.Helper()
		if a := l.link(n.Bridge).Attrs(); a.Alias != n.Alias() || a.Group != n.Group() || a.Flags&net.FlagUp == 0 {
			t.Errorf("%s: alias %q, group %#x, flags %v", when, a.Alias, a.Group, a.Flags)
		}
	}
	l.apply(snapshot(old))
	l.follow(snapshot(old), snapshot(n))
	check("in place of the other")
	l.apply(snapshot(old))
	must(t, l.links.Prepare().Apply(t.Context(), state.Snapshot{}))
	l.follow(state.Snapshot{}, snapshot(n))
	check("after the other")
}
