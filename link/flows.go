package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Flows cuts connections that the kernel still tracks for what is gone. Without that, an
// established flow to a container's address would reach the next container that gets the
// address, and a UDP sender would keep missing a port published anew.
type Flows struct {
	handle *netlink.Handle
}

// NewFlows returns Flows for the current network namespace.
func NewFlows() (*Flows, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for conntrack: %w", err)
	}
	return &Flows{handle: h}, nil
}

// Close gives the netlink socket back.
func (f *Flows) Close() { f.handle.Close() }

// Forget deletes every flow from or to one of the addresses.
func (f *Flows) Forget(_ context.Context, addrs []netip.Addr) error {
	return f.remove(func(flow *netlink.ConntrackFlow) bool {
		for _, a := range addrs {
			if is(flow.Forward.SrcIP, a) || is(flow.Forward.DstIP, a) || is(flow.Reverse.SrcIP, a) || is(flow.Reverse.DstIP, a) {
				return true
			}
		}
		return false
	})
}

// ForgetPorts deletes the UDP flows that were addressed to one of the ports while it led
// nowhere: DNAT decides once per flow, and a sender that never pauses keeps its flow for ever.
func (f *Flows) ForgetPorts(_ context.Context, ports []state.Port) error {
	numbers := map[uint16]bool{}
	for _, p := range ports {
		if p.Proto == state.UDP {
			numbers[p.HostPort] = true
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	return f.remove(func(flow *netlink.ConntrackFlow) bool {
		untranslated := flow.Reverse.SrcIP.Equal(flow.Forward.DstIP)
		return state.Proto(flow.Forward.Protocol) == state.UDP && numbers[flow.Forward.DstPort] && untranslated
	})
}

type match func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (m match) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return m(flow) }

func (f *Flows) remove(m match) error {
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		_, err := f.handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, m)
		// A flow that ended by itself meanwhile is as good.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, netlink.ErrDumpInterrupted) {
			errs = append(errs, fmt.Errorf("forgetting tracked connections: %w", err))
		}
	}
	return errors.Join(errs...)
}

func is(ip []byte, a netip.Addr) bool {
	addr, ok := netip.AddrFromSlice(ip)
	return ok && addr.Unmap() == a
}
