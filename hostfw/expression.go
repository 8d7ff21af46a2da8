package hostfw

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// parseRule reads a rule of nftables, and where it is.
func parseRule(data []byte) (table, chain string, r rule) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			table = text(value)
		case unix.NFTA_RULE_CHAIN:
			chain = text(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			r = parseExpressions(value)
		}
	}
	return table, chain, r
}

// matches are the expressions that compare, count, keep or write something, and refuse nothing.
var matches = []string{
	"bitwise", "byteorder", "cmp", "connlimit", "counter", "ct", "dup", "dynset", "exthdr", "fib", "hash", "inner", "last", "limit", "log",
	"lookup", "match", "meta", "notrack", "numgen", "objref", "osf", "payload", "quota", "range", "rt", "socket", "tunnel", "xfrm",
}

// parseExpressions reads what a rule is made of, from left to right. What comes behind a match for state "invalid" is for such packets only.
func parseExpressions(list []byte) rule {
	var r rule
	var state stateMatch
	for _, expression := range attributes(list) {
		name, data := parseExpression(expression)
		switch {
		case state.next(name, data):
			return r
		case name == "immediate":
			r = r.or(parseImmediate(data))
		case name == "lookup":
			if verdicts, register, ok := parseLookup(data); ok {
				r.lookup = lookup{verdicts, state.loaded && register == state.register}
			}
		case name == "target":
			r.refuses = r.refuses || !harmlessTarget(nameIn(data, unix.NFTA_TARGET_NAME))
		case !slices.Contains(matches, name): // reject and queue among them
			r.refuses = true
		}
	}
	return r
}

// or joins what two parts of a rule may do. A rule has one verdict at most.
func (r rule) or(o rule) rule {
	r.refuses = r.refuses || o.refuses
	if o.jumps != "" {
		r.jumps = o.jumps
	}
	return r
}

func parseExpression(data []byte) (name string, rest []byte) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			name = text(value)
		case unix.NFTA_EXPR_DATA:
			rest = value
		}
	}
	return name, rest
}

// parseImmediate reads the verdict of a rule. A value for a register is none.
func parseImmediate(data []byte) rule {
	for kind, value := range attributes(data) {
		if kind == unix.NFTA_IMMEDIATE_DATA {
			return parseVerdict(value)
		}
	}
	return rule{}
}

// parseVerdict reads a verdict from where a verdict or a value may be.
func parseVerdict(data []byte) rule {
	for kind, verdict := range attributes(data) {
		if kind != unix.NFTA_DATA_VERDICT {
			continue
		}
		switch int32(numberIn(verdict, unix.NFTA_VERDICT_CODE)) {
		case unix.NFT_JUMP, unix.NFT_GOTO:
			return rule{jumps: nameIn(verdict, unix.NFTA_VERDICT_CHAIN)}
		case nfAccept, unix.NFT_CONTINUE, unix.NFT_BREAK, unix.NFT_RETURN:
			return rule{}
		}
		return rule{refuses: true}
	}
	return rule{}
}

// parseLookup is ok for one in a verdict map: those in sets and in maps of values have no verdict register to write to.
func parseLookup(data []byte) (verdicts string, register uint32, ok bool) {
	for kind, value := range attributes(data) {
		if kind == unix.NFTA_LOOKUP_DREG {
			ok = number(value) == unix.NFT_REG_VERDICT
		}
	}
	return nameIn(data, unix.NFTA_LOOKUP_SET), numberIn(data, unix.NFTA_LOOKUP_SREG), ok
}

// parseElements reads elements of a verdict map.
func parseElements(data []byte) []element {
	var out []element
	for kind, list := range attributes(data) {
		if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, data := range attributes(list) {
			var e element
			for kind, value := range attributes(data) {
				switch kind {
				case unix.NFTA_SET_ELEM_KEY:
					e.invalid = equals(value, stateInvalid)
				case unix.NFTA_SET_ELEM_DATA:
					e.rule = parseVerdict(value)
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// stateInvalid is the bit of connection tracking's state "invalid" (NF_CT_STATE_INVALID_BIT), in the order of the machine.
const stateInvalid = 1

// stateMatch follows the expressions of which nft makes "ct state invalid": state & invalid != 0, or state == invalid.
type stateMatch struct {
	loaded, masked bool
	register       uint32
}

// next takes the next expression, and reports whether from here on packets are invalid ones.
func (s *stateMatch) next(name string, data []byte) bool {
	was := *s
	*s = stateMatch{}
	switch name {
	case "ct":
		s.loaded = has(data, unix.NFTA_CT_DREG) && numberIn(data, unix.NFTA_CT_KEY) == unix.NFT_CT_STATE
		s.register = numberIn(data, unix.NFTA_CT_DREG)
	case "bitwise":
		s.masked = was.loaded && numberIn(data, unix.NFTA_BITWISE_SREG) == was.register &&
			numberIn(data, nftaBitwiseOp) == 0 &&
			equals(in(data, unix.NFTA_BITWISE_MASK), stateInvalid) && equals(in(data, unix.NFTA_BITWISE_XOR), 0)
		s.register = numberIn(data, unix.NFTA_BITWISE_DREG)
	case "cmp":
		same := numberIn(data, unix.NFTA_CMP_SREG) == was.register
		op, value := numberIn(data, unix.NFTA_CMP_OP), in(data, unix.NFTA_CMP_DATA)
		return same && (was.masked && op == unix.NFT_CMP_NEQ && equals(value, 0) || was.loaded && op == unix.NFT_CMP_EQ && equals(value, stateInvalid))
	case "lookup":
		*s = was // who asks may want to know what with
	case "match":
		return nameIn(data, unix.NFTA_MATCH_NAME) == "conntrack" && onlyInvalid(in(data, unix.NFTA_MATCH_INFO))
	}
	return false
}

// nftaBitwiseOp is NFTA_BITWISE_OP, which package unix lacks.
const nftaBitwiseOp = 6

// Where struct xt_conntrack_mtinfo2 and 3 have what is compared, what is inverted, and the states (linux/netfilter/xt_conntrack.h); and the
// bits of the first and the last that stand for a state and for "invalid".
const (
	matchFlags, invertFlags, stateMask = 146, 148, 150
	matchesState, maskInvalid          = 1, 1
)

// onlyInvalid reports whether iptables' match "conntrack" lets only invalid packets through. Whatever else it compares makes them fewer.
func onlyInvalid(info []byte) bool {
	if len(info) < stateMask+2 {
		return false
	}
	at := func(offset int) uint16 { return binary.NativeEndian.Uint16(info[offset:]) }
	return at(matchFlags)&matchesState != 0 && at(invertFlags)&matchesState == 0 && at(stateMask) == maskInvalid
}

// in returns the first attribute of a kind, nil if there is none.
func in(data []byte, wanted uint16) []byte {
	for kind, value := range attributes(data) {
		if kind == wanted {
			return value
		}
	}
	return nil
}

func has(data []byte, wanted uint16) bool { return in(data, wanted) != nil }

func numberIn(data []byte, wanted uint16) uint32 { return number(in(data, wanted)) }

func nameIn(data []byte, wanted uint16) string { return text(in(data, wanted)) }

// equals reports whether data holds a value of four bytes, in the order of the machine, and it is that one.
func equals(data []byte, value uint32) bool {
	held := in(data, unix.NFTA_DATA_VALUE)
	return len(held) == 4 && binary.NativeEndian.Uint32(held) == value
}
