package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Links edits the links of the network namespace in which it was made.
type Links struct {
	// RouteLocalnet lets packets of the host's loopback addresses be routed to bridges whose ports are all guarded. It is
	// for those who have a rule, too, that keeps containers from doing the same (firewall.Settings.Loopback).
	RouteLocalnet bool
	// KeepForwarding turns forwarding on again where it was on and a network needs it, whoever had turned it on (--ip-forward).
	KeepForwarding bool
	// Report is told, once for each reason, why there is a bridge to which they are not (see LeadsLoopback).
	Report func(reason string)
	// Mode says by which way clients from outside come to what is exposed (publish.Options.Mode), or came as long as some may still be
	// connected; nil is dnat.
	Mode func(state.Exposure) state.Publish
	// RoutingChanged, unless it is nil, is called when somebody may have changed a routing rule (see RoutedBySource).
	RoutingChanged func()
	// NoLinksV6 keeps linked containers apart in IPv6, where no rule says what may pass between them.
	NoLinksV6 bool

	handle  editor
	journal journal
	// wasOn4 and wasOn6 say that forwarding was seen on while a network needed it.
	wasOn4, wasOn6 bool
	// pace is how often containers had their link made again; used by passes alone.
	pace map[state.EndpointID]paced
	// locks says that the kernel knows locked bridge ports.
	locks bool
	ports map[int]*nl.SocketHandle // for what netlink.Handle cannot ask, see bridgePorts
	// scanner waits for no other call.
	scanner   scanner
	sysctl    Sysctl
	reaper    *reaper
	unguarded unguarded
	settled   *settled
	switches  switches
	diverted  diverted
	// classifier is the kind of the guards' filters.
	classifier string
	// inside is what passes have seen of the ends of joined endpoints in their containers.
	inside map[state.EndpointID]end
	// harmed says that Prepare found more to be done than what differs, which holds for Activate too.
	harmed bool
}

// New returns Links for the current network namespace. It keeps its netlink sockets: one
// that is closed after it deleted a link makes its closer wait for the kernel.
func New(sysctl Sysctl) (*Links, error) {
	h, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	ports, err := routeSocket()
	if err != nil {
		h.Close()
		return nil, err
	}
	s, err := newScanner()
	if err != nil {
		h.Close()
		ports[unix.NETLINK_ROUTE].Close()
		return nil, err
	}
	r, err := newReaper()
	if err != nil {
		h.Close()
		ports[unix.NETLINK_ROUTE].Close()
		s.close()
		return nil, err
	}
	l := &Links{
		ports: ports, scanner: s, sysctl: sysctl, reaper: r, classifier: bpfClassifier,
		settled: newSettled(),
	}
	l.handle = editor{h, &l.journal}
	return l, nil
}

func routeSocket() (map[int]*nl.SocketHandle, error) {
	socket, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	return map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}, nil
}

// Close deletes the links that are doomed and gives the netlink sockets back.
func (l *Links) Close() {
	l.reaper.close()
	l.handle.Close()
	l.ports[unix.NETLINK_ROUTE].Close()
	l.scanner.close()
}

// Prepare is the plane that makes links exist.
type Prepare struct{ *Links }

// Activate is the plane that puts them to work.
type Activate struct{ *Links }

// Prepare returns the plane to run before the firewall.
func (l *Links) Prepare() Prepare { return Prepare{l} }

// Activate returns the plane to run after the firewall.
func (l *Links) Activate() Activate { return Activate{l} }

// Apply removes links of ours that s does not have, then makes the ones it has. New
// bridges stay down.
func (p Prepare) Apply(_ context.Context, s state.Snapshot) error {
	p.journal.begin(false)
	return p.prepare(wholeOf(s), s)
}

// Follow does the same with the links of what differs.
func (p Prepare) Follow(_ context.Context, c state.Change) error {
	p.journal.begin(false)
	return p.prepare(partOf(c), c.To)
}

