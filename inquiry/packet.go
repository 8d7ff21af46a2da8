package inquiry

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// The sizes of headers, and what is in them.
const (
	etherSize = 14
	ip4Size   = 20
	ip6Size   = 40
	tcpSize   = 24 // with its segment size
	udpSize   = 8

	hops       = 64
	window     = 64240
	flagSYN    = 0x02
	dontBreak  = 0x4000
	ethernet   = 1500
	sumInTCP   = 16
	sumInUDP   = 6
	sequenceAt = 4
)

// protocolOf is the number of a protocol in a header, false for one about which nothing can be asked.
func protocolOf(p state.Proto) (byte, bool) {
	switch p {
	case state.TCP:
		return unix.IPPROTO_TCP, true
	case state.UDP:
		return unix.IPPROTO_UDP, true
	}
	return 0, false
}

// frame returns a packet from an address and port to another: what opens a connection of TCP, or an empty datagram of UDP. hardware is
// that of the link by which it is to arrive, nil where it has none; sequence is what TCP counts from.
func frame(protocol byte, from, to netip.AddrPort, hardware net.HardwareAddr, sequence uint32) []byte {
	segment := transport(protocol, from, to, sequence)
	out := make([]byte, etherSize, etherSize+ip6Size+tcpSize)
	if len(hardware) == 6 {
		copy(out, hardware)
		out[6] = 2 // the source is locally administered, and nobody
	}
	if from.Addr().Is6() {
		binary.BigEndian.PutUint16(out[12:], unix.ETH_P_IPV6)
		out = append(out, header6(protocol, from.Addr(), to.Addr(), len(segment))...)
	} else {
		binary.BigEndian.PutUint16(out[12:], unix.ETH_P_IP)
		out = append(out, header4(protocol, from.Addr(), to.Addr(), len(segment))...)
	}
	return append(out, segment...)
}

func header4(protocol byte, from, to netip.Addr, payload int) []byte {
	h := make([]byte, ip4Size)
	h[0] = 4<<4 | ip4Size/4
	binary.BigEndian.PutUint16(h[2:], uint16(ip4Size+payload))
	binary.BigEndian.PutUint16(h[6:], dontBreak)
	h[8], h[9] = hops, protocol
	copy(h[12:], from.AsSlice())
	copy(h[16:], to.AsSlice())
	binary.BigEndian.PutUint16(h[10:], folded(sum(0, h)))
	return h
}

func header6(protocol byte, from, to netip.Addr, payload int) []byte {
	h := make([]byte, ip6Size)
	h[0] = 6 << 4
	binary.BigEndian.PutUint16(h[4:], uint16(payload))
	h[6], h[7] = protocol, hops
	copy(h[8:], from.AsSlice())
	copy(h[24:], to.AsSlice())
	return h
}

func transport(protocol byte, from, to netip.AddrPort, sequence uint32) []byte {
	size, sumAt := tcpSize, sumInTCP
	if protocol == unix.IPPROTO_UDP {
		size, sumAt = udpSize, sumInUDP
	}
	h := make([]byte, size)
	binary.BigEndian.PutUint16(h, from.Port())
	binary.BigEndian.PutUint16(h[2:], to.Port())
	if protocol == unix.IPPROTO_UDP {
		binary.BigEndian.PutUint16(h[4:], udpSize)
	} else {
		binary.BigEndian.PutUint32(h[sequenceAt:], sequence)
		h[12], h[13] = tcpSize/4<<4, flagSYN
		binary.BigEndian.PutUint16(h[14:], window)
		h[20], h[21] = unix.TCPOPT_MAXSEG, 4
		headers := ip4Size + 20
		if from.Addr().Is6() {
			headers = ip6Size + 20
		}
		binary.BigEndian.PutUint16(h[22:], uint16(ethernet-headers))
	}
	pseudo := uint32(protocol) + uint32(size)
	pseudo = sum(pseudo, from.Addr().AsSlice())
	pseudo = sum(pseudo, to.Addr().AsSlice())
	checksum := folded(sum(pseudo, h))
	if checksum == 0 && protocol == unix.IPPROTO_UDP {
		checksum = 0xffff // 0 is for none
	}
	binary.BigEndian.PutUint16(h[sumAt:], checksum)
	return h
}

// sum adds words to a checksum. All that is summed here has an even length.
func sum(begin uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		begin += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return begin
}

func folded(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// source reads from where a packet of one family came, as the rules have logged it: without the header of its link.
func source(packet []byte) (protocol byte, from netip.AddrPort, ok bool) {
	if len(packet) == 0 {
		return 0, from, false
	}
	var address []byte
	var rest []byte
	switch {
	case packet[0]>>4 == 4 && len(packet) >= ip4Size+2:
		protocol, address, rest = packet[9], packet[12:16], packet[ip4Size:]
	case packet[0]>>4 == 6 && len(packet) >= ip6Size+2:
		protocol, address, rest = packet[6], packet[8:24], packet[ip6Size:]
	default:
		return 0, from, false
	}
	addr, _ := netip.AddrFromSlice(address)
	return protocol, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(rest)), true
}
