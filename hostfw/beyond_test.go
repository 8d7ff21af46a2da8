package hostfw

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// TestBeyond: a rule that is not plain counts where packets fare otherwise by it.
func TestBeyond(t *testing.T) {
	const limited = "-m limit --limit 10/sec"
	for _, tt := range []struct {
		name, policy, rules string
		want                string
	}{
		{"plain", "DROP", "-A INPUT -p tcp --dport 80 -j ACCEPT", ""},
		{"accepts ahead of a refusal", "DROP", "-A INPUT -p tcp -m tcp --dport 80 " + limited + " -j ACCEPT", "limit"},
		{"refuses ahead of an accept", "DROP", "-A INPUT " + limited + " -j DROP\n-A INPUT -p tcp -j ACCEPT", "limit"},
		{"refuses, and so does the policy", "DROP", "-A INPUT -p tcp -j ACCEPT\n-A INPUT " + limited + " -j REJECT\n-A INPUT -p udp", ""},
		{"refuses, and the policy does not", "ACCEPT", "-A INPUT " + limited + " -j REJECT", "limit"},
		{"accepts, and so does the policy", "ACCEPT", "-A INPUT -j DROP\n-A INPUT " + limited + " -j ACCEPT", ""},
		{"the first of two", "DROP", "-A INPUT -m string --string x --algo bm -j DROP\n-A INPUT " + limited + " -j ACCEPT", "string"},
		{"logs", "DROP", "-A INPUT " + limited + " -j LOG\n-A INPUT -p tcp -j ACCEPT", ""},
		{"counts alone", "DROP", "-A INPUT " + limited + "\n-A INPUT -p tcp -j ACCEPT", ""},
		{"marks", "DROP", "-A INPUT " + limited + " -j MARK --set-xmark 0x1/0xffffffff\n-A INPUT -m mark --mark 0x1 -j ACCEPT", "limit"},
		{"marks plainly", "DROP", "-A INPUT -p tcp -j MARK --set-xmark 0x1/0xffffffff\n-A INPUT -m mark --mark 0x1 -j ACCEPT", ""},
		{"fills a set", "DROP", "-A INPUT -p tcp -j SET --add-set s src\n-A INPUT -m set --match-set s src -j ACCEPT", filledSet},
		{"leads to an accept", "DROP", ":one - [0:0]\n-A INPUT " + limited + " -j one\n-A one -j ACCEPT", "limit"},
		{"leads to an accept by two jumps", "DROP", ":one - [0:0]\n:two - [0:0]\n-A INPUT " + limited + " -j one\n-A one -g two\n-A two -j ACCEPT", "limit"},
		{"leads to a log", "DROP", ":one - [0:0]\n-A INPUT " + limited + " -j one\n-A INPUT -p tcp -j ACCEPT\n-A one -j LOG", ""},
		{"leads to a log and does not come back", "DROP", ":one - [0:0]\n-A INPUT " + limited + " -g one\n-A INPUT -p tcp -j ACCEPT\n-A one -j LOG", "limit"},
		{"leads nowhere", "DROP", "-A INPUT -p tcp -j ACCEPT\n:one - [0:0]\n-A one " + limited + " -j DROP", ""},
		{"in a chain that is led to", "DROP", ":one - [0:0]\n-A INPUT -p tcp -j one\n-A one " + limited + " -j ACCEPT", "limit"},
		{"in a chain that is led to twice", "DROP", ":one - [0:0]\n-A INPUT -p tcp -j one\n-A INPUT -p udp -j ACCEPT\n-A INPUT -p tcp -j one\n-A one " + limited + " -j DROP", "limit"},
		{"comes back early", "DROP", ":one - [0:0]\n-A INPUT -j one\n-A one " + limited + " -j RETURN\n-A one -p tcp -j ACCEPT", "limit"},
		{"comes back early from a log", "DROP", ":one - [0:0]\n-A INPUT -j one\n-A INPUT -p tcp -j ACCEPT\n-A one " + limited + " -j RETURN\n-A one -j LOG", ""},
		{"another hook", "DROP", "-A FORWARD " + limited + " -j ACCEPT", ""},
		{"ICMP", "DROP", "-A INPUT -p icmp " + limited + " -j ACCEPT\n-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT", ""},
		{"all but ICMP", "DROP", "-A INPUT ! -p icmp " + limited + " -j ACCEPT", "limit"},
		{"invalid alone", "DROP", "-A INPUT -m conntrack --ctstate INVALID " + limited + " -j DROP\n-A INPUT -p tcp -j ACCEPT", ""},
		{"ours", "DROP", ":DRAWBRIDGE-X - [0:0]\n-A INPUT -j DRAWBRIDGE-X\n-A DRAWBRIDGE-X " + limited + " -j ACCEPT", ""},
		{"a program is asked", "DROP", "-A INPUT -p tcp -j NFQUEUE --queue-num 1", "NFQUEUE"},
		{"a target that is not known", "DROP", "-A INPUT -p tcp -j NEWS", "NEWS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := fmt.Sprintf("*filter\n:INPUT %s [0:0]\n:FORWARD ACCEPT [0:0]\n", tt.policy)
			var chains, rules []string // iptables-save prints chains first
			for line := range strings.Lines(tt.rules + "\n") {
				if strings.HasPrefix(line, ":") {
					chains = append(chains, line)
				} else {
					rules = append(rules, line)
				}
			}
			saved := parseSave(text+strings.Join(chains, "")+strings.Join(rules, ""), label{})
			if got := saved.beyond("INPUT"); got != tt.want {
				t.Errorf("%q decides, want %q", got, tt.want)
			}
		})
	}
}

