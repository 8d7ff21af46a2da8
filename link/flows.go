package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Flows cuts connections that the kernel still tracks for what is gone. Without that, an
// established flow to a container's address would reach the next container that gets the
// address, one through a closed port would go on, and a sender of UDP or SCTP would keep missing
// a port published anew.
//
// To find the flows of one container the kernel looks at its whole table, 9 ms where this has room for 262,144. So the methods
// do not wait for that: what they ask for is done a moment later, with one look for all that was asked meanwhile.
type Flows struct {
	handle  *netlink.Handle
	scanner scanner
	tracked *conntrack
	queue   queue
}

// NewFlows returns Flows for the current network namespace. It calls failed with what goes wrong, which is tried again with
// whatever is asked next.
func NewFlows(failed func(error)) (*Flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for neighbours: %w", err)
	}
	s, err := newScanner()
	if err != nil {
		h.Close()
		return nil, err
	}
	c, err := newConntrack()
	if err != nil {
		h.Close()
		s.close()
		return nil, err
	}
	f := &Flows{handle: h, scanner: s, tracked: c}
	f.queue = queue{do: f.end, failed: failed, delay: endDelay}
	return f, nil
}

// endDelay is how long endings are collected, unless somebody waits for them.
const endDelay = 50 * time.Millisecond

// againDelay is longer than an answer is under way on a host that is busy, and looks is how often there may have been one.
const (
	againDelay = time.Second
	looks      = 3
)

// Settle returns when all is done that was asked for before, or could not be done.
func (f *Flows) Settle(ctx context.Context) error { return f.queue.settle(ctx) }

// Close finishes what was asked for and gives the netlink sockets back.
func (f *Flows) Close() {
	f.queue.close()
	_ = f.Settle(context.Background())
	f.handle.Close()
	f.scanner.close()
	f.tracked.close()
}

// Forget deletes every flow from or to one of the addresses, and what their packets wait for: those that were sent while
// nobody had the address would reach the next owner.
func (f *Flows) Forget(addrs []netip.Addr) {
	if len(addrs) > 0 {
		f.queue.add(ending{addrs: addrs, ends: func(c flow, _ own) bool {
			return c.touches(func(a netip.Addr) bool { return slices.Contains(addrs, a) })
		}})
	}
}

// ForgetOthers deletes the flows from and to addresses within the subnets that nobody has. It is for a daemon that begins:
// one that was killed may have left some.
func (f *Flows) ForgetOthers(subnets []netip.Prefix, owned []netip.Addr) {
	owners := map[netip.Addr]bool{}
	for _, a := range owned {
		owners[a] = true
	}
	if len(subnets) > 0 {
		f.queue.add(ending{ends: func(c flow, _ own) bool {
			return c.touches(func(a netip.Addr) bool {
				return !owners[a] && slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
			})
		}})
	}
}

// end carries out what was asked for, with one look at the table.
func (f *Flows) end(endings []ending) error {
	local, err := f.local()
	if err != nil {
		return err
	}
	met := map[int]bool{} // endings that another look is worth
	err = f.remove(func(c flow) bool {
		i := slices.IndexFunc(endings, func(e ending) bool { return e.ends(c, local) })
		if i >= 0 && endings[i].again > 0 {
			met[i] = true
		}
		return i >= 0
	})
	for i := range met {
		e := endings[i]
		e.again--
		time.AfterFunc(againDelay, func() { f.queue.add(e) })
	}
	var addrs []netip.Addr
	for _, e := range endings {
		addrs = append(addrs, e.addrs...)
	}
	if len(addrs) > 0 {
		err = errors.Join(err, f.forgetNeighbours(addrs))
	}
	return err
}

// forgetNeighbours deletes the neighbours with one of the addresses, with their queues of packets (linux/net/core/neighbour.c,
// neigh_invalidate). Those that are tied to a MAC address (bindNeighbours) have none.
func (f *Flows) forgetNeighbours(addrs []netip.Addr) error {
	list, err := dumped(func() ([]netlink.Neigh, error) { return f.handle.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("listing the neighbours: %w", err)
	}
	var errs []error
	for _, n := range list {
		addr, _ := netip.AddrFromSlice(n.IP)
		if n.State&netlink.NUD_PERMANENT != 0 || !slices.Contains(addrs, addr.Unmap()) {
			continue
		}
		n := netlink.Neigh{LinkIndex: n.LinkIndex, Family: n.Family, IP: n.IP}
		if err := f.handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) && !gone(err) {
			errs = append(errs, fmt.Errorf("forgetting neighbour %s: %w", addr, err))
		}
	}
	return errors.Join(errs...)
}

// ForgetPublished deletes the flows that reached the endpoint by one of the ports, which are not
// published any more. The container's own connections stay, and so do the host's and its neighbours' to its address.
// What came to its address from elsewhere goes: a trusted link, or a routed network, was the way.
func (f *Flows) ForgetPublished(e state.Endpoint, gone []state.Port) {
	if len(gone) > 0 {
		f.queue.add(ending{ends: func(c flow, local own) bool {
			direct := !local.has(c.sent.from.Addr()) && !neighbour(e, c.sent.from.Addr())
			return slices.ContainsFunc(gone, func(p state.Port) bool { return cameBy(c, e, p) || direct && went(c, e, p) })
		}})
	}
}

// neighbour reports whether the address is in one of the endpoint's own subnets.
func neighbour(e state.Endpoint, a netip.Addr) bool {
	return e.Addr4.IsValid() && e.Addr4.Contains(a) || e.Addr6.IsValid() && e.Addr6.Contains(a)
}

