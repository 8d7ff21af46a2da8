package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// The pieces of which rules are made, each in nft's language and as expressions. A test loads the text with nft and
// compares what the kernel then lists with what the expressions made.

// reg is the first of the kernel's registers of four bytes each. What follows a key's field lies in the next
// registers, so that a key of several fields is one piece.
const reg = unix.NFT_REG32_00

// field is something of a packet that can be part of a key.
type field struct {
	text   string
	load   func(register uint32) expr.Any
	size   int
	family byte
}

// What of a packet is looked at. Those of the network header depend on the family.
var (
	iif    = metaField("iifname", expr.MetaKeyIIFNAME, ifname.size)
	oif    = metaField("oifname", expr.MetaKeyOIFNAME, ifname.size)
	l4     = metaField("meta l4proto", expr.MetaKeyL4PROTO, 1)
	toPort = field{text: "th dport", size: 2, load: transport(2, 2)}
	ofPort = field{text: "th sport", size: 2, load: transport(0, 2)}
)

func metaField(text string, key expr.MetaKey, size int) field {
	return field{text: text, size: size, load: func(r uint32) expr.Any { return &expr.Meta{Key: key, Register: r} }}
}

func transport(offset, length uint32) func(uint32) expr.Any {
	return func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: length}
	}
}

func network(text string, family byte, offset uint32, size int) field {
	return field{text: text, size: size, family: family, load: func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)}
	}}
}

// nfproto matches the packets of a family.
func nfproto(family byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal([]byte{family})}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data} }

func unequal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: data} }

func compare(not bool, data []byte) expr.Any {
	if not {
		return unequal(data)
	}
	return equal(data)
}

// native is a number as the kernel holds it for itself.
func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

// group matches the device group of the interface that a packet came by or leaves by.
func group(key expr.MetaKey, not bool, value, mask uint32) Part {
	name, operator := "iifgroup", "=="
	if key == expr.MetaKeyOIFGROUP {
		name = "oifgroup"
	}
	if not {
		operator = "!="
	}
	return Part{
		Text:  fmt.Sprintf("%s & %#x %s %#x", name, mask, operator, value),
		Exprs: []expr.Any{&expr.Meta{Key: key, Register: reg}, masked(native(mask)), compare(not, native(value))},
	}
}

// Matches that several rules share.
var (
	fromOurs   = group(expr.MetaKeyIIFGROUP, false, state.GroupBridge, state.GroupBridgeMask)
	fromOthers = group(expr.MetaKeyIIFGROUP, true, state.GroupBridge, state.GroupBridgeMask)
	toOurs     = group(expr.MetaKeyOIFGROUP, false, state.GroupBridge, state.GroupBridgeMask)
	toOthers   = group(expr.MetaKeyOIFGROUP, true, state.GroupBridge, state.GroupBridgeMask)

	fromOrdinary = group(expr.MetaKeyIIFGROUP, false, state.GroupBridge, ^state.GroupAdoptedBit)
	fromInternal = group(expr.MetaKeyIIFGROUP, false, state.GroupInternal, ^state.GroupAdoptedBit)
	toInternal   = group(expr.MetaKeyOIFGROUP, false, state.GroupInternal, ^state.GroupAdoptedBit)

	// fromMade are the bridges that we made: on them nobody but containers is to be expected.
	fromMade = group(expr.MetaKeyIIFGROUP, false, state.GroupBridge, state.GroupBridgeMask|state.GroupAdoptedBit)

	// A packet of no connection is INVALID and has no status: a rule for it must not look for one.
	established = ctBits("ct state established,related", expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	invalid     = ctBits("ct state invalid", expr.CtKeySTATE, expr.CtStateBitINVALID)
	redirected  = ctBits("ct status dnat", expr.CtKeySTATUS, ipsDstNAT)
	// unestablished is also what of no connection is known.
	unestablished = Part{
		Text: "ct state ! established,related",
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(native(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)), equal(native(0)),
		},
	}
	answering = Part{
		Text: "ct state ! invalid,new",
		Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, masked(native(expr.CtStateBitINVALID | expr.CtStateBitNEW)), equal(native(0)),
		},
	}
	// asking is what goes the way of the connection's first packet, and replying what goes the other way.
	asking, replying = direction("original", 0), direction("reply", 1)
)

// notLo matches what does not come from the host itself.
var notLo = Part{Text: `iifname != "lo"`, Exprs: []expr.Any{iif.load(reg), unequal([]byte(packName("lo")))}}

// ipsDstNAT is IPS_DST_NAT of the kernel's nf_conntrack_common.h.
const ipsDstNAT = 1 << 5

func ctBits(text string, key expr.CtKey, bits uint32) Part {
	return Part{Text: text, Exprs: []expr.Any{
		&expr.Ct{Key: key, Register: reg}, masked(native(bits)), unequal(native(0)),
	}}
}

func direction(name string, number byte) Part {
	return Part{Text: "ct direction " + name, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, equal([]byte{number})}}
}

// family is the words of one address family.
type family struct {
	proto      byte // NFPROTO_IPV4 …
	from, to   field
	addr       datatype
	loopback   Part // to the loopback addresses
	noLoopback Part
	ofLoopback Part // from there
	icmp       Part
	redirect   Part // ICMP's redirects
}

