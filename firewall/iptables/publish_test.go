package iptables

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// hostAddrs are the addresses that a port may be restricted to, by family; the zero Addr means all.
var hostAddrs = map[bool][]netip.Addr{
	false: {{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("198.51.100.1")},
	true:  {{}, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("fd00::1")},
}

// randomPorts returns up to n ports, all different; half of them lie close together.
func randomPorts(seed uint64, n int, v6 bool) []firewall.Port {
	r := rand.New(rand.NewPCG(seed, 1))
	base := 1 + r.IntN(60000)
	seen := map[firewall.Port]bool{}
	var out []firewall.Port
	for range n {
		p := firewall.Port{Proto: state.TCP, HostPort: uint16(1 + r.IntN(1<<16-1))}
		if r.IntN(2) == 0 {
			p.HostPort = uint16(base + r.IntN(n/2+1)%5000)
		}
		if r.IntN(3) == 0 {
			p.Proto = []state.Proto{state.UDP, state.SCTP}[r.IntN(2)]
		}
		if r.IntN(4) == 0 {
			p.Host = hostAddrs[v6][r.IntN(4)]
		}
		if !seen[p] {
			seen[p] = true
			p.Target = netip.AddrPortFrom(container(v6, r.IntN(250)), uint16(len(out)+1))
			out = append(out, p)
		}
	}
	sortPorts(out)
	return out
}

func container(v6 bool, i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf(byFamily(v6, "10.1.0.%d", "fd00:1::%d"), i+2))
}

// sortPorts brings ports into the order that firewall.Render gives them.
func sortPorts(ports []firewall.Port) {
	slices.SortFunc(ports, func(a, b firewall.Port) int {
		if a.Proto != b.Proto {
			return int(a.Proto) - int(b.Proto)
		}
		if a.HostPort != b.HostPort {
			return int(a.HostPort) - int(b.HostPort)
		}
		return b.Host.Compare(a.Host)
	})
}

// connection is what a DNAT rule looks at.
type connection struct {
	proto state.Proto
	dst   netip.Addr
	port  uint16
}

// lookUp is the plain meaning of published ports.
func lookUp(ports []firewall.Port, c connection) string {
	for _, host := range []netip.Addr{c.dst, {}} {
		for _, p := range ports {
			if p.Proto == c.proto && p.HostPort == c.port && p.Host == host {
				return p.Target.String()
			}
		}
	}
	return ""
}

// tracer walks chains as the kernel does and counts the rules it meets.
type tracer struct {
	chains  map[string]Chain
	visited int
}

// walk returns where the connection is redirected to, "" if the chain ends.
func (tr *tracer) walk(t *rapid.T, chain string, c connection) string {
	ch, ok := tr.chains[chain]
	if !ok {
		t.Fatalf("jump to a chain that is not there: %s", chain)
	}
	for _, r := range ch.Rules {
		tr.visited++
		if !matches(t, r.Match, c) {
			continue
		}
		if to, ok := strings.CutPrefix(r.Target, "DNAT --to-destination "); ok {
			return to
		}
		if to := tr.walk(t, r.Target, c); to != "" {
			return to
		}
	}
	return ""
}

func matches(t *rapid.T, match string, c connection) bool {
	fields := strings.Fields(match)
	for i := 0; i < len(fields); i += 2 {
		value := fields[i+1]
		switch fields[i] {
		case "-p", "-m":
			if value != c.proto.String() {
				return false
			}
		case "-d":
			if netip.MustParseAddr(value) != c.dst {
				return false
			}
		case "--dport":
			first, last, ranged := strings.Cut(value, ":")
			if !ranged {
				last = first
			}
			low, err1 := strconv.Atoi(first)
			high, err2 := strconv.Atoi(last)
			if err1 != nil || err2 != nil || high > 65535 {
				t.Fatalf("bad range in %q", match)
			}
			if int(c.port) < low || int(c.port) > high {
				return false
			}
		default:
			t.Fatalf("the tracer does not know %q", match)
		}
	}
	return true
}

// TestDNATTree: for every published port and its neighbours the tree says what a
// look-up in the list says, after few rules.
func TestDNATTree(t *testing.T) {
	// Three protocols at the root, three levels below, and one chain with ports or with the
	// addresses of a single port.
	const most = 6*fanOut + leaf
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		n := rapid.SampledFrom([]int{0, 1, leaf, leaf + 1, 100, 1000, 10000}).Draw(t, "ports")
		ports := randomPorts(rapid.Uint64().Draw(t, "seed"), n, v6)
		tr := tracer{chains: map[string]Chain{}}
		for _, c := range dnat.chains(ports) {
			if _, twice := tr.chains[c.Name]; twice {
				t.Fatalf("two chains are called %s", c.Name)
			}
			if len(c.Name) > 28 { // XT_EXTENSION_MAXNAMELEN less the zero
				t.Fatalf("the name %s is too long", c.Name)
			}
			tr.chains[c.Name] = c
		}
		linear := index(ports)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "probes"), 2))
		for range 300 {
			c := connection{proto: state.TCP, dst: hostAddrs[v6][1+r.IntN(3)], port: uint16(r.IntN(1 << 16))}
			if len(ports) > 0 && r.IntN(4) > 0 {
				p := ports[r.IntN(len(ports))]
				c.proto, c.port = p.Proto, p.HostPort+uint16(r.IntN(3)-1)
			} else if r.IntN(2) == 0 {
				c.proto = []state.Proto{state.UDP, state.SCTP}[r.IntN(2)]
			}
			tr.visited = 0
			got := tr.walk(t, chainDNAT, c)
			if want := lookUp(linear[c.port], c); got != want {
				t.Fatalf("%v: the tree leads to %q, the list to %q", c, got, want)
			}
			if tr.visited > most {
				t.Fatalf("%v meets %d rules among %d ports", c, tr.visited, len(ports))
			}
		}
	})
}

// index spares lookUp ports with another number.
func index(ports []firewall.Port) map[uint16][]firewall.Port {
	out := map[uint16][]firewall.Port{}
	for _, p := range ports {
		out[p.HostPort] = append(out[p.HostPort], p)
	}
	return out
}

// TestDNATChangeIsSmall: one more port rewrites few rules, however many there are.
func TestDNATChangeIsSmall(t *testing.T) {
	ports := randomPorts(7, 10000, false)
	without := slices.Delete(slices.Clone(ports), 5000, 5001)
	have := loaded(map[string][]Chain{"nat": dnat.chains(without)})
	lines, _ := changeChains(have["nat"], Table{Name: "nat", Chains: dnat.chains(ports)})
	if len(lines) == 0 || len(lines) > 3*leaf {
		t.Errorf("one port more changes %d lines", len(lines))
	}
}

// loaded is the dump of a kernel that holds just these chains.
func loaded(tables map[string][]Chain) dump {
	d := dump{}
	for table, chains := range tables {
		d[table] = map[string][]string{}
		for _, c := range chains {
			d[table][c.Name] = nil
			for i, id := range ids(c.Name, c.Rules) {
				d[table][c.Name] = append(d[table][c.Name], c.Rules[i].spec(id))
			}
		}
	}
	return d
}
