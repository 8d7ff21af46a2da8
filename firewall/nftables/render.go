package nftables

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// The chains. Those of a family have its number behind the name.
const (
	chainForward     = "forward"
	chainDestination = "dstnat"
	chainOutputNAT   = "dstnat_output"
	chainSource      = "srcnat"
	chainPrerouting  = "prerouting"
	chainDivert      = "divert"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainInput       = "input"
	chainInquiry     = "inquiry"
	chainGuard       = "guard"
	chainPermit      = "permit" // only gone to
)

// bases are the places of the base chains, and why there:
//
//	forward        -2     Just ahead of the latch (-1) and everybody's filter rules (0). A drop is final at any priority; but the
//	                      mark that tells them what is permitted must come after mangle (-150), where a MARK rule would overwrite it.
//	inquiry         1     Right behind iptables' filter (0), so behind DOCKER-USER, and ahead of others, whom nobody asks: firewalld is at 10.
//	                      Only where DOCKER-USER has rules.
//	dstnat        -99     Published ports, behind nft's dstnat (-100): who translates first wins, and that is an administrator's
//	                      rule in iptables' nat table, behind which our jump is with that backend too.
//	dstnat_output -99     The same for what the host itself sends.
//	srcnat        101     Masquerade, behind nft's srcnat (100), for the same reason.
//	prerouting   -150     nft's mangle: before the destination changes, since what it guards are addresses of the host.
//	divert       -149     Behind mangle, where others may write the whole mark, and ahead of the reverse path filters of others (firewalld's
//	                      is at -140), which are to see the way that the mark leads.
//	output       -150     The same place on the way out of the host: redirects to linked containers.
//	postrouting  -300     nft's raw, the first: nobody behind the forward hook sees our mark.
//	input        1000     Behind whoever refuses: what comes here was let in by all of them. Only where ports are learned.
//	guard        1000     Behind whatever refuses or counts. Only where no iptables can do it, see Backend.
var bases = map[string]Base{
	chainForward:     {"filter", unix.NF_INET_FORWARD, -2},
	chainInquiry:     {"filter", unix.NF_INET_FORWARD, 1},
	chainDestination: {"nat", unix.NF_INET_PRE_ROUTING, -99},
	chainOutputNAT:   {"nat", unix.NF_INET_LOCAL_OUT, -99},
	chainSource:      {"nat", unix.NF_INET_POST_ROUTING, 101},
	chainPrerouting:  {"filter", unix.NF_INET_PRE_ROUTING, -150},
	chainDivert:      {"filter", unix.NF_INET_PRE_ROUTING, -149},
	chainOutput:      {"filter", unix.NF_INET_LOCAL_OUT, -150},
	chainPostrouting: {"filter", unix.NF_INET_POST_ROUTING, -300},
	chainInput:       {"filter", unix.NF_INET_LOCAL_IN, 1000},
	chainGuard:       {"filter", unix.NF_INET_FORWARD, 1000},
}

// order is that in which base chains are written; the chains of the families come before.
var order = []string{
	chainPrerouting, chainDivert, chainDestination, chainInput, chainForward, chainInquiry, chainOutput, chainOutputNAT, chainPostrouting, chainSource, chainGuard,
}

// Render returns the table of a policy. alone says that there is no iptables on the host, so that the guard is
// the table's too.
func Render(p firewall.Policy, alone bool) Ruleset {
	var r Ruleset
	base := map[string][]Rule{}
	bridges := false
	for _, f := range p.Families() {
		n := namesOf(f.V6)
		if f.HasRules() {
			bridges = true
			r.Sets = append(r.Sets, sets(f, n)...)
			r.family(base, f, n)
		}
		if f.Guard && alone {
			if !f.HasRules() {
				r.Sets = append(r.Sets, dockerSet(f, n))
			}
			base[chainGuard] = append(base[chainGuard], guard(f, n)...)
		}
	}
	if bridges {
		r.Chains = append(r.Chains, permit())
	}
	for _, name := range order {
		if rules := base[name]; rules != nil {
			r.Chains = append(r.Chains, Chain{Name: name, Base: bases[name], Rules: rules})
		}
	}
	return r
}

// family adds the chains of a family, and to the base chains what leads to them.
func (r *Ruleset) family(base map[string][]Rule, f firewall.Family, n names) {
	add := func(chain string, rules ...Rule) { base[chain] = append(base[chain], rules...) }
	r.Chains = append(r.Chains, connected(n), refuse(f, n), published(n), guarded(n), outside(f, n), sources(f, n))
	if f.Loopback {
		add(chainPrerouting, loopbackGuard(n)...)
	}
	if f.Limited {
		r.Chains = append(r.Chains, limitHere(n), limit(n))
		add(chainPrerouting, limited(n))
	}
	if f.Learns {
		r.Chains = append(r.Chains, ask(n), learn(n))
		add(chainInput, letIn(n)...)
	}
	if f.Divert {
		add(chainDivert, divert(n)...)
	}
	if f.Inquire {
		add(chainInquiry, asked(n)...)
	}
	add(chainDestination, fromOutside(n)...)
	add(chainForward, rule("what is refused and permitted", n.only(), jump(n.forward)))
	add(chainOutput, redirects(n))
	add(chainOutputNAT, fromHost(f, n)...)
	add(chainPostrouting, unmark(n)...)
	add(chainSource, rule("sources", n.only(), jump(n.sources)))
}

