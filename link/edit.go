package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// journal notes how the host differs from the state while a pass goes over it. What differs is mended or, where the journal
// is only looking, left as it is.
type journal struct {
	looking bool
	about   state.Scope     // the object that the pass is at
	made    map[string]bool // links that were missing: whatever else they lack says nothing
	found   []state.Difference
	paced   bool // what is noted waits by itself for the next time
}

// maxFound bounds what a host that lost everything can make of a log line.
const maxFound = 1000

// errMissing ends the look at an object that is not there.
var errMissing = errors.New("it is not there")

// begin empties the journal for a pass.
func (j *journal) begin(looking bool) {
	*j = journal{looking: looking, made: map[string]bool{}}
}

// goOn empties the journal for the second half of a pass, in which links that the first half made are not finished yet.
func (j *journal) goOn() { *j = journal{looking: j.looking, made: j.made} }

// note writes down what of a link differs.
func (j *journal) note(link, format string, args ...any) {
	j.add(link, false, fmt.Sprintf(format, args...))
}

// noteOpen is note for what leaves something open that is to be closed.
func (j *journal) noteOpen(link, format string, args ...any) {
	j.add(link, true, fmt.Sprintf(format, args...))
}

func (j *journal) add(link string, opens bool, text string) {
	if !j.made[link] && len(j.found) < maxFound {
		j.found = append(j.found, state.Difference{Scope: j.about, Text: text, Paced: j.paced, Opens: opens})
	}
}

// change carries out an effect.
func (j *journal) change(name string, act func() error) error {
	if j.looking {
		return nil
	}
	return effect.Do(name, act)
}

// create carries out an effect that makes a link. What there is to be done with the link cannot be looked at without it.
func (j *journal) create(name, link string, act func() error) error {
	j.note(link, "link %s is missing", link)
	if j.made == nil {
		j.made = map[string]bool{}
	}
	j.made[link] = true
	if j.looking {
		return errMissing
	}
	return effect.Do(name, act)
}

// inspect has work look at the host and change nothing, and returns what it found and what failed.
func (l *Links) inspect(work func() error) ([]state.Difference, error) {
	l.journal.begin(true)
	err := work()
	found := l.journal.found
	l.journal.begin(false)
	return found, failures(err)
}

// failures leaves out what only says that there was nothing to look at.
func failures(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if errors.Is(err, errMissing) {
			return nil
		}
		return err
	}
	var left []error
	for _, err := range joined.Unwrap() {
		left = append(left, failures(err))
	}
	return errors.Join(left...)
}

// editor is a netlink handle whose changes are effects and stand in the journal.
type editor struct {
	*netlink.Handle
	journal *journal
}

func (e editor) LinkAdd(link netlink.Link) error {
	return e.journal.create("link.add", link.Attrs().Name, func() error { return e.Handle.LinkAdd(link) })
}

// LinkDel is noted by those who know why.
func (e editor) LinkDel(link netlink.Link) error {
	return e.journal.change("link.delete", func() error { return e.Handle.LinkDel(link) })
}

// LinkSetUp brings the link up.
func (e editor) LinkSetUp(link netlink.Link) error {
	e.journal.note(link.Attrs().Name, "link %s is down", link.Attrs().Name)
	return e.journal.change("link.up", func() error { return e.Handle.LinkSetUp(link) })
}

// LinkSetDown is part of something else.
func (e editor) LinkSetDown(link netlink.Link) error {
	return e.journal.change("link.down", func() error { return e.Handle.LinkSetDown(link) })
}

// LinkSetName renames the link, which has to be down where the kernel is older than 6.2.
func (e editor) LinkSetName(link netlink.Link, name string) error {
	e.journal.note(name, "link %s is named %s", name, link.Attrs().Name)
	return e.journal.change("link.name", func() error { return e.Handle.LinkSetName(link, name) })
}

// LinkSetAlias sets the mark by which a link is known.
func (e editor) LinkSetAlias(link netlink.Link, alias string) error {
	name := link.Attrs().Name
	e.journal.note(name, "link %s has the alias %q and not %q", name, link.Attrs().Alias, alias)
	return e.journal.change("link.alias", func() error { return e.Handle.LinkSetAlias(link, alias) })
}

// LinkSetGroup sets the device group.
func (e editor) LinkSetGroup(link netlink.Link, group int) error {
	name := link.Attrs().Name
	e.journal.noteOpen(name, "link %s is in device group %#x and not in %#x", name, link.Attrs().Group, group)
	return e.journal.change("link.group", func() error { return e.Handle.LinkSetGroup(link, group) })
}

