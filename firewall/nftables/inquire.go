package nftables

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// asks matches the packets of a protocol that ask about a client (package inquiry).
func asks(n names, p state.Proto) []Part {
	least, greatest := state.LengthInquiry(p, n.v6)
	length := network("ip length", unix.NFPROTO_IPV4, 2, 2)
	if n.v6 {
		length = network("ip6 length", unix.NFPROTO_IPV6, 4, 2)
	}
	number := byte(unix.IPPROTO_TCP)
	if p == state.UDP {
		number = unix.IPPROTO_UDP
	}
	return []Part{hasMark(state.MarkInquiry), n.only(), begun, protocol(p.String(), number), length.between(least, greatest)}
}

// inquiries are rules for such packets, whatever the protocol.
func inquiries(n names, why string, parts ...Part) []Rule {
	var rules []Rule
	for _, p := range state.InquiryProtos {
		rules = append(rules, rule(why, append(asks(n, p), parts...)...))
	}
	return rules
}

// begun is what belongs to no connection yet.
var begun = ctBits("ct state new", expr.CtKeySTATE, expr.CtStateBitNEW)

// between matches packets of which a number of two bytes is in a range.
func (f field) between(least, greatest uint16) Part {
	if least == greatest {
		return Part{Text: fmt.Sprintf("%s %d", f.text, least), Family: f.family, Exprs: []expr.Any{f.load(reg), equal(binary.BigEndian.AppendUint16(nil, least))}}
	}
	return Part{Text: fmt.Sprintf("%s %d-%d", f.text, least, greatest), Family: f.family, Exprs: []expr.Any{
		f.load(reg),
		&expr.Range{Op: expr.CmpOpEq, Register: reg, FromData: binary.BigEndian.AppendUint16(nil, least), ToData: binary.BigEndian.AppendUint16(nil, greatest)},
	}}
}

// show gives a packet to who has the group of NFLOG.
var show = Part{Text: fmt.Sprintf("log group %d", state.GroupInquiry), Exprs: []expr.Any{
	&expr.Log{Key: 1 << unix.NFTA_LOG_GROUP, Group: state.GroupInquiry},
}}

// asked shows what has passed DOCKER-USER, and keeps it from the container. An accept there ends no more than iptables' chains.
func asked(n names) []Rule { return inquiries(n, "an inquiry, answered", toOurs, show, drop) }