// TestBeyondTables: what is found in each of some tables, and with a circle, which the kernel does not have.
func TestBeyondTables(t *testing.T) {
	counting := chain{rules: []rule{{accepts: true}, {refuses: true, beyond: "limit"}, {accepts: true}}}
	circle := onTable(chain{rules: []rule{{jumps: "a", beyond: "limit"}}}, map[string]chain{"a": {rules: []rule{{jumps: "b"}}}, "b": {rules: []rule{{jumps: "a"}}}})
	filled := onTable(chain{drops: true, rules: []rule{{sets: []string{"s"}, accepts: true}}}, nil)
	filled.filled = map[string]bool{"s": true}
	byMap := func(r rule, elements ...element) table {
		r.lookup = lookup{"m", true}
		out := onTable(chain{drops: true, rules: []rule{r}}, nil)
		out.verdicts["m"] = elements
		return out
	}
	for _, tt := range []struct {
		name   string
		tables []table
		want   string
	}{
		{"none", nil, ""},
		{"one", []table{onTable(counting, nil)}, "limit"},
		{"the second", []table{onTable(chain{drops: true}, nil), onTable(counting, nil)}, "limit"},
		{"a circle", []table{circle}, ""},
		{"where nothing is refused", []table{onTable(chain{rules: []rule{{beyond: "limit", writes: true}}}, nil)}, ""},
		{"a set that is filled", []table{filled}, filledSet},
		{"a map behind a limit", []table{byMap(rule{beyond: "limit"}, element{rule: rule{accepts: true}})}, "limit"},
		{"a map with an element that counts", []table{byMap(rule{}, element{rule: rule{accepts: true, beyond: "limit"}})}, "limit"},
		{"a map, of what is invalid", []table{byMap(rule{beyond: "limit"}, element{invalid: true, rule: rule{accepts: true}})}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(tt.tables); got.Beyond != tt.want {
				t.Errorf("judged %+v, want %q", got, tt.want)
			}
		})
	}
}

