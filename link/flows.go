package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Flows cuts connections that the kernel still tracks for what is gone. Without that, an
// established flow to a container's address would reach the next container that gets the
// address, one through a closed port would go on, and a UDP sender would keep missing
// a port published anew.
type Flows struct {
	handle *netlink.Handle
}

// NewFlows returns Flows for the current network namespace.
func NewFlows() (*Flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for conntrack: %w", err)
	}
	return &Flows{handle: h}, nil
}

// Close gives the netlink sockets back.
func (f *Flows) Close() { f.handle.Close() }

// Forget deletes every flow from or to one of the addresses.
func (f *Flows) Forget(_ context.Context, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	return f.remove(func(flow *netlink.ConntrackFlow) bool {
		for _, a := range addrs {
			if is(flow.Forward.SrcIP, a) || is(flow.Forward.DstIP, a) || is(flow.Reverse.SrcIP, a) || is(flow.Reverse.DstIP, a) {
				return true
			}
		}
		return false
	})
}

// ForgetPublished deletes the flows that reached the endpoint by one of the ports, which are not
// published any more. The container's own connections stay, and so do those to its address
// that were not translated, unless that is how the port was published.
func (f *Flows) ForgetPublished(_ context.Context, e state.Endpoint, gone []state.Port) error {
	if len(gone) == 0 {
		return nil
	}
	return f.remove(func(flow *netlink.ConntrackFlow) bool {
		return slices.ContainsFunc(gone, func(p state.Port) bool { return cameBy(flow, e, p) })
	})
}

// cameBy reports whether a flow was translated from the host's side of p to the endpoint's.
func cameBy(flow *netlink.ConntrackFlow, e state.Endpoint, p state.Port) bool {
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if p.Routed() {
		target, published := p.Target(e, to.Unmap().Is6())
		return ok && published && state.Proto(flow.Forward.Protocol) == p.Proto &&
			target == netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort)
	}
	if to = to.Unmap(); !ok || state.Proto(flow.Forward.Protocol) != p.Proto || !leads(p, to, flow.Forward.DstPort) {
		return false
	}
	target, ok := p.Target(e, to.Is6())
	return ok && target.Addr() != to && is(flow.Reverse.SrcIP, target.Addr()) && flow.Reverse.SrcPort == target.Port()
}

// ForgetPorts deletes the UDP flows that were addressed to one of the ports while it led
// nowhere: DNAT decides once per flow, and a sender that never pauses keeps its flow for ever.
// What the host forwards to the same port of somebody else stays.
func (f *Flows) ForgetPorts(_ context.Context, ports []state.Port) error {
	var udp []state.Port
	for _, p := range ports {
		if p.Proto == state.UDP && !p.Routed() {
			udp = append(udp, p)
		}
	}
	if len(udp) == 0 {
		return nil
	}
	local, err := f.local()
	if err != nil {
		return err
	}
	return f.remove(func(flow *netlink.ConntrackFlow) bool {
		to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
		untranslated := flow.Reverse.SrcIP.Equal(flow.Forward.DstIP)
		return ok && untranslated && local[to.Unmap()] && state.Proto(flow.Forward.Protocol) == state.UDP &&
			slices.ContainsFunc(udp, func(p state.Port) bool { return leads(p, to.Unmap(), flow.Forward.DstPort) })
	})
}

// leads reports whether a published port serves packets to the given address and port.
func leads(p state.Port, to netip.Addr, port uint16) bool {
	if p.HostPort != port {
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

type match func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m match) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return m(flow) }

func (f *Flows) remove(m match) error {
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := dumped(func() (uint, error) {
			return f.handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, m)
		})
		// Where the table never holds still, what was seen of it has been done.
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			errs = append(errs, fmt.Errorf("forgetting tracked connections: %w", err))
		}
	}
	return errors.Join(errs...)
}

func is(ip []byte, a netip.Addr) bool {
	addr, ok := netip.AddrFromSlice(ip)
	return ok && addr.Unmap() == a
}
