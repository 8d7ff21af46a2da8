//go:build kernel

package link

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestMarkBack: an alias of somebody else on a link of ours is undone and told of, and the link stays the same one, with its ports.
func TestMarkBack(t *testing.T) {
	l := newLab(t)
	n, e, other := network(1), endpoint(1, 1), network(2)
	s := snapshot(n, other, e)
	l.apply(s)
	for _, name := range []string{n.Bridge, e.HostLink()} {
		own := l.link(name).Attrs()
		for _, alias := range []string{"uplink", "", other.Alias(), "drawbridge of nothing"} {
			must(t, netlink.LinkSetAlias(l.link(name), alias))
			told := fmt.Sprintf("link %s has the alias %q and not %q", name, alias, own.Alias)
			found, err := l.links.Prepare().Inspect(t.Context(), s)
			must(t, err)
			if len(found) != 1 || found[0].Text != told {
				t.Errorf("verify: %v, want %q", found, told)
			}
			l.same("a look's work", l.link(name).Attrs().Alias, alias)
			l.apply(s)
			now := l.link(name).Attrs()
			l.same("the alias", now.Alias, own.Alias)
			l.same("the link", now.Index, own.Index)
			l.same("its bridge", now.MasterIndex, own.MasterIndex)
		}
	}
	// A call that comes first mends it as well.
	must(t, netlink.LinkSetAlias(l.link(n.Bridge), "uplink"))
	more := snapshot(n, other, e, endpoint(1, 2))
	l.follow(s, more)
	l.same("the alias behind a call", l.link(n.Bridge).Attrs().Alias, n.Alias())
	l.same("its endpoint's bridge", l.link(endpoint(1, 2).HostLink()).Attrs().MasterIndex, l.link(n.Bridge).Attrs().Index)

	// With another MAC address it is not known to be ours.
	must(t, netlink.LinkSetHardwareAddr(l.link(n.Bridge), []byte{2, 0, 0, 0, 0, 1}))
	must(t, netlink.LinkSetAlias(l.link(n.Bridge), "uplink"))
	err := l.links.Prepare().Apply(t.Context(), more)
	if err == nil || !strings.Contains(err.Error(), "a link named "+n.Bridge+" exists already") {
		t.Errorf("a bridge of somebody else: %v", err)
	}
	l.same("the alias of somebody else", l.link(n.Bridge).Attrs().Alias, "uplink")
}

// TestUnfinishedIsNotMarked: a link that never came to its alias is not taken for a whole one.
func TestUnfinishedIsNotMarked(t *testing.T) {
	l := newLab(t)
	n := network(1)
	l.prepare(snapshot(n))
	made := l.link(n.Bridge)
	must(t, netlink.LinkSetAlias(made, ""))
	l.apply(snapshot(n))
	if l.link(n.Bridge).Attrs().Index == made.Attrs().Index {
		t.Error("it was not made anew")
	}
}