// TestMatches: each of iptables' matches, as iptables-save prints it, by whether it is about more than who comes and where to.
func TestMatches(t *testing.T) {
	for words, want := range map[string]string{
		"-s 192.0.2.0/24 ! -d 198.51.100.1/32 -i eth0":                        "",
		"-p tcp -m tcp --sport 1024:65535 --dport 80":                         "",
		"-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN":                     "",
		"-p udp -m multiport --dports 53,80":                                  "",
		"-m conntrack --ctstate NEW -m conntrack --ctstatus NONE":             "",
		"-m state ! --state INVALID":                                          "",
		"-m mark --mark 0x1 -m connmark --mark 0x2":                           "",
		"-m addrtype --dst-type LOCAL --limit-iface-in":                       "",
		"-m set --match-set s src,dst":                                        "",
		"-m iprange --src-range 192.0.2.1-192.0.2.9":                          "",
		"-m pkttype --pkt-type broadcast":                                     "",
		"-m physdev --physdev-in eth1":                                        "",
		"-m rt --rt-type 0":                                                   "",
		`-m comment --comment "-m limit"`:                                     "",
		"-m limit --limit 3/min":                                              "limit",
		"-m hashlimit --hashlimit-above 3/min --hashlimit-name x":             "hashlimit",
		"-m recent --update --seconds 30 --hitcount 6 --name DEFAULT":         "recent",
		"-m connlimit --connlimit-above 3":                                    "connlimit",
		"-m connbytes --connbytes 100:":                                       "connbytes",
		"-m quota --quota 100":                                                "quota",
		"-m statistic --mode random --probability 0.5":                        "statistic",
		"-m time --timestart 08:00":                                           "time",
		"-m string --string x --algo bm":                                      "string",
		"-m u32 --u32 0=0":                                                    "u32",
		"-m bpf --bytecode 1":                                                 "bpf",
		"-m length --length 1:100":                                            "length",
		"-m ttl --ttl-eq 1":                                                   "ttl",
		"-m mac --mac-source 00:11:22:33:44:55":                               "mac",
		"-m policy --dir in --pol ipsec":                                      "policy",
		"-m osf --genre Linux":                                                "osf",
		"-m socket":                                                           "socket",
		"-m conntrack --ctexpire 1:9":                                         "ctexpire",
		"-m set --match-set s src --packets-gt 9":                             "packets-gt",
		"-m news --news":                                                      "news",
		"-p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -m recent --set": "recent",
	} {
		saved := parseSave(":INPUT DROP [0:0]\n-A INPUT "+words+" -j ACCEPT\n", label{})
		if got := saved.beyond("INPUT"); got != want {
			t.Errorf("%s: %q decides, want %q", words, got, want)
		}
	}
}

// TestMatchesOfTheKernel: those whose words tell more than their names do, as structures of the kernel.
func TestMatchesOfTheKernel(t *testing.T) {
	tracked := func(flags ...byte) []byte {
		return append(make([]byte, matchFlags), append(flags, make([]byte, 16)...)...)
	}
	counted := make([]byte, 48)
	counted[setCounters] = 1
	for _, tt := range []struct {
		name string
		info []byte
		want string
	}{
		{"set", make([]byte, 4), ""},
		{"set", make([]byte, 48), ""},
		{"set", counted, "counters of a set"},
		{"conntrack", tracked(0xff), "ctexpire"},
		{"conntrack", tracked(0x7f), ""},
		{"conntrack", nil, ""},
		{"string", nil, "string"},
	} {
		if got := peculiarMatch(tt.name, tt.info); got != tt.want {
			t.Errorf("%s with %v: %q, want %q", tt.name, tt.info, got, tt.want)
		}
	}
}

func bytesOf(kind uint16, value ...byte) netlink.Attribute {
	return nest(kind, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: value})
}

