package link

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// part is what a pass looks at: the whole host, or only what two states do not share. Its objects are those of the later
// state. The time that a part takes does not depend on how much else there is.
type part struct {
	whole     bool
	made      []state.Network  // those that differ
	networks  []state.Network  // those and the ones of which an endpoint differs
	endpoints []state.Endpoint // those that differ, or whose networks do
	links     []string         // names of the host's links that these have, and that the earlier state had in their place
}

// wholeOf is everything.
func wholeOf(s state.Snapshot) part {
	p := part{whole: true, made: s.Networks, networks: s.Networks}
	for _, e := range s.Endpoints {
		if _, ok := s.Network(e.Network); ok {
			p.endpoints = append(p.endpoints, e)
		}
	}
	return p
}

// partOf is what differs. Where very much does it is everything, which the kernel then tells at once.
func partOf(c state.Change) part {
	if len(c.Networks)+len(c.Endpoints) > maxPart {
		return wholeOf(c.To)
	}
	var p part
	touched := map[state.NetworkID]bool{} // in which an endpoint differs, or all may
	moved := map[state.EndpointID]bool{}
	for id := range c.Endpoints {
		if sameLink(c, id) {
			continue
		}
		moved[id] = true
		for _, s := range []state.Snapshot{c.From, c.To} {
			if e, ok := s.Endpoint(id); ok {
				touched[e.Network] = true
				p.links = append(p.links, e.HostLink())
			}
		}
	}
	for id := range c.Networks {
		touched[id] = true
		if n, ok := c.From.Network(id); ok {
			p.links = append(p.links, n.Bridge)
		}
	}
	for id := range touched {
		if n, ok := c.To.Network(id); ok {
			p.networks = append(p.networks, n)
			if c.Networks[id] {
				p.made = append(p.made, n)
			}
			p.links = append(p.links, n.Bridge)
		}
	}
	for _, e := range c.To.Endpoints {
		if _, ok := c.To.Network(e.Network); ok && (moved[e.ID] || c.Networks[e.Network]) {
			p.endpoints = append(p.endpoints, e)
			p.links = append(p.links, e.HostLink())
		}
	}
	return p
}

// sameLink reports whether nothing of what differs in an endpoint concerns its link: its ports come and go, or its container
// joins, for which the link is there already. To ask the kernel for it all the same would wait for the engine, which holds
// the lock of all links while it moves one into a container.
func sameLink(c state.Change, id state.EndpointID) bool {
	from, before := c.From.Endpoint(id)
	to, after := c.To.Endpoint(id)
	if !before || !after || from.Joined() && !to.Joined() || from.Publishes() != to.Publishes() {
		return false
	}
	from.Ports, from.Sandbox = to.Ports, to.Sandbox
	from.WantsPorts = to.WantsPorts
	return from.Equal(to)
}

// maxPart is the number of objects up to which they are asked for one by one.
const maxPart = 50

// look returns the links of the part by name.
func (l *Links) look(p part) (inventory, error) {
	if p.whole {
		return l.inventory()
	}
	have := inventory{}
	for _, name := range p.links {
		if _, known := have[name]; known {
			continue
		}
		link, err := l.handle.LinkByName(name)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading link %s: %w", name, err)
		}
		have[name] = link
	}
	return have, nil
}

// intact reports whether the bridges that should be there are, as they should be. Where one was deleted, renamed or put into
// another group, of which no event may tell, more than what differs is to be done.
func (p part) intact(have inventory) bool {
	if p.whole {
		return true
	}
	for _, n := range p.networks {
		if slices.ContainsFunc(p.made, func(m state.Network) bool { return m.ID == n.ID }) {
			continue
		}
		link, ok := have[n.Bridge]
		if !ok || !carries(link, n) || link.Attrs().Group != n.Group() || link.Attrs().Flags&net.FlagUp == 0 {
			return false
		}
	}
	return true
}

// addressesOf returns the host's addresses by the index of their link, where one of the part's bridges is there already.
func (l *Links) addressesOf(p part, have inventory) (map[int][]netlink.Addr, error) {
	for _, n := range p.made {
		if _, ok := have[n.Bridge]; ok || p.whole {
			return l.addresses()
		}
	}
	return nil, nil
}
