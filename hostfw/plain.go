package hostfw

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// A rule is plain that asks who comes and where to, and nothing else: addresses and sets of them, ports, protocols, links, what connection
// tracking knows of the connection, marks. What is not named here is not plain.

// plainMatches are those of iptables. TCP's flags are among what they ask: nobody opens a connection but by the one that is for that.
var plainMatches = []string{
	"addrtype", "ah", "comment", "connlabel", "connmark", "conntrack", "dccp", "devgroup", "esp", "frag", "helper", "icmp", "icmp6", "iprange",
	"ipv6header", "mark", "multiport", "physdev", "pkttype", "rpfilter", "rt", "sctp", "set", "state", "tcp", "udp", "udplite",
}

// neutral are expressions of nftables that compare what others loaded, or that ask nothing. A lookup is judged by its set.
var neutral = []string{"bitwise", "byteorder", "cmp", "counter", "dup", "fib", "immediate", "last", "log", "lookup", "notrack", "range", "reject", "target"}

// metaKeys are those of "meta" that are plain.
var metaKeys = []uint32{
	unix.NFT_META_PROTOCOL, unix.NFT_META_MARK, unix.NFT_META_IIF, unix.NFT_META_OIF, unix.NFT_META_IIFNAME, unix.NFT_META_OIFNAME,
	unix.NFT_META_IIFTYPE, unix.NFT_META_OIFTYPE, unix.NFT_META_NFPROTO, unix.NFT_META_L4PROTO, unix.NFT_META_BRI_IIFNAME,
	unix.NFT_META_BRI_OIFNAME, unix.NFT_META_PKTTYPE, unix.NFT_META_IIFGROUP, unix.NFT_META_OIFGROUP, metaIIFKind, metaOIFKind, metaSDIF, metaSDIFName,
}

// More keys of linux/netfilter/nf_tables.h, which package unix lacks.
const (
	metaIIFKind  = 26
	metaOIFKind  = 27
	metaTimeNS   = 30
	metaTimeDay  = 31
	metaTimeHour = 32
	metaSDIF     = 33
	metaSDIFName = 34
)

// metaNames are what people call some that are not.
var metaNames = map[uint32]string{
	unix.NFT_META_LEN: "length", unix.NFT_META_PRANDOM: "random", metaTimeNS: "time", metaTimeDay: "day", metaTimeHour: "hour",
}

// ctKeys are those of "ct" that are plain.
var ctKeys = []uint32{
	unix.NFT_CT_STATE, unix.NFT_CT_DIRECTION, unix.NFT_CT_STATUS, unix.NFT_CT_MARK, unix.NFT_CT_HELPER, unix.NFT_CT_L3PROTOCOL, unix.NFT_CT_SRC,
	unix.NFT_CT_DST, unix.NFT_CT_PROTOCOL, unix.NFT_CT_PROTO_SRC, unix.NFT_CT_PROTO_DST, unix.NFT_CT_LABELS, unix.NFT_CT_ZONE, unix.NFT_CT_SRC_IP,
	unix.NFT_CT_DST_IP, unix.NFT_CT_SRC_IP6, unix.NFT_CT_DST_IP6,
}

var ctNames = map[uint32]string{
	unix.NFT_CT_EXPIRATION: "ct expiration", unix.NFT_CT_PKTS: "ct packets", unix.NFT_CT_BYTES: "ct bytes", unix.NFT_CT_AVGPKT: "ct avgpkt",
}

// objectNames are named objects that decide whether a rule goes on.
var objectNames = map[uint32]string{
	unix.NFT_OBJECT_QUOTA: "quota", unix.NFT_OBJECT_LIMIT: "limit", unix.NFT_OBJECT_CONNLIMIT: "connlimit", unix.NFT_OBJECT_SYNPROXY: "synproxy",
}

// plainObjects are named objects that every packet passes.
var plainObjects = []uint32{
	unix.NFT_OBJECT_COUNTER, unix.NFT_OBJECT_CT_HELPER, unix.NFT_OBJECT_CT_TIMEOUT, unix.NFT_OBJECT_CT_EXPECT, unix.NFT_OBJECT_SECMARK,
}

// filledSet is how a set is called that packets fill, or that counts them.
const filledSet = "a set that rules fill"

// protocols follows what a rule of nftables is about: the family, and the protocol above it. nft compares them ahead of what is within.
type protocols struct {
	family   byte // unix.NFPROTO_INET where it may be either
	protocol byte // 0 where it may be any
	loaded   loaded
	register uint32
}

// loaded is what a register has.
type loaded byte

const (
	loadedOther loaded = iota
	loadedFamily
	loadedProtocol
)

// icmp reports whether the rule is about none of the packets that come to a port.
func (p *protocols) icmp() bool {
	return p.protocol == unix.IPPROTO_ICMP || p.protocol == unix.IPPROTO_ICMPV6
}

