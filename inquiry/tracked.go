package inquiry

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What connection tracking's netlink is asked with (linux/netfilter/nfnetlink_conntrack.h).
const (
	messageTracked = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	tupleOriginal  = 1
	tupleAddresses = 1
	tupleProtocol  = 2
	protocolNumber = 1
	protocolFrom   = 2
	protocolTo     = 3
	addressFrom4   = 1 // the destination is the next one
	addressFrom6   = 3
)

// isTracked reports whether a connection of the client's has the tuple: a packet of ours with it would be taken for a part of that. Who
// cannot tell says no.
func isTracked(conn *netlink.Conn, protocol byte, from, to netip.AddrPort) bool {
	m, err := tupleRequest(protocol, from, to)
	if err == nil {
		_, err = conn.Execute(m)
	}
	return err == nil
}

func tupleRequest(protocol byte, from, to netip.AddrPort) (netlink.Message, error) {
	family, first := byte(unix.AF_INET), uint16(addressFrom4)
	if from.Addr().Is6() {
		family, first = unix.AF_INET6, addressFrom6
	}
	var failed []error
	nested := func(kind uint16, of ...netlink.Attribute) netlink.Attribute {
		data, err := netlink.MarshalAttributes(of)
		failed = append(failed, err)
		return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: data}
	}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	tuple := nested(
		tupleOriginal,
		nested(tupleAddresses, netlink.Attribute{Type: first, Data: from.Addr().AsSlice()}, netlink.Attribute{Type: first + 1, Data: to.Addr().AsSlice()}),
		nested(
			tupleProtocol, netlink.Attribute{Type: protocolNumber, Data: []byte{protocol}},
			netlink.Attribute{Type: protocolFrom, Data: port(from.Port())}, netlink.Attribute{Type: protocolTo, Data: port(to.Port())},
		),
	)
	data, err := netlink.MarshalAttributes([]netlink.Attribute{tuple})
	return netlink.Message{
		Header: netlink.Header{Type: messageTracked, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append([]byte{family, 0, 0, 0}, data...),
	}, errors.Join(append(failed, err)...)
}