// Inspect tells how links differ from those of s.
func (p Prepare) Inspect(_ context.Context, s state.Snapshot) ([]state.Difference, error) {
	return p.inspect(func() error { return p.prepare(wholeOf(s), s) })
}

// Found tells what the last Apply or Follow mended.
func (p Prepare) Found() []state.Difference { return p.journal.found }

func (l *Links) prepare(p part, s state.Snapshot) error {
	have, err := l.look(p)
	if err != nil {
		return err
	}
	if !p.intact(have) {
		l.harmed = true // never of a look, which is at the whole
		return l.prepare(wholeOf(s), s)
	}
	errs := l.markBack(have, p)
	if p.whole {
		errs = append(errs, l.renameBack(have, s)...)
	}
	addrs, err := l.addressesOf(p, have)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, l.removeStale(have, s)...)
	for _, n := range p.made {
		l.journal.about = state.Scope{Network: n.ID}
		if err := l.ensureBridge(have, addrs, n); err != nil {
			errs = append(errs, &state.ObjectError{Network: n.ID, Err: err})
		}
	}
	for _, e := range p.endpoints {
		n, _ := s.Network(e.Network)
		l.journal.about = state.Scope{Network: n.ID, Endpoint: e.ID}
		if err := l.ensureVeth(have, n, e); err != nil {
			errs = append(errs, &state.ObjectError{Network: n.ID, Endpoint: e.ID, Err: err})
		}
	}
	errs = append(errs, l.rewire(have, p, s)...)
	return errors.Join(append(errs, l.guardPorts(have, p, s)...)...)
}

// Apply brings the links of s up and turns forwarding on where s says so.
func (p Activate) Apply(_ context.Context, s state.Snapshot) error {
	p.journal.goOn()
	return p.activate(wholeOf(s), s)
}

// Follow does the same with the links of what differs.
func (p Activate) Follow(_ context.Context, c state.Change) error {
	p.journal.goOn()
	if p.harmed {
		return p.activate(wholeOf(c.To), c.To)
	}
	return p.activate(partOf(c), c.To)
}

// Inspect tells how links that are there differ from those of s.
func (p Activate) Inspect(_ context.Context, s state.Snapshot) ([]state.Difference, error) {
	return p.inspect(func() error { return p.activate(wholeOf(s), s) })
}

// Found tells what the last Apply or Follow mended.
func (p Activate) Found() []state.Difference { return p.journal.found }

func (l *Links) activate(p part, s state.Snapshot) error {
	l.harmed = l.harmed && !p.whole
	if err := l.forward(s); err != nil {
		return err
	}
	diverted := l.divert(p, s)
	have, err := l.look(p)
	if err != nil {
		return err
	}
	ports, err := l.bridgePorts(p, have)
	if err != nil {
		return err
	}
	bound, err := l.readBindings(p.networks)
	if err != nil {
		return err
	}
	if p.whole && !l.journal.looking {
		l.settled.prune(have)
	}
	errs := []error{diverted}
	for _, n := range p.networks {
		l.journal.about = state.Scope{Network: n.ID}
		err := errors.Join(l.raiseBridge(have, n), l.bindNeighbours(have, bound, n, s.Endpoints), l.ensureProxies(have, n, s.Endpoints))
		if err != nil {
			errs = append(errs, &state.ObjectError{Network: n.ID, Err: err})
		}
	}
	for _, e := range p.endpoints {
		n, _ := s.Network(e.Network)
		l.journal.about = state.Scope{Network: n.ID, Endpoint: e.ID}
		if err := l.raiseVeth(have, ports, bound, n, e); err != nil {
			errs = append(errs, &state.ObjectError{Network: e.Network, Endpoint: e.ID, Err: err})
		}
	}
	return errors.Join(errs...)
}

// inventory is the host's links by name.
type inventory map[string]netlink.Link

func (l *Links) inventory() (inventory, error) {
	links, err := dumped(l.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the host's links: %w", err)
	}
	out := make(inventory, len(links))
	for _, link := range links {
		out[link.Attrs().Name] = link
	}
	return out, nil
}