// next takes the next expression.
func (p *protocols) next(name string, data []byte) {
	was := p.loaded
	p.loaded = loadedOther
	switch name {
	case "meta":
		p.register = numberIn(data, unix.NFTA_META_DREG)
		switch key := numberIn(data, unix.NFTA_META_KEY); {
		case !has(data, unix.NFTA_META_DREG):
		case key == unix.NFT_META_NFPROTO:
			p.loaded = loadedFamily
		case key == unix.NFT_META_L4PROTO:
			p.loaded = loadedProtocol
		}
	case "payload":
		p.register = numberIn(data, unix.NFTA_PAYLOAD_DREG)
		if part := payload(data); part.protocolOf(p.family) {
			p.loaded = loadedProtocol
		}
	case "cmp":
		value := in(in(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
		if numberIn(data, unix.NFTA_CMP_OP) != unix.NFT_CMP_EQ || numberIn(data, unix.NFTA_CMP_SREG) != p.register || len(value) != 1 {
			return
		}
		switch was {
		case loadedFamily:
			p.family = value[0]
		case loadedProtocol:
			p.protocol = value[0]
		}
	}
}

// peculiar names what of an expression is not plain, "" for nothing.
func (p *protocols) peculiar(name string, data []byte) string {
	switch name {
	case "meta":
		return unless(slices.Contains(metaKeys, numberIn(data, unix.NFTA_META_KEY)) || has(data, unix.NFTA_META_SREG),
			cmp.Or(metaNames[numberIn(data, unix.NFTA_META_KEY)], name))
	case "ct":
		return unless(slices.Contains(ctKeys, numberIn(data, unix.NFTA_CT_KEY)) || has(data, unix.NFTA_CT_SREG),
			cmp.Or(ctNames[numberIn(data, unix.NFTA_CT_KEY)], name))
	case "payload":
		return unless(has(data, unix.NFTA_PAYLOAD_SREG) || payload(data).plain(p), name)
	case "exthdr":
		return unless(has(data, unix.NFTA_EXTHDR_SREG) || plainHeader(data), name)
	case "match":
		return peculiarMatch(nameIn(data, unix.NFTA_MATCH_NAME), in(data, unix.NFTA_MATCH_INFO))
	case "objref":
		kind := numberIn(data, unix.NFTA_OBJREF_IMM_TYPE)
		return unless(slices.Contains(plainObjects, kind), cmp.Or(objectNames[kind], name))
	case "dynset":
		return filledSet
	}
	return unless(slices.Contains(neutral, name), name)
}

// Of linux/netfilter/nf_tables.h and linux/ipv6.h, which package unix lacks: headers of IPv6, that one is asked whether it is there, and the one
// for routing.
const (
	exthdrIPv6    = 0
	exthdrPresent = 1
	headerRouting = 43
)

// plainHeader reports whether it is asked which headers of IPv6 there are, or what kind of routing they want, as one asks for a protocol. Options of TCP are more
// than that.
func plainHeader(data []byte) bool {
	present := numberIn(data, unix.NFTA_EXTHDR_FLAGS)&exthdrPresent != 0
	kind := in(data, unix.NFTA_EXTHDR_TYPE)
	return numberIn(data, unix.NFTA_EXTHDR_OP) == exthdrIPv6 && (present || len(kind) == 1 && kind[0] == headerRouting)
}

func unless(plain bool, name string) string {
	if plain {
		return ""
	}
	return name
}

// Where struct xt_set_info_match_v3 and 4 have what the counters of an element are compared with: zero for not at all.
const setCounters, setFlags = 8, 40

// peculiarMatch names a match of iptables that is not plain.
func peculiarMatch(name string, info []byte) string {
	switch {
	case name == "set" && len(info) > setFlags && slices.ContainsFunc(info[setCounters:setFlags], func(b byte) bool { return b != 0 }):
		return "counters of a set"
	case name == "conntrack" && len(info) >= matchFlags+2 && binary.NativeEndian.Uint16(info[matchFlags:])&matchesExpiry != 0:
		return "ctexpire"
	}
	return unless(slices.Contains(plainMatches, name), name)
}

// part is some bytes of a packet.
type part struct{ base, offset, length uint32 }

func payload(data []byte) part {
	return part{numberIn(data, unix.NFTA_PAYLOAD_BASE), numberIn(data, unix.NFTA_PAYLOAD_OFFSET), numberIn(data, unix.NFTA_PAYLOAD_LEN)}
}

func (p part) within(from, to uint32) bool {
	return p.offset >= from && p.length <= to-from && p.offset-from <= to-from-p.length
}

// Where IPv4 and IPv6 have the protocol above, and where the addresses, one behind the other.
var (
	protocol4 = part{unix.NFT_PAYLOAD_NETWORK_HEADER, 9, 1}
	protocol6 = part{unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 1}
)

const addresses4, end4, addresses6, end6 = 12, 20, 8, 40

func (p part) protocolOf(family byte) bool {
	return family == unix.NFPROTO_IPV4 && p == protocol4 || family == unix.NFPROTO_IPV6 && p == protocol6
}

// Where each protocol above has its ports, and ICMP its types; and where TCP has its flags.
const ports, endPorts, flagsTCP = 0, 4, 13

// plain reports whether it is addresses, a protocol, ports or TCP's flags. Where the family is not known it must be so in either.
func (p part) plain(about *protocols) bool {
	switch p.base {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		v4, v6 := p == protocol4 || p.within(addresses4, end4), p == protocol6 || p.within(addresses6, end6)
		return (v4 || about.family == unix.NFPROTO_IPV6) && (v6 || about.family == unix.NFPROTO_IPV4)
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return p.within(ports, endPorts) || about.protocol == unix.IPPROTO_TCP && p.offset == flagsTCP && p.length == 1
	}
	return false
}