// TestPeculiar: each of nftables' expressions, by whether it is about more than who comes and where to.
func TestPeculiar(t *testing.T) {
	accept := verdict(nfAccept)
	meta := func(key uint32) netlink.Attribute {
		return expression("meta", value(unix.NFTA_META_DREG, 1), value(unix.NFTA_META_KEY, key))
	}
	track := func(key uint32) netlink.Attribute {
		return expression("ct", value(unix.NFTA_CT_DREG, 1), value(unix.NFTA_CT_KEY, key))
	}
	load := func(base, offset, length uint32) netlink.Attribute {
		return expression("payload", value(unix.NFTA_PAYLOAD_DREG, 1), value(unix.NFTA_PAYLOAD_BASE, base), value(unix.NFTA_PAYLOAD_OFFSET, offset), value(unix.NFTA_PAYLOAD_LEN, length))
	}
	is := func(what byte) netlink.Attribute {
		return expression("cmp", value(unix.NFTA_CMP_SREG, 1), value(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ), bytesOf(unix.NFTA_CMP_DATA, what))
	}
	isNot := func(what byte) netlink.Attribute {
		return expression("cmp", value(unix.NFTA_CMP_SREG, 1), value(unix.NFTA_CMP_OP, unix.NFT_CMP_NEQ), bytesOf(unix.NFTA_CMP_DATA, what))
	}
	object := func(kind uint32) netlink.Attribute {
		return expression("objref", value(unix.NFTA_OBJREF_IMM_TYPE, kind))
	}
	write := expression("meta", value(unix.NFTA_META_SREG, 1), value(unix.NFTA_META_KEY, unix.NFT_META_MARK))
	const network, transport = unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	v4 := []netlink.Attribute{meta(unix.NFT_META_NFPROTO), is(unix.NFPROTO_IPV4)}
	v6 := []netlink.Attribute{meta(unix.NFT_META_NFPROTO), is(unix.NFPROTO_IPV6)}
	tcp := []netlink.Attribute{meta(unix.NFT_META_L4PROTO), is(unix.IPPROTO_TCP)}
	icmp := []netlink.Attribute{meta(unix.NFT_META_L4PROTO), is(unix.IPPROTO_ICMP)}
	limit := expression("limit")
	type list = []netlink.Attribute
	for _, tt := range []struct {
		name        string
		family      byte
		expressions []netlink.Attribute
		want        string
	}{
		{"link", unix.NFPROTO_INET, list{meta(unix.NFT_META_IIFNAME), is(1)}, ""},
		{"mark", unix.NFPROTO_INET, list{meta(unix.NFT_META_MARK), is(1)}, ""},
		{"kind of packet", unix.NFPROTO_INET, list{meta(unix.NFT_META_PKTTYPE), is(1)}, ""},
		{"length", unix.NFPROTO_INET, list{meta(unix.NFT_META_LEN), is(1)}, "length"},
		{"hour", unix.NFPROTO_INET, list{meta(metaTimeHour), is(1)}, "hour"},
		{"random", unix.NFPROTO_INET, list{meta(unix.NFT_META_PRANDOM), is(1)}, "random"},
		{"processor", unix.NFPROTO_INET, list{meta(unix.NFT_META_CPU), is(1)}, "meta"},
		{"a mark is set", unix.NFPROTO_INET, list{write}, ""},
		{"ct state", unix.NFPROTO_INET, list{track(unix.NFT_CT_STATE), is(8)}, ""},
		{"ct status", unix.NFPROTO_INET, list{track(unix.NFT_CT_STATUS), is(8)}, ""},
		{"ct bytes", unix.NFPROTO_INET, list{track(unix.NFT_CT_BYTES), is(8)}, "ct bytes"},
		{"ct id", unix.NFPROTO_INET, list{track(unix.NFT_CT_ID), is(8)}, "ct"},
		{"fib", unix.NFPROTO_INET, list{expression("fib")}, ""},
		{"counter, log", unix.NFPROTO_INET, list{expression("counter"), expression("last"), expression("log")}, ""},

		{"IPv4 source", unix.NFPROTO_IPV4, list{load(network, 12, 4), is(1)}, ""},
		{"IPv4 source by /8", unix.NFPROTO_IPV4, list{load(network, 12, 1), is(1)}, ""},
		{"IPv4 source and destination", unix.NFPROTO_IPV4, list{load(network, 12, 8), is(1)}, ""},
		{"IPv4 protocol", unix.NFPROTO_IPV4, list{load(network, 9, 1), is(6)}, ""},
		{"IPv4 TTL", unix.NFPROTO_IPV4, list{load(network, 8, 1), is(1)}, "payload"},
		{"IPv4 length", unix.NFPROTO_IPV4, list{load(network, 2, 2), is(1)}, "payload"},
		{"IPv4 options", unix.NFPROTO_IPV4, list{load(network, 20, 1), is(1)}, "payload"},
		{"IPv4 source and what is behind", unix.NFPROTO_IPV4, list{load(network, 12, 9), is(1)}, "payload"},
		{"IPv6 source", unix.NFPROTO_IPV6, list{load(network, 8, 16), is(1)}, ""},
		{"IPv6 source by /8", unix.NFPROTO_IPV6, list{load(network, 8, 1), is(1)}, ""},
		{"IPv6 next header", unix.NFPROTO_IPV6, list{load(network, 6, 1), is(6)}, ""},
		{"IPv6 hop limit", unix.NFPROTO_IPV6, list{load(network, 7, 1), is(6)}, "payload"},
		{"inet, IPv4 TTL", unix.NFPROTO_INET, append(slices.Clone(v4), load(network, 8, 1), is(1)), "payload"},
		{"inet, IPv6 source by /8", unix.NFPROTO_INET, append(slices.Clone(v6), load(network, 8, 1), is(1)), ""},
		{"inet, of which family?", unix.NFPROTO_INET, list{load(network, 8, 1), is(1)}, "payload"},
		{"inet, of one family or the other", unix.NFPROTO_INET, list{meta(unix.NFT_META_NFPROTO), isNot(unix.NFPROTO_IPV4), load(network, 8, 1), is(1)}, "payload"},

		{"ports", unix.NFPROTO_INET, list{load(transport, 0, 4), is(1)}, ""},
		{"TCP's flags", unix.NFPROTO_INET, append(slices.Clone(tcp), load(transport, 13, 1), is(2)), ""},
		{"TCP's window", unix.NFPROTO_INET, append(slices.Clone(tcp), load(transport, 14, 2), is(2)), "payload"},
		{"where TCP has flags", unix.NFPROTO_INET, list{load(transport, 13, 1), is(2)}, "payload"},
		{"MAC address", unix.NFPROTO_INET, list{load(unix.NFT_PAYLOAD_LL_HEADER, 6, 6), is(2)}, "payload"},
		{"data", unix.NFPROTO_INET, list{load(unix.NFT_PAYLOAD_INNER_HEADER, 0, 4), is(2)}, "payload"},
		{"an offset without end", unix.NFPROTO_INET, list{load(transport, 1<<32-1, 2), is(2)}, "payload"},
		{"routing header", unix.NFPROTO_IPV6, list{expression("exthdr", netlink.Attribute{Type: unix.NFTA_EXTHDR_TYPE, Data: []byte{43}}), is(0)}, ""},
		{"a header is there", unix.NFPROTO_IPV6, list{expression("exthdr", netlink.Attribute{Type: unix.NFTA_EXTHDR_TYPE, Data: []byte{60}}, value(unix.NFTA_EXTHDR_FLAGS, 1)), is(1)}, ""},
		{"what is in a header", unix.NFPROTO_IPV6, list{expression("exthdr", netlink.Attribute{Type: unix.NFTA_EXTHDR_TYPE, Data: []byte{60}}), is(1)}, "exthdr"},
		{"TCP option is set", unix.NFPROTO_IPV4, list{expression("exthdr", value(unix.NFTA_EXTHDR_OP, 1), value(unix.NFTA_EXTHDR_SREG, 1))}, ""},
		{"TCP option", unix.NFPROTO_IPV4, list{expression("exthdr", value(unix.NFTA_EXTHDR_OP, 1)), is(0)}, "exthdr"},

		{"limit", unix.NFPROTO_INET, list{limit}, "limit"},
		{"limit of ICMP", unix.NFPROTO_INET, append(slices.Clone(icmp), limit), ""},
		{"limit ahead of ICMP", unix.NFPROTO_INET, append(list{limit}, icmp...), ""},
		{"limit of ICMP by IPv4's header", unix.NFPROTO_IPV4, list{load(network, 9, 1), is(unix.IPPROTO_ICMP), limit}, ""},
		{"limit of all but ICMP", unix.NFPROTO_INET, list{meta(unix.NFT_META_L4PROTO), isNot(unix.IPPROTO_ICMP), limit}, "limit"},
		{"limit, where another register is compared", unix.NFPROTO_INET, list{meta(unix.NFT_META_L4PROTO), meta(unix.NFT_META_MARK), is(1), limit}, "limit"},
		{"connlimit", unix.NFPROTO_INET, list{expression("connlimit")}, "connlimit"},
		{"quota", unix.NFPROTO_INET, list{expression("quota")}, "quota"},
		{"numgen", unix.NFPROTO_INET, list{expression("numgen")}, "numgen"},
		{"hash", unix.NFPROTO_INET, list{expression("hash")}, "hash"},
		{"osf", unix.NFPROTO_INET, list{expression("osf")}, "osf"},
		{"socket", unix.NFPROTO_INET, list{expression("socket")}, "socket"},
		{"dynset", unix.NFPROTO_INET, list{expression("dynset", named(unix.NFTA_DYNSET_SET_NAME, "s"))}, filledSet},
		{"named counter", unix.NFPROTO_INET, list{object(unix.NFT_OBJECT_COUNTER)}, ""},
		{"named limit", unix.NFPROTO_INET, list{object(unix.NFT_OBJECT_LIMIT)}, "limit"},
		{"named quota", unix.NFPROTO_INET, list{object(unix.NFT_OBJECT_QUOTA)}, "quota"},
		{"an object by a map", unix.NFPROTO_INET, list{expression("objref", named(unix.NFTA_OBJREF_SET_NAME, "m"))}, "objref"},
		{"string", unix.NFPROTO_IPV4, list{expression("match", named(unix.NFTA_MATCH_NAME, "string"))}, "string"},
		{"multiport", unix.NFPROTO_IPV4, list{expression("match", named(unix.NFTA_MATCH_NAME, "multiport"))}, ""},
		{"news", unix.NFPROTO_IPV4, list{expression("news")}, "news"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := netlink.MarshalAttributes(append(tt.expressions, accept))
			if err != nil {
				t.Fatal(err)
			}
			if got := parseExpressions(tt.family, list); got.beyond != tt.want {
				t.Errorf("read %+v, want %q", got, tt.want)
			}
		})
	}
}

