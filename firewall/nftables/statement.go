package nftables

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// What rules do.
var (
	accept = Part{Text: "accept", Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	// drop counts: what a firewall refuses is the first thing that one asks it about.
	drop       = Part{Text: "counter drop", Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}}
	back       = Part{Text: "return", Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
	masquerade = Part{Text: "masquerade", Exprs: []expr.Any{&expr.Masq{}}}

	// clamp writes what fits both ways of the connection. The kernel only ever lowers the value (nft_exthdr.c).
	clamp = Part{Text: "tcp option maxseg size set rt mtu", Exprs: []expr.Any{
		&expr.Rt{Key: expr.RtTCPMSS, Register: reg},
		&expr.Byteorder{SourceRegister: reg, DestRegister: reg, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: reg, Op: expr.ExthdrOpTcpopt, Type: unix.TCPOPT_MAXSEG, Offset: 2, Len: 2},
	}}
)

func jump(chain string) Part {
	return Part{Text: "jump " + chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// then goes to a chain and, where that ends, not back.
func then(chain string) Part {
	return Part{Text: "goto " + chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

// dnat redirects to what a map says for the fields: an address, and a port unless it is to stay.
func (f family) dnat(m string, withPort bool, fields ...field) Part {
	text, exprs, family := key(fields)
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg}
	if withPort {
		nat.RegProtoMin = reg + uint32(f.addr.size/4)
	}
	exprs = append(exprs, &expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m}, nat)
	return Part{Text: fmt.Sprintf("dnat %s to %s map @%s", f.word(), text, m), Exprs: exprs, Family: family}
}

// snat rewrites the source to what a map says for it.
func (f family) snat(m string) Part {
	return Part{Text: fmt.Sprintf("snat %s to %s map @%s", f.word(), f.from.text, m), Family: f.proto, Exprs: []expr.Any{
		f.from.load(reg),
		&expr.Lookup{SourceRegister: reg, DestRegister: reg, IsDestRegSet: true, SetName: m},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: reg},
	}}
}

// marked matches packets that carry the bit; setMark and clearMark change nothing but the bit.
var (
	marked    = hasMark(MarkPermitted)
	setMark   = markWith(fmt.Sprintf("meta mark | %#x", MarkPermitted), MarkPermitted, MarkPermitted)
	clearMark = markWith(fmt.Sprintf("meta mark & %#x", ^MarkPermitted), MarkPermitted, 0)
	setDivert = markWith(fmt.Sprintf("meta mark | %#x", state.MarkDivert), state.MarkDivert, state.MarkDivert)
)

func hasMark(bit uint32) Part {
	return Part{Text: fmt.Sprintf("meta mark & %#x == %#x", bit, bit), Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, masked(native(bit)), equal(native(bit)),
	}}
}

// markWith makes the bit what it is in value.
func markWith(text string, bit, value uint32) Part {
	return Part{Text: "meta mark set " + text, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg},
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: native(^bit), Xor: native(value)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg, SourceRegister: true},
	}}
}
