package inquiry

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// What NFLOG's netlink is spoken with (linux/netfilter/nfnetlink_log.h).
const (
	messagePacket = unix.NFNL_SUBSYS_ULOG << 8
	messageConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand   = 1
	configMode      = 2
	configThreshold = 5
	commandBind     = 1
	copyPacket      = 2

	packetMarked  = 2
	packetPayload = 9

	// copied is as much of a packet as is looked at.
	copied = 64
	// room is for answers that wait to be read. One takes less than a KiB of it.
	room = 4 << 20
)

// listen has the group of NFLOG, which one socket can have at a time.
func listen() (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for NFLOG: %w", err)
	}
	_ = forceBuffer(conn) // or there is room for less
	mode := binary.BigEndian.AppendUint32(nil, copied)
	settings := []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: append(mode, copyPacket, 0)},
		threshold,
	}
	for _, s := range settings {
		if err := configure(conn, s); err != nil {
			conn.Close()
			return nil, fmt.Errorf("%w: group %d: %w", errGroup, state.GroupInquiry, err)
		}
	}
	return conn, nil
}

func configure(conn *netlink.Conn, setting netlink.Attribute) error {
	m, err := configuration(setting)
	if err == nil {
		_, err = conn.Execute(m)
	}
	return err
}

// configuration is the message that sets something, and is acknowledged.
func configuration(setting netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{setting})
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, state.GroupInquiry)
	return netlink.Message{
		Header: netlink.Header{Type: messageConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(header, data...),
	}, err
}

// threshold has each packet shown at once.
var threshold = netlink.Attribute{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)}

func forceBuffer(conn *netlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) })
}

// logged returns the packet in a message of NFLOG, nil if there is none or it has not the bit.
func logged(m netlink.Message) []byte {
	const header = 4 // struct nfgenmsg
	if m.Header.Type != messagePacket || len(m.Data) < header {
		return nil
	}
	attributes, err := netlink.UnmarshalAttributes(m.Data[header:])
	if err != nil {
		return nil
	}
	var packet []byte
	marked := false
	for _, a := range attributes {
		switch a.Type {
		case packetMarked:
			marked = len(a.Data) == 4 && binary.BigEndian.Uint32(a.Data)&state.MarkInquiry != 0
		case packetPayload:
			packet = a.Data
		}
	}
	if !marked {
		return nil
	}
	return packet
}
