package link

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// The kernel tells of every change of a link, also of our own, and does not say whose it was. So passes note how they leave a
// link, and that they are about to take it away. What an event tells of is somebody else's work if the link is not as it was left.

// condition is how a link of ours was left.
type condition struct {
	shape
	addrs []netip.Prefix
	// others says that it may have more addresses than these.
	others bool
}

// shape is what a link says of itself.
type shape struct {
	name, alias string
	group       uint32
	mtu         int // 0 for any
	down        bool
	bridge      int  // of which it is a port, 0 for none
	port        port // its settings there
}

// bridgeCondition is that of a network's bridge.
func bridgeCondition(n state.Network, alias string) condition {
	s := shape{name: n.Bridge, alias: alias, group: n.Group(), mtu: n.LinkMTU()}
	if n.Adopted {
		s.mtu = 0
	}
	return condition{s, slices.SortedFunc(keys(bridgeAddrs(n)), netip.Prefix.Compare), n.Adopted}
}

// portCondition is that of the host's end of an endpoint's veth pair.
func portCondition(n state.Network, e state.Endpoint, bridge int, settings port) condition {
	return condition{shape: shape{
		name: e.HostLink(), alias: e.Alias(), group: state.GroupPort, mtu: n.LinkMTU(), bridge: bridge, port: settings,
	}}
}

func (c condition) equal(o condition) bool {
	return c.shape == o.shape && slices.Equal(c.addrs, o.addrs)
}

// differs says in what a link is not as it was left, "" for nothing.
func (c shape) differs(now shape) string {
	link := "link " + c.name
	switch {
	case now.name != c.name:
		return link + " was renamed to " + now.name
	case now.bridge != c.bridge && now.bridge == 0:
		return link + " was taken out of its bridge"
	case now.bridge != c.bridge:
		return link + " was put into another bridge"
	case now.down && !c.down:
		return link + " was set down"
	case now.group != c.group:
		return fmt.Sprintf("%s was moved to group %d", link, now.group)
	case now.alias != c.alias:
		return link + " has another alias"
	case c.mtu != 0 && now.mtu != c.mtu:
		return fmt.Sprintf("the MTU of %s was set to %d", link, now.mtu)
	case now.port != c.port:
		return "the settings of bridge port " + c.name + " changed"
	}
	return ""
}

// strays says in what a link's addresses are not as they were left. Link-local ones of IPv6 are the kernel's.
func (c condition) strays(now []netip.Prefix) string {
	for _, p := range c.addrs {
		if !slices.Contains(now, p) {
			return fmt.Sprintf("%s lost its address %s", c.name, p)
		}
	}
	for _, p := range now {
		if !c.others && !slices.Contains(c.addrs, p) && !(p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()) {
			return fmt.Sprintf("%s got another address, %s", c.name, p)
		}
	}
	return ""
}

// settled is how links of ours were left, by index.
type settled struct {
	// wake holds a request to look at fresh.
	wake chan struct{}

	mu    sync.Mutex
	links map[int]*condition // guarded by mu
	fresh []int              // those that were left since somebody looked; guarded by mu
}

func newSettled() *settled {
	return &settled{wake: make(chan struct{}, 1), links: map[int]*condition{}}
}

// leave notes how a link is left. It is looked at once more: what somebody did to it while it was not noted went unheard.
func (s *settled) leave(index int, c condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.links[index]; old != nil && old.equal(c) {
		return
	}
	s.links[index] = &c
	s.fresh = append(s.fresh, index)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// take says that a link is about to be changed or removed by us.
func (s *settled) take(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, index)
}

// takeUnless does so unless the link was left like this.
func (s *settled) takeUnless(index int, c condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.links[index]; old != nil && !old.equal(c) {
		delete(s.links, index)
	}
}

// of returns how a link was left, nil if that is not known. The same answer later says that nobody of us has touched it meanwhile.
func (s *settled) of(index int) *condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[index]
}

// news returns the links that were left since the last call.
func (s *settled) news() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.fresh
	s.fresh = nil
	return fresh
}

// prune forgets links that are gone, of which events may have been lost.
func (s *settled) prune(have inventory) {
	there := map[int]bool{}
	for _, link := range have {
		there[link.Attrs().Index] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.links, func(index int, _ *condition) bool { return !there[index] })
}

// leave is settled's for a pass that does not only look.
func (l *Links) leave(index int, c condition) {
	if !l.journal.looking {
		l.settled.leave(index, c)
	}
}

// takeUnless is settled's for a pass that does not only look.
func (l *Links) takeUnless(index int, c condition) {
	if !l.journal.looking {
		l.settled.takeUnless(index, c)
	}
}

// take is settled's for a pass that does not only look.
func (l *Links) take(link netlink.Link) {
	if !l.journal.looking {
		l.settled.take(link.Attrs().Index)
	}
}

// letGo says that a link is to be removed, or given back, by us: what becomes of it and its settings is no news.
func (l *Links) letGo(link netlink.Link) {
	l.take(link)
	if !l.journal.looking {
		l.switches.forget(link.Attrs().Name)
	}
}