// addresses is the host's addresses by the index of their link.
func (l *Links) addresses() (map[int][]netlink.Addr, error) {
	addrs, err := dumped(func() ([]netlink.Addr, error) { return l.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	out := map[int][]netlink.Addr{}
	for _, a := range addrs {
		out[a.LinkIndex] = append(out[a.LinkIndex], a)
	}
	return out, nil
}

// dumped repeats a dump that a concurrent change interrupted: the kernel then says that the
// result may lack entries.
func dumped[T any](list func() (T, error)) (T, error) {
	var out T
	err := uninterrupted(context.Background(), func() (err error) {
		out, err = list()
		return err
	})
	return out, err
}

// ours reports whether a link was made by Drawbridge.
func ours(link netlink.Link) bool {
	a := link.Attrs()
	grouped := a.Group&state.GroupBridgeMask == state.GroupBridge || a.Group == state.GroupPort
	return grouped && !adopted(link) && (a.Alias == "" || state.OurAlias(a.Alias)) || doomed(link)
}

// removeStale deletes links of ours that s lacks and forgets them in have, and gives back adopted bridges.
func (l *Links) removeStale(have inventory, s state.Snapshot) []error {
	bridges := map[string]state.Network{}
	for _, n := range s.Networks {
		bridges[n.Bridge] = n
	}
	veths := map[string]state.Endpoint{}
	for _, e := range s.Endpoints {
		veths[e.HostLink()] = e
	}
	var errs []error
	var stale []netlink.Link
	for name, link := range have {
		n, isBridge := bridges[name]
		e, isVeth := veths[name]
		switch {
		case !doomed(link) && (isBridge && carries(link, n) || isVeth && e.Carries(link.Attrs().Alias)):
		case adopted(link):
			errs = append(errs, l.releaseStale(link, s))
		case ours(link):
			// All before the first is removed: a bridge that is doomed may be deleted at once, and its ports lose it.
			l.letGo(link)
			stale = append(stale, link)
		}
	}
	again := false // a name in the group is to be used again at once
	for _, link := range stale {
		name := link.Attrs().Name
		l.journal.about = state.OwnerOf(link.Attrs().Alias)
		_, isBridge := bridges[name]
		_, isVeth := veths[name]
		remove, taken := l.doom, isBridge || isVeth
		if taken && link.Type() == "bridge" {
			remove = l.deleteBridge
		}
		if err := remove(link); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(have, name)
		again = again || taken
	}
	if again && !l.journal.looking {
		errs = append(errs, l.reaper.reapGroup())
	}
	return errs
}

// releaseStale gives an adopted bridge back, unless its network is still there: then its owner took the mark off or renamed it
// while containers are on it, and without our group they would be open to everybody.
func (l *Links) releaseStale(link netlink.Link, s state.Snapshot) error {
	name := link.Attrs().Name
	mark, marked := parseAdoption(link.Attrs().Alias)
	l.journal.about = state.Scope{Network: mark.network}
	for _, n := range s.Networks {
		switch {
		case !n.Adopted:
		case n.Bridge == name && !marked:
			return nil // ensureAdopted marks it again
		case marked && mark.network == n.ID:
			return &state.ObjectError{Network: n.ID, Err: fmt.Errorf("bridge %s was renamed to %s: rename it back, or remove the network", n.Bridge, name)}
		}
	}
	return l.release(link)
}

// Purge removes every link of ours, gives back adopted bridges, and returns the names of the bridges among them.
func (l *Links) Purge() ([]string, error) {
	have, err := l.inventory()
	if err != nil {
		return nil, err
	}
	var bridges []string
	for name, link := range have {
		if (ours(link) || adopted(link)) && link.Type() == "bridge" {
			bridges = append(bridges, name)
		}
	}
	err = errors.Join(errors.Join(l.removeStale(have, state.Snapshot{})...), l.reaper.reap())
	return bridges, errors.Join(err, l.divert(wholeOf(state.Snapshot{}), state.Snapshot{}))
}
