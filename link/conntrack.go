package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// conntrack is the kernel's table of tracked connections. The netlink library has it too, but reads
// no port numbers of protocols other than TCP and UDP (v1.3.1, parseIpTuple).
type conntrack struct {
	sockets map[int]*nl.SocketHandle
}

// newConntrack opens the table of the current network namespace.
func newConntrack() (*conntrack, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER) // to no group: it is the library's way to open a socket
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for conntrack: %w", err)
	}
	return &conntrack{sockets: map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: s}}}, nil
}

func (c *conntrack) close() {
	for _, s := range c.sockets {
		s.Close()
	}
}

// flow is one tracked connection of either family.
type flow struct {
	proto  state.Proto
	sent   direction // as the opener addresses its packets
	answer direction // as the other side does; from is not sent.to where the destination was translated
	spoken bool      // the other side has answered
	raw    []byte    // the kernel's description, by which it finds the flow again
}

// direction has the ports 0 where the protocol has none.
type direction struct{ from, to netip.AddrPort }

// touches reports whether one of the flow's addresses matches.
func (f flow) touches(match func(netip.Addr) bool) bool {
	return match(f.sent.from.Addr()) || match(f.sent.to.Addr()) || match(f.answer.from.Addr()) || match(f.answer.to.Addr())
}

// list returns all flows. With netlink.ErrDumpInterrupted it returns those that it saw.
func (c *conntrack) list() ([]flow, error) {
	raw, err := c.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_UNSPEC, nil)
	flows := make([]flow, 0, len(raw))
	for _, message := range raw {
		if f, ok := parseFlow(message); ok {
			flows = append(flows, f)
		}
	}
	return flows, err
}

// remove deletes a flow, if it is there. One that a flowtable has taken over cannot be deleted before that lets go of it, which
// is when it has been idle (linux/net/netfilter/nf_conntrack_netlink.c, ctnetlink_del_conntrack).
func (c *conntrack) remove(f flow) error {
	family := uint8(unix.AF_INET)
	if f.sent.to.Addr().Is6() {
		family = unix.AF_INET6
	}
	err := effect.Do("conntrack.delete", func() error {
		_, err := c.request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, family, f.raw)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

func (c *conntrack) request(operation, flags int, family uint8, raw []byte) ([][]byte, error) {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	r.Sockets = c.sockets
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	r.AddRawData(raw)
	return r.Execute(unix.NETLINK_NETFILTER, 0)
}

// parseFlow reads a message of the kernel (linux/netfilter/nfnetlink_conntrack.h). It reports false
// for what it cannot make sense of.
func parseFlow(message []byte) (flow, bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return flow{}, false
	}
	f := flow{raw: message[nl.SizeofNfgenmsg:]}
	var ok1, ok2 bool
	f.proto, f.sent, ok1 = parseDirection(attribute(f.raw, nl.CTA_TUPLE_ORIG))
	_, f.answer, ok2 = parseDirection(attribute(f.raw, nl.CTA_TUPLE_REPLY))
	if status := attribute(f.raw, nl.CTA_STATUS); len(status) == 4 {
		f.spoken = binary.BigEndian.Uint32(status)&seenReply != 0
	}
	return f, ok1 && ok2
}

// seenReply is IPS_SEEN_REPLY of linux/netfilter/nf_conntrack_common.h.
const seenReply = 1 << 1

func parseDirection(tuple []byte) (state.Proto, direction, bool) {
	ip, proto := attribute(tuple, nl.CTA_TUPLE_IP), attribute(tuple, nl.CTA_TUPLE_PROTO)
	number := attribute(proto, nl.CTA_PROTO_NUM)
	from, ok1 := netip.AddrFromSlice(attribute(ip, nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC))
	to, ok2 := netip.AddrFromSlice(attribute(ip, nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST))
	if !ok1 || !ok2 || len(number) == 0 {
		return 0, direction{}, false
	}
	return state.Proto(number[0]), direction{
		netip.AddrPortFrom(from, portNumber(attribute(proto, nl.CTA_PROTO_SRC_PORT))),
		netip.AddrPortFrom(to, portNumber(attribute(proto, nl.CTA_PROTO_DST_PORT))),
	}, true
}

// attribute returns the value of the first netlink attribute of one of the kinds, nil if there is none. It
// allocates nothing: the table may have hundreds of thousands of flows.
func attribute(b []byte, kinds ...uint16) []byte {
	for len(b) >= unix.SizeofNlAttr {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		if slices.Contains(kinds, kind) {
			return b[unix.SizeofNlAttr:size]
		}
		b = b[min((size+3)&^3, len(b)):] // the next one is aligned to 4 bytes
	}
	return nil
}

// portNumber reads one in network byte order.
func portNumber(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
