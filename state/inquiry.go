package state

import "net/netip"

// The rules that a user has in DOCKER-USER see what is forwarded. A client that comes to a socket of the host never is: so the relay
// asks these rules about it, by a packet of its own that takes the way of a forwarded one and is dropped behind them (package inquiry).
const (
	// MarkInquiry is the bit of the mark that such a packet has. No other program in wide use takes it alone.
	MarkInquiry uint32 = 1 << 24
	// GroupInquiry is the group of NFLOG by which the rules show the relay what has passed.
	GroupInquiry uint16 = 1427
)

// Visit is a client that comes from outside: who, to which address and port of the host, and by which of its links.
type Visit struct {
	Proto  Proto
	Client netip.AddrPort
	At     netip.AddrPort
	Link   int // its index
}

// LengthInquiry are the least and the greatest length of such packets of a protocol, as their own header tells it: with that of IPv4,
// without that of IPv6. They are a SYN with no option but its segment size, which is hardly any client's (TCPMSS of iptables adds that where
// it is missing), and an empty datagram; so packets of others that have the bit for a reason of their own are not taken for one.
func LengthInquiry(p Proto, v6 bool) (least, greatest uint16) {
	const udp, tcp, segment, ip = 8, 20, 4, 20
	least, greatest = tcp, tcp+segment
	if p == UDP {
		least, greatest = udp, udp
	}
	if !v6 {
		least, greatest = least+ip, greatest+ip
	}
	return least, greatest
}

// InquiryProtos are the protocols of which somebody can be asked about: those that a socket of ours serves.
var InquiryProtos = []Proto{TCP, UDP}
