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
	tracked *conntrack
	queue   queue
}

// NewFlows returns Flows for the current network namespace. It calls failed with what goes wrong, which is tried again with
// whatever is asked next.
func NewFlows(failed func(error)) (*Flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for addresses: %w", err)
	}
	c, err := newConntrack()
	if err != nil {
		h.Close()
		return nil, err
	}
	f := &Flows{handle: h, tracked: c}
	f.queue = queue{do: f.end, failed: failed, delay: endDelay}
	return f, nil
}

// endDelay is how long endings are collected, unless somebody waits for them.
const endDelay = 50 * time.Millisecond

// Settle returns when all is done that was asked for before, or could not be done.
func (f *Flows) Settle(ctx context.Context) error { return f.queue.settle(ctx) }

// Close finishes what was asked for and gives the netlink sockets back.
func (f *Flows) Close() {
	_ = f.Settle(context.Background())
	f.handle.Close()
	f.tracked.close()
}

// Forget deletes every flow from or to one of the addresses, and what their packets wait for: those that were sent while
// nobody had the address would reach the next owner.
func (f *Flows) Forget(addrs []netip.Addr) {
	if len(addrs) > 0 {
		f.queue.add(ending{addrs: addrs, ends: func(c flow, _ map[netip.Addr]bool) bool {
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
		f.queue.add(ending{ends: func(c flow, _ map[netip.Addr]bool) bool {
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
	err = f.remove(func(c flow) bool {
		return slices.ContainsFunc(endings, func(e ending) bool { return e.ends(c, local) })
	})
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
		f.queue.add(ending{ends: func(c flow, local map[netip.Addr]bool) bool {
			direct := !local[c.sent.from.Addr()] && !neighbour(e, c.sent.from.Addr())
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

// ForgetPorts deletes the UDP and SCTP flows that were addressed to one of the ports while it led
// nowhere: DNAT decides once per flow, and a sender that never pauses keeps its flow for ever. TCP
// begins anew with each connection. What the host forwards to the same port of somebody else stays.
func (f *Flows) ForgetPorts(ports []state.Port) {
	ports = slices.DeleteFunc(state.Bound(ports), func(p state.Port) bool { return p.Proto == state.TCP })
	if len(ports) > 0 {
		f.queue.add(ending{ends: func(c flow, local map[netip.Addr]bool) bool {
			untranslated := c.answer.from.Addr() == c.sent.to.Addr()
			return untranslated && local[c.sent.to.Addr()] &&
				slices.ContainsFunc(ports, func(p state.Port) bool { return leads(p, c) })
		}})
	}
}

// ForgetOutwards deletes the flows from subnets to elsewhere that leave without translation, since they began while no rule said so, but
// not those of TCP, which begins anew. Elsewhere is what is neither in the subnets nor an address of the host.
func (f *Flows) ForgetOutwards(subnets []netip.Prefix) {
	if len(subnets) > 0 {
		within := func(a netip.Addr) bool {
			return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		f.queue.add(ending{ends: func(c flow, local map[netip.Addr]bool) bool {
			to := c.sent.to.Addr()
			untranslated := c.answer.to.Addr() == c.sent.from.Addr()
			return c.proto != state.TCP && untranslated && within(c.sent.from.Addr()) && !within(to) && !local[to] && !to.IsMulticast()
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

// local is the host's own addresses.
func (f *Flows) local() (map[netip.Addr]bool, error) {
	addrs, err := dumped(func() ([]netlink.Addr, error) { return f.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range addrs {
		out[prefixOf(a.IPNet).Addr()] = true
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