// LinkSetMTU sets the MTU in bytes.
func (e editor) LinkSetMTU(link netlink.Link, mtu int) error {
	name := link.Attrs().Name
	e.journal.note(name, "link %s has the MTU %d and not %d", name, link.Attrs().MTU, mtu)
	return e.journal.change("link.mtu", func() error { return e.Handle.LinkSetMTU(link, mtu) })
}

// LinkSetMaster makes the link a port of a bridge.
func (e editor) LinkSetMaster(link, master netlink.Link) error {
	name := link.Attrs().Name
	e.journal.note(name, "link %s is no port of bridge %s", name, master.Attrs().Name)
	return e.journal.change("link.master", func() error { return e.Handle.LinkSetMaster(link, master) })
}

// LinkSetIsolated sets whether the bridge port is isolated from others that are.
func (e editor) LinkSetIsolated(link netlink.Link, on bool) error {
	name := link.Attrs().Name
	e.journal.noteOpen(name, "bridge port %s is%s isolated", name, not(on))
	return e.journal.change("port.isolate", func() error { return e.Handle.LinkSetIsolated(link, on) })
}

// LinkSetHairpin sets whether frames may go back where they came from.
func (e editor) LinkSetHairpin(link netlink.Link, on bool) error {
	name := link.Attrs().Name
	e.journal.note(name, "bridge port %s is%s in hairpin mode", name, not(on))
	return e.journal.change("port.hairpin", func() error { return e.Handle.LinkSetHairpin(link, on) })
}

// not is the word for what a setting was before it is on or off.
func not(on bool) string {
	if on {
		return " not"
	}
	return ""
}

// AddrAdd gives the link an address.
func (e editor) AddrAdd(link netlink.Link, addr *netlink.Addr) error {
	name := link.Attrs().Name
	e.journal.note(name, "link %s lacks the address %s", name, addr.IPNet)
	return e.journal.change("address.add", func() error { return e.Handle.AddrAdd(link, addr) })
}

// AddrDel is noted by those who know why.
func (e editor) AddrDel(link netlink.Link, addr *netlink.Addr) error {
	return e.journal.change("address.delete", func() error { return e.Handle.AddrDel(link, addr) })
}

// RouteAdd is noted by those who know why.
func (e editor) RouteAdd(route *netlink.Route) error {
	return e.journal.change("route.add", func() error { return e.Handle.RouteAdd(route) })
}

// RouteDel is noted by those who know why.
func (e editor) RouteDel(route *netlink.Route) error {
	return e.journal.change("route.delete", func() error { return e.Handle.RouteDel(route) })
}

// RuleAdd is noted by those who know why.
func (e editor) RuleAdd(rule *netlink.Rule) error {
	return e.journal.change("rule.add", func() error { return e.Handle.RuleAdd(rule) })
}

// RuleDel is noted by those who know why.
func (e editor) RuleDel(rule *netlink.Rule) error {
	return e.journal.change("rule.delete", func() error { return e.Handle.RuleDel(rule) })
}

// NeighAdd is noted by those who know why.
func (e editor) NeighAdd(n *netlink.Neigh) error {
	return e.journal.change("neighbour.add", func() error { return e.Handle.NeighAdd(n) })
}

// NeighSet is noted by those who know why.
func (e editor) NeighSet(n *netlink.Neigh) error {
	return e.journal.change("neighbour.set", func() error { return e.Handle.NeighSet(n) })
}

// NeighDel is noted by those who know why.
func (e editor) NeighDel(n *netlink.Neigh) error {
	return e.journal.change("neighbour.delete", func() error { return e.Handle.NeighDel(n) })
}

// execute sends a request that changes something.
func (j *journal) execute(name string, req *nl.NetlinkRequest) error {
	return j.change(name, func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// set writes a sysctl that differs, which is one of the link's or, where that is "", of the host's.
func (l *Links) set(link, key, value string) error {
	l.switches.mu.Lock()
	defer l.switches.mu.Unlock()
	err := l.journal.set(l.sysctl, link, key, value)
	if err == nil && !l.journal.looking {
		l.switches.keep(key, value)
	}
	return err
}

// giveBack writes a sysctl that is to be as it was without us, and is nobody's to keep from then on.
func (l *Links) giveBack(link, key, value string) error {
	l.switches.mu.Lock()
	defer l.switches.mu.Unlock()
	err := l.journal.set(l.sysctl, link, key, value)
	if !l.journal.looking {
		l.switches.drop(key)
	}
	return err
}

func (j *journal) set(s Sysctl, link, key, value string) error {
	current, differs, err := s.differs(key, value)
	if err != nil || !differs {
		return err
	}
	j.note(link, "sysctl %s is %s and not %s", dotted(key), current, value)
	return j.change("sysctl", func() error { return s.write(key, value) })
}
