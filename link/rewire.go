package link

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// A veth pair that somebody deleted leaves a container that runs without its link. The pair is made again, one end in the
// container, and what the engine had done there at Join is done again: see inside.go.
//
// The container's end is born in its namespace: it is at no moment on the host, where it would look like one that the engine has
// not taken yet, or has put back. The host's end gets its alias last. One without is unfinished, as after a crash; the next pass
// removes it and begins anew.

// rewire makes the pairs of the part's joined endpoints that lost theirs while their containers run.
func (l *Links) rewire(have inventory, p part, s state.Snapshot) []error {
	if p.whole {
		l.learn(have, s)
	}
	var lost []state.Endpoint
	for _, e := range p.endpoints {
		if _, ok := have[e.HostLink()]; !ok && e.Joined() {
			lost = append(lost, e)
		}
	}
	// Of a container that lost several, the one by which it went out gets the default route. Where that was not seen, it is the one
	// that publishes.
	slices.SortStableFunc(lost, func(a, b state.Endpoint) int { return cmp.Compare(len(b.Ports), len(a.Ports)) })
	var errs []error
	for _, e := range lost {
		n, _ := s.Network(e.Network)
		bridge, ok := have[n.Bridge]
		if !ok || !carries(bridge, n) {
			continue // the network's own failure has been reported
		}
		if !l.journal.looking && !l.mayRewire(e.ID, time.Now()) {
			continue // the pass due by time is soon enough for who deletes it again and again
		}
		l.journal.about = state.Scope{Network: n.ID, Endpoint: e.ID}
		link, err := l.rewireOne(bridge, n, e, s)
		if err != nil {
			errs = append(errs, &state.ObjectError{Network: n.ID, Endpoint: e.ID, Err: err})
		}
		if link != nil {
			have[e.HostLink()] = link
		}
	}
	return errs
}

// How often a container may have its link made again: some times at once, and then with pauses, so that one which deletes its own
// link keeps nobody busy but itself.
const (
	rewireBurst = 8
	firstRewire = time.Second
	lastRewire  = 30 * time.Second
)

// paced is how often in short succession, and when last, a container's link was made again, and how long the next time waits.
type paced struct {
	times int
	last  time.Time
	pause time.Duration
}

// mayRewire reports whether it is time for a container, and counts it in.
func (l *Links) mayRewire(id state.EndpointID, now time.Time) bool {
	p := l.pace[id]
	since := now.Sub(p.last)
	if since < p.pause {
		return false
	}
	if since > 2*lastRewire {
		p = paced{}
	}
	if p.times++; p.times >= rewireBurst {
		p.pause = min(max(2*p.pause, firstRewire), lastRewire)
	}
	if l.pace == nil {
		l.pace = map[state.EndpointID]paced{}
	}
	p.last = now
	l.pace[id] = p
	return true
}

// rewireOne returns the host's end of the new pair, nil where the container is gone, or must not be entered.
func (l *Links) rewireOne(bridge netlink.Link, n state.Network, e state.Endpoint, s state.Snapshot) (netlink.Link, error) {
	ns, ok := openNamespace(e.Sandbox)
	if !ok {
		return nil, nil
	}
	defer ns.Close()
	c, err := enter(ns, l.sysctl)
	if errors.Is(err, unix.EPERM) {
		if l.journal.looking {
			l.journal.note(e.HostLink(), "link %s of a running container is missing, and cannot be made again without CAP_SYS_ADMIN: restart the container", e.HostLink())
		}
		return nil, nil // status says what to do
	}
	if err != nil {
		return nil, fmt.Errorf("entering the container of endpoint %s: %w", e.ID.Short(), err)
	}
	defer c.close()
	taken, err := c.names()
	if err != nil {
		return nil, err
	}
	veth := newVeth(bridge, n, e)
	veth.PeerName, veth.PeerNamespace = l.nameInside(taken, n, e, s), netlink.NsFd(ns)
	l.journal.paced = true // the note of this
	err = l.handle.LinkAdd(veth)
	l.journal.paced = false
	if err != nil {
		return nil, fmt.Errorf("creating the veth pair %s of a running container: %w", e.HostLink(), err)
	}
	link, err := l.finish(c, veth.PeerName, n, e)
	if err == nil {
		return link, nil
	}
	if gone(err) {
		err = nil // an engine that is stopping the container took it
	}
	if failed := l.handle.LinkDel(veth); failed != nil && !gone(failed) {
		err = errors.Join(err, failed)
	}
	return nil, err
}