func rule(why string, parts ...Part) Rule { return Rule{Parts: parts, Why: why} }

// names are the family's words, and its names of chains and sets.
type names struct {
	family
	v6 bool

	forward     string // chain: what is refused and permitted
	established string // chain: the same of what belongs to an established flow
	published   string // chain: published ports
	guarded     string // chain: those that are not translated for everybody from outside
	outside     string // chain: published ports, for who comes from outside
	limit       string // chain: who may come to which port of the host
	limitHere   string // chain: who may come to which port of one address
	ask         string // chain: whom the host lets in
	learn       string // chain: whom the host let in
	sources     string // chain: masquerade

	nets        string // subnet and bridge of each network
	bridges     string // bridge and itself, of networks that do not keep containers apart
	subnets     string // subnets
	masquerade  string // those whose source is rewritten
	snat        string // map: those of them with a source address of their own, and that address
	ports       string // container ports to which published ports lead
	portRanges  string // the same, many at a time
	open        string // container ports that are open at their own address
	routed      string // subnets that are reached without translation
	unprotected string // subnets that are open to the world
	trusted     string // subnet and the link from which its published ports are reached directly
	apart       string // subnet and bridge of each network that keeps its containers apart
	links       string // container port, and the container that may reach it
	docker      string // bridges of Docker's own driver

	leads    places // maps: where published ports lead
	guards   places // maps: where those lead that are not translated for everybody from outside
	learning places // those of them that are learned
	asked    string // who began a connection from outside to which port a moment ago, true or not
	learned  string // who came from outside to which port, and was let in a moment ago
	proxied  string // ports whose loopback addresses are left to the proxy

	sourced, linked pair // ports that only some sources may reach, and that only by some links one may
	comers, ways    pair // with which sources, and which links
}

// places are the sets and maps for ports of the host.
type places struct {
	here       string // of one address
	everywhere string // of all addresses
	hereRanges string // many ports at a time, which keep their numbers where they lead somewhere
	ranges     string
}

func placesOf(name, number string) places {
	return places{name + "_on" + number, name + "_any" + number, name + "_ranges_on" + number, name + "_ranges_any" + number}
}

// has reports whether the set or map is one of them.
func (p places) has(name string) bool {
	return slices.Contains([]string{p.here, p.everywhere, p.hereRanges, p.ranges}, name)
}

// holding are the four ways to find that a packet's destination is such a port.
func (p places) holding(n names) []Part {
	return []Part{
		in(p.here, n.to, l4, toPort), in(p.hereRanges, n.to, l4, toPort), in(p.everywhere, l4, toPort), in(p.ranges, l4, toPort),
	}
}

// pair is the set for ports of one address and that for those of all addresses of the host.
type pair struct{ here, everywhere string }

func pairOf(name, number string) pair { return pair{name + "_on" + number, name + "_any" + number} }

// of returns the set for a port of an address, or of all.
func (p pair) of(host netip.Addr) string {
	if host.IsValid() {
		return p.here
	}
	return p.everywhere
}

func namesOf(v6 bool) names {
	number := "4"
	if v6 {
		number = "6"
	}
	return names{
		family: familyOf(v6), v6: v6,
		forward: "forward" + number, established: "established" + number, published: "published" + number, guarded: "guarded" + number, outside: "outside" + number, sources: "sources" + number,
		limit: "limit" + number, limitHere: "limit_on" + number, ask: "ask" + number, learn: "learn" + number,
		nets: "nets" + number, bridges: "bridges" + number, subnets: "subnets" + number, masquerade: "masquerade" + number, snat: "snat" + number,
		ports: "ports" + number, portRanges: "port_ranges" + number, open: "open" + number,
		routed: "routed" + number, unprotected: "unprotected" + number, trusted: "trusted" + number,
		apart: "apart" + number, links: "links" + number, docker: "docker" + number,
		leads:  places{"published_on" + number, "published_any" + number, "ranges_on" + number, "ranges_any" + number},
		guards: placesOf("guarded", number), learning: placesOf("learning", number),
		asked: "asked" + number, learned: "learned" + number, proxied: "proxied" + number,
		sourced: pairOf("sourced", number), linked: pairOf("linked", number),
		comers: pairOf("comers", number), ways: pairOf("ways", number),
	}
}

// What packets of the family are looked up by.

// toPublished are the two ways to find that a packet's destination is a container port that is published.
func (n names) toPublished() []Part {
	return []Part{in(n.ports, n.to, l4, toPort), in(n.portRanges, n.to, l4, toPort)}
}
