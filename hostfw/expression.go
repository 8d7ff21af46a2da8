package hostfw

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// parseRule reads a rule of nftables in a table of a family, and where it is.
func parseRule(family byte, data []byte) (table, chain string, r rule) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			table = text(value)
		case unix.NFTA_RULE_CHAIN:
			chain = text(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			r = parseExpressions(family, value)
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
func parseExpressions(family byte, list []byte) rule {
	var r rule
	var state stateMatch
	about := protocols{family: family}
	for _, expression := range attributes(list) {
		name, data := parseExpression(expression)
		if state.next(name, data) {
			return r
		}
		r.beyond = cmp.Or(r.beyond, about.peculiar(name, data))
		about.next(name, data)
		switch {
		case name == "immediate":
			r = r.or(parseImmediate(data))
		case name == "lookup":
			if set, register, ok := parseLookup(data); ok {
				r.lookup = lookup{set, state.loaded && register == state.register}
			} else {
				r.sets = append(r.sets, set)
			}
		case name == "target":
			r = r.or(target(nameIn(data, unix.NFTA_TARGET_NAME)))
		case name == "dynset":
			r.writes, r.fills = true, append(r.fills, nameIn(data, unix.NFTA_DYNSET_SET_NAME))
		case name == "reject":
			r.refuses = true
		case !slices.Contains(matches, name): // queue among them: who knows what becomes of it
			r.accepts, r.refuses = true, true
		}
		r.writes = r.writes || writes(name, data)
		if about.icmp() {
			r = r.forNoPort()
		}
	}
	return r
}

// writes reports whether an expression leaves something with a packet or a connection, which rules behind it may ask for.
func writes(name string, data []byte) bool {
	switch name {
	case "meta":
		return has(data, unix.NFTA_META_SREG)
	case "ct":
		return has(data, unix.NFTA_CT_SREG)
	case "payload":
		return has(data, unix.NFTA_PAYLOAD_SREG)
	case "exthdr":
		return has(data, unix.NFTA_EXTHDR_SREG)
	}
	return name == "notrack"
}

// or joins what two parts of a rule may do. A rule has one verdict at most.
func (r rule) or(o rule) rule {
	r.refuses, r.accepts = r.refuses || o.refuses, r.accepts || o.accepts
	r.leaves, r.writes = r.leaves || o.leaves, r.writes || o.writes
	r.jumps, r.beyond = cmp.Or(o.jumps, r.jumps), cmp.Or(r.beyond, o.beyond)
	return r
}

// forNoPort is the rule where it turns out to be about ICMP: what it asks is nothing to those who come to a port.
func (r rule) forNoPort() rule {
	if !r.writes {
		r.beyond, r.sets = "", nil
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
		case unix.NFT_JUMP:
			return rule{jumps: nameIn(verdict, unix.NFTA_VERDICT_CHAIN)}
		case unix.NFT_GOTO:
			return rule{jumps: nameIn(verdict, unix.NFTA_VERDICT_CHAIN), leaves: true}
		case unix.NFT_RETURN:
			return rule{leaves: true}
		case nfAccept:
			return rule{accepts: true}
		case nfDrop:
			return rule{refuses: true}
		case unix.NFT_CONTINUE, unix.NFT_BREAK:
			return rule{}
		}
		return rule{refuses: true, accepts: true, beyond: "queue"} // the only other that rules can have
	}
	return rule{}
}

// parseLookup names a set or map. It is ok for a verdict map: sets and maps of values have no verdict register to write to.
func parseLookup(data []byte) (set string, register uint32, ok bool) {
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
					e.rule = e.or(parseVerdict(value))
				case unix.NFTA_SET_ELEM_EXPR:
					e.beyond = peculiarElement(value)
				case nftaSetElemExpressions:
					e.beyond = peculiarElements(value)
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// nftaSetElemExpressions is NFTA_SET_ELEM_EXPRESSIONS, and the others are NFTA_SET_EXPR and NFTA_SET_EXPRESSIONS, which package unix lacks.
const (
	nftaSetElemExpressions = 11
	nftaSetExpr            = 17
	nftaSetExpressions     = 18
)

// parseSet names a set, and reports whether its elements count who asks them, and may have him pass or not by that.
func parseSet(data []byte) (name string, counts bool) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.NFTA_SET_NAME:
			name = text(value)
		case nftaSetExpr:
			counts = counts || peculiarElement(value) != ""
		case nftaSetExpressions:
			counts = counts || peculiarElements(value) != ""
		}
	}
	return name, counts
}

// peculiarElement names an expression that an element has of its own, if it is not plain.
func peculiarElement(expression []byte) string {
	name, data := parseExpression(expression)
	return new(protocols).peculiar(name, data)
}

func peculiarElements(list []byte) (name string) {
	for _, expression := range attributes(list) {
		name = cmp.Or(name, peculiarElement(expression))
	}
	return name
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
	matchesExpiry                      = 1 << 7
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