// TestSets: a set that rules fill, and one whose elements count.
func TestSets(t *testing.T) {
	list, err := netlink.MarshalAttributes([]netlink.Attribute{
		expression("dynset", named(unix.NFTA_DYNSET_SET_NAME, "s")),
		expression("lookup", named(unix.NFTA_LOOKUP_SET, "t")),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := parseExpressions(unix.NFPROTO_INET, list); !got.writes || !reflect.DeepEqual(got.fills, []string{"s"}) || !reflect.DeepEqual(got.sets, []string{"t"}) {
		t.Errorf("read %+v", got)
	}
	one := func(kind uint16, name string) netlink.Attribute { return nest(kind, named(unix.NFTA_EXPR_NAME, name)) }
	for _, tt := range []struct {
		attribute netlink.Attribute
		counts    bool
	}{
		{named(unix.NFTA_SET_TABLE, "t"), false},
		{one(nftaSetExpr, "counter"), false},
		{one(nftaSetExpr, "limit"), true},
		{nest(nftaSetExpressions, one(unix.NFTA_LIST_ELEM, "counter")), false},
		{nest(nftaSetExpressions, one(unix.NFTA_LIST_ELEM, "counter"), one(unix.NFTA_LIST_ELEM, "quota")), true},
	} {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{named(unix.NFTA_SET_NAME, "s"), tt.attribute})
		if err != nil {
			t.Fatal(err)
		}
		if name, counts := parseSet(data); name != "s" || counts != tt.counts {
			t.Errorf("%v: set %q counts: %v", tt.attribute, name, counts)
		}
	}
}