func familyOf(v6 bool) family {
	if v6 {
		to := network("ip6 daddr", unix.NFPROTO_IPV6, 24, 16)
		from := network("ip6 saddr", unix.NFPROTO_IPV6, 8, 16)
		lo := netip.MustParsePrefix("::1/128")
		return family{
			proto: unix.NFPROTO_IPV6, from: from, to: to, addr: addr6,
			loopback: to.in(lo), noLoopback: to.notIn(lo), ofLoopback: from.in(lo),
			icmp: protocol("ipv6-icmp", unix.IPPROTO_ICMPV6), redirect: icmpType("icmpv6 type nd-redirect", unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, 137),
		}
	}
	to := network("ip daddr", unix.NFPROTO_IPV4, 16, 4)
	from := network("ip saddr", unix.NFPROTO_IPV4, 12, 4)
	lo := netip.MustParsePrefix("127.0.0.0/8")
	return family{
		proto: unix.NFPROTO_IPV4, from: from, to: to, addr: addr4,
		loopback: to.in(lo), noLoopback: to.notIn(lo), ofLoopback: from.in(lo),
		icmp: protocol("icmp", unix.IPPROTO_ICMP), redirect: icmpType("icmp type redirect", unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, 5),
	}
}

// word is nft's for the family in statements.
func (f family) word() string {
	if f.proto == unix.NFPROTO_IPV6 {
		return "ip6"
	}
	return "ip"
}

// only matches the packets of the family.
func (f family) only() Part {
	text := "meta nfproto ipv4"
	if f.proto == unix.NFPROTO_IPV6 {
		text = "meta nfproto ipv6"
	}
	return Part{Text: text, Family: f.proto}
}

func (f field) in(p netip.Prefix) Part { return f.prefix(false, p) }

func (f field) notIn(p netip.Prefix) Part { return f.prefix(true, p) }

func (f field) prefix(not bool, p netip.Prefix) Part {
	text := f.text + " "
	if not {
		text += "!= "
	}
	exprs := []expr.Any{f.load(reg)}
	if p.IsSingleIP() {
		return Part{Text: text + p.Addr().String(), Exprs: append(exprs, compare(not, p.Addr().AsSlice())), Family: f.family}
	}
	mask := make([]byte, f.size)
	for bit := range p.Bits() {
		mask[bit/8] |= 1 << (7 - bit%8)
	}
	return Part{Text: text + p.String(), Exprs: append(exprs, masked(mask), compare(not, p.Addr().AsSlice())), Family: f.family}
}

func protocol(name string, number byte) Part {
	return Part{Text: "meta l4proto " + name, Exprs: []expr.Any{l4.load(reg), equal([]byte{number})}}
}

func icmpType(text string, family, number, kind byte) Part {
	return Part{Text: text, Family: family, Exprs: []expr.Any{
		l4.load(reg), equal([]byte{number}), transport(0, 1)(reg), equal([]byte{kind}),
	}}
}

// key loads fields into registers that follow each other.
func key(fields []field) (text string, exprs []expr.Any, family byte) {
	var texts []string
	r := uint32(reg)
	for _, f := range fields {
		texts = append(texts, f.text)
		exprs = append(exprs, f.load(r))
		r += uint32(f.size+3) / 4
		family |= f.family
	}
	return strings.Join(texts, " . "), exprs, family
}

// in matches packets whose fields are in a set.
func in(set string, fields ...field) Part {
	text, exprs, family := key(fields)
	return Part{Text: text + " @" + set, Exprs: append(exprs, &expr.Lookup{SourceRegister: reg, SetName: set}), Family: family}
}

// notIn matches packets whose fields are not in a set.
func notIn(set string, fields ...field) Part {
	text, exprs, family := key(fields)
	return Part{Text: text + " != @" + set, Exprs: append(exprs, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}), Family: family}
}

// isLocal matches packets to an address of the host.
var isLocal = Part{Text: "fib daddr type local", Exprs: []expr.Any{
	&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}, equal(native(unix.RTN_LOCAL)),
}}

// toTransparent matches packets to a socket that was bound to an address which the host need not have. One that was bound to all of
// them, as a transparent proxy's is, would be found for whatever anybody sends to its port.
var toTransparent = Part{Text: "socket transparent 1 socket wildcard 0", Exprs: []expr.Any{
	&expr.Socket{Key: expr.SocketKeyTransparent, Register: reg}, equal([]byte{1}),
	&expr.Socket{Key: expr.SocketKeyWildcard, Register: reg}, equal([]byte{0}),
}}

// syn matches the packets that carry the segment size.
var syn = Part{Text: "tcp flags & (syn | rst) == syn", Exprs: []expr.Any{
	l4.load(reg), equal([]byte{unix.IPPROTO_TCP}), transport(13, 1)(reg), masked([]byte{0x06}), equal([]byte{0x02}),
}}

// NFT_META_IIFKIND and NFT_META_OIFKIND of the kernel's nf_tables.h.
const metaIIFKind, metaOIFKind expr.MetaKey = 26, 27

// bridged matches what goes from a bridge to a bridge.
var bridged = Part{Text: `meta iifkind "bridge" meta oifkind "bridge"`, Exprs: []expr.Any{
	&expr.Meta{Key: metaIIFKind, Register: reg}, equal([]byte(packName("bridge"))),
	&expr.Meta{Key: metaOIFKind, Register: reg}, equal([]byte(packName("bridge"))),
}}