// finish does what is left after the pair is made.
func (l *Links) finish(c *container, name string, n state.Network, e state.Endpoint) (netlink.Link, error) {
	if err := l.silence(e); err != nil {
		return nil, err
	}
	if err := c.configure(name, n, e, l.inside[e.ID].way); err != nil {
		return nil, fmt.Errorf("link %s in the container of endpoint %s: %w", name, e.ID.Short(), err)
	}
	return l.named(e.HostLink(), e.Alias())
}

// nameInside is what the container's end is to be called: as before, since the engine takes it out by that name, or, where no pass
// has seen it, the first name that is free.
func (l *Links) nameInside(taken map[string]bool, n state.Network, e state.Endpoint, s state.Snapshot) string {
	if name := l.inside[e.ID].name; name != "" && !taken[name] {
		return name
	}
	for _, sibling := range s.Endpoints {
		if sibling.Sandbox == e.Sandbox {
			taken[l.inside[sibling.ID].name] = true
		}
	}
	for i := 0; ; i++ {
		if name := e.PrefixIn(n) + strconv.Itoa(i); !taken[name] {
			return name
		}
	}
}

// learn remembers what the ends in containers are called, and by which the containers go out.
func (l *Links) learn(have inventory, s state.Snapshot) {
	ends := make(map[state.EndpointID]end, len(l.inside))
	together := map[string][]state.Endpoint{} // by container
	for _, e := range s.Endpoints {
		if !e.Joined() {
			continue
		}
		together[e.Sandbox] = append(together[e.Sandbox], e)
		known := l.inside[e.ID]
		if link, ok := have[e.HostLink()]; ok && known.name == "" && e.Carries(link.Attrs().Alias) {
			n, _ := s.Network(e.Network)
			known.name = l.peerName(link, n, e)
		}
		if known != (end{}) {
			ends[e.ID] = known
		}
	}
	l.inside = ends
	if !l.journal.looking {
		for _, es := range together {
			l.learnWays(have, es)
		}
	}
	maps.DeleteFunc(l.pace, func(id state.EndpointID, _ paced) bool {
		_, ok := s.Endpoint(id)
		return !ok
	})
}

// learnWays asks a container that has several links by which it goes out: its engine, which decides it and may come to decide
// otherwise, does not say. While one is lost there is nothing to learn. Where it cannot be asked it stays unknown.
func (l *Links) learnWays(have inventory, es []state.Endpoint) {
	if len(es) < 2 {
		return
	}
	for _, e := range es {
		if _, ok := have[e.HostLink()]; !ok || l.inside[e.ID].name == "" {
			return
		}
	}
	ns, ok := openNamespace(es[0].Sandbox)
	if !ok {
		return
	}
	defer ns.Close()
	c, err := enter(ns, l.sysctl)
	if err != nil {
		return
	}
	defer c.close()
	outs := c.ways()
	for _, e := range es {
		known := l.inside[e.ID]
		known.way = way{true, outs[true] == known.name, outs[false] == known.name}
		l.inside[e.ID] = known
	}
}

// peerName asks the kernel, which takes no entering, for the name of the container's end. It is empty while the engine has not
// given it one.
func (l *Links) peerName(link netlink.Link, n state.Network, e state.Endpoint) string {
	a := link.Attrs()
	if a.NetNsID < 0 {
		return "" // it is on the host
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = l.ports
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(a.ParentIndex)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(a.NetNsID))))
	answer, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(answer) != 1 || len(answer[0]) < unix.SizeofIfInfomsg {
		return "" // it has gone
	}
	attributes := answer[0][unix.SizeofIfInfomsg:]
	name := text(first(attributes, unix.IFLA_IFNAME))
	number, ok := strings.CutPrefix(name, e.PrefixIn(n))
	if _, err := strconv.ParseUint(number, 10, 16); !ok || err != nil || !slices.Equal(first(attributes, unix.IFLA_ADDRESS), e.MAC[:]) {
		return ""
	}
	return name
}
