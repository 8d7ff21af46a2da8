package link

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink"
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

// first returns the value of the first attribute of a kind in a list of them.
func first(list []byte, kind uint16) []byte {
	for k, value := range attributes(list, 0) {
		if k == kind {
			return value
		}
	}
	return nil
}

// text reads a name without its final zero.
func text(value []byte) string { return string(bytes.TrimRight(value, "\x00")) }

// number reads a value of four bytes, 0 if it is none.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return nl.NativeEndian().Uint32(value)
}

// hostAddr is an address of the host.
type hostAddr struct {
	link  int
	local netip.Addr
	// to is the address with the length of its subnet; at a point-to-point link it is the peer's.
	to netip.Prefix
}

// netlink returns the address as the library takes it.
func (a hostAddr) netlink() *netlink.Addr {
	if a.local == a.to.Addr() {
		return &netlink.Addr{IPNet: ipNet(a.to)}
	}
	return &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a.local, a.local.BitLen())), Peer: ipNet(a.to)}
}

// addresses calls f with the host's addresses of a family, or of both (AF_UNSPEC), and of a link, or of all (0).
func (s scanner) addresses(ctx context.Context, family, link int, f func(hostAddr)) error {
	header := nl.NewIfAddrmsg(family)
	header.Index = uint32(link)
	return s.scan(ctx, unix.RTM_GETADDR, unix.RTM_NEWADDR, header, func(m []byte) {
		if a, ok := readAddress(m); ok && (link == 0 || a.link == link) { // older kernels list all
			f(a)
		}
	})
}

func readAddress(m []byte) (hostAddr, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return hostAddr{}, false
	}
	head := nl.DeserializeIfAddrmsg(m)
	var local, to netip.Addr
	for kind, value := range attributes(m, unix.SizeofIfAddrmsg) {
		switch kind {
		case unix.IFA_ADDRESS:
			to, _ = netip.AddrFromSlice(value)
		case unix.IFA_LOCAL: // IPv6 has it at point-to-point links only
			local, _ = netip.AddrFromSlice(value)
		}
	}
	bits := int(head.Prefixlen)
	if !to.IsValid() {
		to = local
	}
	if !local.IsValid() {
		local = to
	}
	return hostAddr{int(head.Index), local, netip.PrefixFrom(to, bits)}, to.IsValid()
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
	err := s.scan(ctx, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, routeRequest{family, table}, func(m []byte) {
		if r, ok := readRoute(m, family); ok && (table == unix.RT_TABLE_UNSPEC || r.table == table) {
			f(r)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return nil // the table is not there yet
	}
	return err
}

// routeRequest asks for routes. A table's number may be larger than the header has room for.
type routeRequest struct {
	family int
	table  uint32
}

// Len implements nl.NetlinkRequestData.
func (r routeRequest) Len() int { return len(r.Serialize()) }

// Serialize implements nl.NetlinkRequestData.
func (r routeRequest) Serialize() []byte {
	header := nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(r.family)}}
	if r.table < 1<<8 {
		header.Table = uint8(r.table)
		return header.Serialize()
	}
	return append(header.Serialize(), nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(r.table)).Serialize()...)
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
			r.mtu = number(first(value, unix.RTAX_MTU))
		}
	}
	r.to = netip.PrefixFrom(to, int(head.Dst_len))
	return r, true
}

// links calls f with the links of a type. It fills in the index, name, alias and group, by which a link is known to be ours, and the id
// of the namespace that its other end is in, -1 for this one.
func (s scanner) links(ctx context.Context, kind string, f func(netlink.Link)) error {
	return s.scan(ctx, unix.RTM_GETLINK, unix.RTM_NEWLINK, linkRequest{kind}, func(m []byte) {
		if len(m) < unix.SizeofIfInfomsg {
			return
		}
		link := &netlink.GenericLink{}
		link.Index, link.NetNsID = int(nl.DeserializeIfInfomsg(m).Index), -1
		for attr, value := range attributes(m, unix.SizeofIfInfomsg) {
			switch attr {
			case unix.IFLA_IFNAME:
				link.Name = text(value)
			case unix.IFLA_IFALIAS:
				link.Alias = text(value)
			case unix.IFLA_GROUP:
				link.Group = number(value)
			case unix.IFLA_LINK_NETNSID:
				link.NetNsID = int(int32(number(value)))
			case unix.IFLA_LINKINFO:
				link.LinkType = text(first(value, nl.IFLA_INFO_KIND))
			}
		}
		if kind == "" || link.LinkType == kind {
			f(link)
		}
	})
}

// filterSkipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h (4.4), which the library lacks.
const filterSkipStats = 1 << 3

// linkRequest asks for links. Most of what the kernel says of one are its counters.
type linkRequest struct{ kind string }

// Len implements nl.NetlinkRequestData.
func (r linkRequest) Len() int { return len(r.Serialize()) }

// Serialize implements nl.NetlinkRequestData.
func (r linkRequest) Serialize() []byte {
	out := nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize()
	out = append(out, nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filterSkipStats)).Serialize()...)
	if r.kind == "" {
		return out
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.ZeroTerminated(r.kind))
	return append(out, info.Serialize()...)
}
