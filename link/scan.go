package link

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The library makes a large value of each route, address and link that it lists. Where there are hundreds of bridges and only
// a few of these are looked for, that takes several times as long as the kernel does.

// scanner goes through what the kernel lists, by a socket of its own on which the kernel lists no more than was asked for.
type scanner struct{ sockets map[int]*nl.SocketHandle }

func newScanner() (scanner, error) {
	sockets, err := routeSocket()
	if err != nil {
		return scanner{}, err
	}
	// Kernels before 4.20 cannot, and list all.
	_ = unix.SetsockoptInt(sockets[unix.NETLINK_ROUTE].Socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return scanner{sockets}, nil
}

func (s scanner) close() { s.sockets[unix.NETLINK_ROUTE].Close() }

// scan calls f with each message that answers a request for all. f must keep nothing of it.
func (s scanner) scan(ctx context.Context, ask, answer uint16, header nl.NetlinkRequestData, f func(message []byte)) error {
	return uninterrupted(ctx, func() error {
		req := nl.NewNetlinkRequest(int(ask), unix.NLM_F_DUMP)
		req.Sockets = s.sockets
		req.AddData(header)
		return req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
			f(m)
			return true
		})
	})
}

// attributes goes through the attributes of a message, which begin behind its header.
func attributes(message []byte, header int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		rest := message[min(header, len(message)):]
		for len(rest) >= unix.SizeofRtAttr {
			length := int(nl.NativeEndian().Uint16(rest))
			if length < unix.SizeofRtAttr || length > len(rest) {
				return
			}
			kind := nl.NativeEndian().Uint16(rest[2:]) & nl.NLA_TYPE_MASK
			if !yield(kind, rest[unix.SizeofRtAttr:length]) {
				return
			}
			rest = rest[min((length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(rest)):]
		}
	}
}

// number reads a value of four bytes, 0 if it is none.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(value)
}

// addresses calls f with what is behind each address of the host in a family, or in both (AF_UNSPEC): its prefix, and at a
// point-to-point link the peer's, which has the length, beside the address itself.
func (s scanner) addresses(ctx context.Context, family int, f func(link int, p netip.Prefix)) error {
	return s.scan(ctx, unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfAddrmsg(family), func(m []byte) {
		if len(m) < unix.SizeofIfAddrmsg {
			return
		}
		head := nl.DeserializeIfAddrmsg(m)
		var local, peer netip.Addr
		for kind, value := range attributes(m, unix.SizeofIfAddrmsg) {
			switch kind {
			case unix.IFA_ADDRESS:
				peer, _ = netip.AddrFromSlice(value)
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(value)
			}
		}
		if peer.IsValid() {
			f(int(head.Index), netip.PrefixFrom(peer, int(head.Prefixlen)))
		}
		if local.IsValid() && local != peer {
			f(int(head.Index), netip.PrefixFrom(local, local.BitLen()))
		}
	})
}

// route is what matters of a route.
type route struct {
	to       netip.Prefix // 0.0.0.0/0 or ::/0 for a default route
	kind     uint8        // RTN_UNICAST …
	protocol uint8        // RTPROT_RA …
	table    uint32
	link     int // 0 for none; of several, the first
	priority uint32
	mtu      uint32 // 0 for the link's
}

// routes calls f with the routes of a family in one table, or in all (RT_TABLE_UNSPEC).
func (s scanner) routes(ctx context.Context, family int, table uint32, f func(route)) error {
	header := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family), Table: uint8(table)}}
	err := s.scan(ctx, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header, func(m []byte) {
		if r, ok := readRoute(m, family); ok && (table == unix.RT_TABLE_UNSPEC || r.table == table) {
			f(r)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is not there yet
	}
	return err
}

// readRoute leaves out what is no route of the family: those of multicast, and those that are cached.
func readRoute(m []byte, family int) (route, bool) {
	if len(m) < unix.SizeofRtMsg {
		return route{}, false
	}
	head := nl.DeserializeRtMsg(m)
	if int(head.Family) != family || head.Flags&unix.RTM_F_CLONED != 0 {
		return route{}, false
	}
	r := route{kind: head.Type, protocol: head.Protocol, table: uint32(head.Table)}
	to := netip.IPv4Unspecified()
	if family == unix.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	for kind, value := range attributes(m, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_TABLE:
			r.table = number(value)
		case unix.RTA_DST:
			to, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			r.link = int(number(value))
		case unix.RTA_MULTIPATH:
			if len(value) >= unix.SizeofRtNexthop {
				r.link = int(nl.DeserializeRtNexthop(value).Ifindex)
			}
		case unix.RTA_PRIORITY:
			r.priority = number(value)
		case unix.RTA_METRICS:
			r.mtu = mtuIn(value)
		}
	}
	r.to = netip.PrefixFrom(to, int(head.Dst_len))
	return r, true
}

func mtuIn(metrics []byte) uint32 {
	for kind, value := range attributes(metrics, 0) {
		if kind == unix.RTAX_MTU {
			return number(value)
		}
	}
	return 0
}