// went reports whether a flow went to the endpoint's side of p without translation.
func went(c flow, e state.Endpoint, p state.Port) bool {
	target, ok := p.Target(e, c.sent.to.Addr().Is6())
	return ok && c.proto == p.Proto && c.sent.to == target
}

// cameBy reports whether a flow was translated from the host's side of p to the endpoint's.
func cameBy(c flow, e state.Endpoint, p state.Port) bool {
	if p.Routed() {
		return went(c, e, p)
	}
	if !leads(p, c) {
		return false
	}
	target, ok := p.Target(e, c.sent.to.Addr().Is6())
	return ok && target.Addr() != c.sent.to.Addr() && target == c.answer.from
}

// ForgetPorts deletes the flows that were addressed to one of the ports while it led nowhere: DNAT decides once per flow, and a sender that
// never pauses keeps its flow for ever. Of TCP those go that nobody has answered: a client that repeats its SYN, for minutes, is translated
// from then on. Of UDP a flow may have begun with an answer of the port's socket, and begins so again if one was under way just now: so there
// is a look again where one was met. What the host forwards to the same port of somebody else
// stays.
func (f *Flows) ForgetPorts(ports []state.Port) {
	if ports = state.Bound(ports); len(ports) > 0 {
		misses := func(c flow, local own) bool {
			untranslated := c.answer.from.Addr() == c.sent.to.Addr()
			return c.stuck(local) && untranslated && local.has(c.sent.to.Addr()) &&
				slices.ContainsFunc(ports, func(p state.Port) bool { return leads(p, c) })
		}
		f.queue.add(ending{again: looks, ends: func(c flow, local own) bool {
			return misses(c, local) || c.proto == state.UDP && misses(c.reversed(), local)
		}})
	}
}

// reversed is the flow as if the other side had begun it.
func (f flow) reversed() flow {
	f.sent, f.answer = f.answer, f.sent
	return f
}

// stuck reports whether a flow goes on as it began: of TCP one that waits for its first answer, and not of the host with itself, where an
// answer is a matter of moments.
func (f flow) stuck(local own) bool {
	return f.proto != state.TCP || !f.spoken && !local.has(f.sent.from.Addr())
}

// ForgetShown deletes the flows of UDP to ports of containers in which the host speaks as its client. A client who is translated from then
// on would come to the container from another port beside them, since the kernel keeps no two flows with the same answers.
func (f *Flows) ForgetShown(targets []netip.AddrPort) {
	if len(targets) > 0 {
		to := map[netip.AddrPort]bool{}
		for _, t := range targets {
			to[t] = true
		}
		f.queue.add(ending{ends: func(c flow, local own) bool {
			return c.proto == state.UDP && to[c.sent.to] && c.answer == direction{c.sent.to, c.sent.from} && !local.has(c.sent.from.Addr())
		}})
	}
}

// ForgetOutwards deletes the flows from subnets to elsewhere that leave without translation, since they began while no rule said so, of
// TCP those that nobody has answered. Elsewhere is what is neither in the subnets nor an address of the host.
func (f *Flows) ForgetOutwards(subnets []netip.Prefix) {
	if len(subnets) > 0 {
		within := func(a netip.Addr) bool {
			return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		f.queue.add(ending{ends: func(c flow, local own) bool {
			to := c.sent.to.Addr()
			untranslated := c.answer.to.Addr() == c.sent.from.Addr()
			return c.stuck(local) && untranslated && within(c.sent.from.Addr()) && !within(to) && !local.has(to) && !to.IsMulticast()
		}})
	}
}

// leads reports whether a published port serves what the flow's opener sends.
func leads(p state.Port, c flow) bool {
	to := c.sent.to.Addr()
	if p.Proto != c.proto || p.HostPort != c.sent.to.Port() {
		return false
	}
	return !p.HostIP.IsValid() || p.HostIP == to || p.HostIP.IsUnspecified() && p.HostIP.Is4() == to.Is4()
}

// own is which addresses are the host's own.
type own struct {
	addrs map[netip.Addr]bool
	// prefixes are what routes make the host's as a whole, as 127.0.0.0/8.
	prefixes []netip.Prefix
}

func (o own) has(a netip.Addr) bool {
	return o.addrs[a] || slices.ContainsFunc(o.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// local is what links have, and what is the host's by a route alone (ip route add local …), which rules take for its own as well.
// The addresses of a link in a VRF are in a table of that, and other tables are for what some mark or rule leads there.
func (f *Flows) local() (own, error) {
	ctx := context.Background()
	out := own{addrs: map[netip.Addr]bool{}}
	if err := f.scanner.addresses(ctx, unix.AF_UNSPEC, 0, func(a hostAddr) { out.addrs[a.local] = true }); err != nil {
		return own{}, fmt.Errorf("listing the host's addresses: %w", err)
	}
	for _, v6 := range []bool{false, true} {
		family, name := familyIn(v6)
		err := f.scanner.routes(ctx, family, unix.RT_TABLE_LOCAL, func(r route) {
			switch {
			case r.kind != unix.RTN_LOCAL:
			case r.to.IsSingleIP():
				out.addrs[r.to.Addr()] = true
			default:
				out.prefixes = append(out.prefixes, r.to)
			}
		})
		if err != nil {
			return own{}, fmt.Errorf("listing the host's %s routes: %w", name, err)
		}
	}
	return out, nil
}

// remove deletes the flows that match.
func (f *Flows) remove(match func(flow) bool) error {
	flows, err := dumped(f.tracked.list)
	// Where the table never holds still, what was seen of it is done.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing tracked connections: %w", err)
	}
	var errs []error
	for _, c := range flows {
		if match(c) {
			errs = append(errs, f.tracked.remove(c))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("forgetting tracked connections: %w", err)
	}
	return nil
}
