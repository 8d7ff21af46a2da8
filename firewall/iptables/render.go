package iptables

import (
	"fmt"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// The chains of the skeleton.
const (
	chainForward     = prefix + "-FORWARD" // in mangle: refuse; in filter: permit
	chainEstablished = prefix + "-ESTABLISHED"
	chainAnswers     = prefix + "-ANSWERS"
	chainMSS         = prefix + "-MSS"
	chainOutput      = prefix + "-OUTPUT"
	chainPrerouting  = prefix + "-PREROUTING" // in mangle: loopback addresses; in nat: published ports
	chainLimit       = prefix + "-LIMIT"
	chainDivert      = prefix + "-DIVERT"
	chainPass        = prefix + "-PASS"        // only gone to
	chainUnprotected = prefix + "-UNPROTECTED" // in mangle
	chainOpen        = prefix + "-OPEN"        // its like in filter
	chainOut         = prefix + "-OUT"         // the like of chainDocker in filter
	chainDocker      = prefix + "-DOCKER"
	chainInquiry     = prefix + "-INQUIRY"
	chainGuard       = prefix + "-GUARD"
	chainDNAT        = prefix + "-DNAT"
	chainPostrouting = prefix + "-POSTROUTING"
	chainUser        = prefix + "-USER"
	chainDockerUser  = "DOCKER-USER"
)

// Render returns the rules and sets of one family's policy. Where there is nothing but the
// guard to keep, nothing else is there.
func Render(f firewall.Family) Ruleset {
	r := Ruleset{V6: f.V6}
	if f.HasRules() {
		n := namesOf(f.V6)
		r.Sets = sets(f, n)
		open := unprotected(chainOpen, f.DockerBridges, Rule{Why: "unprotected network", Target: "ACCEPT"})
		out := docker(chainOut, f.DockerBridges, Rule{Why: "outwards", Target: "ACCEPT"})
		r.Tables = []Table{mangle(f, n), filter(permit(n, f), open, out), nat(f, n)}
		if f.Inquire {
			for i := range r.Tables[:2] {
				r.Tables[i].inquire(f.V6)
			}
		}
	}
	if f.Guard {
		r.guard(guard(f))
	}
	return r
}

// guard adds the guard to the filter table, and the table if it is not there yet.
func (r *Ruleset) guard(c Chain) {
	i := slices.IndexFunc(r.Tables, func(t Table) bool { return t.Name == "filter" })
	if i < 0 {
		i, r.Tables = 0, []Table{{Name: "filter"}}
	}
	t := &r.Tables[i]
	t.Chains = append(t.Chains, c)
	t.Jumps = append(t.Jumps, Jump{From: "FORWARD", Place: Last, Rule: Rule{Why: "the host is no router", Target: chainGuard}})
}

func mangle(f firewall.Family, n names) Table {
	t := Table{
		Name: "mangle",
		User: []string{chainUser},
		Chains: []Chain{
			refuse(n, f), connected(n, f), answers(f.DockerBridges), docker(chainDocker, f.DockerBridges), unprotected(chainUnprotected, f.DockerBridges, tellLatch(f)...), mss(), redirects(n, f.V6),
		},
		Jumps: []Jump{
			toUser,
			{From: "FORWARD", Place: First, Rule: Rule{Why: "what is refused", Target: chainForward}},
			{From: "OUTPUT", Place: Bottom, Rule: Rule{Match: "-p " + n.icmp, Why: "redirects", Target: chainOutput}},
		},
	}
	if f.Latched {
		t.Chains = append(t.Chains, Chain{Name: chainPass, Rules: tellLatch(f)})
		t.Jumps = append(t.Jumps, onceMore)
	}
	if f.Loopback {
		t.Chains = append(t.Chains, loopbackGuard(n))
		t.Jumps = append(t.Jumps, Jump{From: "PREROUTING", Place: Bottom, Rule: Rule{Match: fromOurs, Why: "loopback addresses", Target: chainPrerouting}})
	}
	if f.Limited {
		t.Chains = append(t.Chains, limit(f, n)...)
		t.Jumps = append(t.Jumps, limited)
	}
	if f.Divert {
		t.Chains = append(t.Chains, divert(n))
		// Behind whoever writes the whole mark, and ahead of the reverse path filters of others, which are to see the way that it leads.
		t.Jumps = append(t.Jumps, Jump{From: "PREROUTING", Place: Bottom, Rule: Rule{Match: inSet(n.subnets, "src"), Why: "answers to the host's sockets", Target: chainDivert}})
	}
	return t
}

// onceMore leads what is new and has no mark through the chain again, behind everybody's rules: one of them may have set the whole
// mark (-j MARK --set-mark), and taken off what is for the latch.
var onceMore = Jump{From: "FORWARD", Place: Last, Rule: Rule{Match: join(fresh, unpassed), Why: "once more, for the latch", Target: chainForward}}

// toUser leads to the user's chain that sees published ports as they are outside.
var toUser = Jump{From: "PREROUTING", Place: Top, Rule: Rule{Why: "your rules, before DNAT", Target: chainUser}}

// filter has the chain that says what is permitted, behind the user's.
func filter(chains ...Chain) Table {
	return Table{
		Name:   "filter",
		User:   []string{chainDockerUser},
		Chains: chains,
		Jumps: []Jump{
			{From: "FORWARD", Place: Top, Plain: true, Rule: Rule{Target: chainDockerUser}},
			{From: "FORWARD", Place: AfterUser, Rule: Rule{Why: "what is permitted", Target: chainForward}},
		},
	}
}

func nat(f firewall.Family, n names) Table {
	local := "-m addrtype --dst-type LOCAL"
	output := join("! -d "+n.loopback, local)
	if f.Loopback {
		output = local
	}
	return Table{
		Name:   "nat",
		Chains: append(dnat.chains(f.Ports), outside(f, n), postrouting(f, n)),
		Jumps: []Jump{
			{From: "PREROUTING", Place: Bottom, Rule: Rule{
				// A reply to a link-local client would need its interface, which NAT
				// does not keep (RFC 4007, section 6).
				Match: join(byFamily(f.V6, "", "! -s fe80::/10"), "! -d "+n.loopback, local),
				Why:   "published ports", Target: chainPrerouting,
			}},
			{From: "OUTPUT", Place: Bottom, Rule: Rule{
				Match: output,
				Why:   "published ports, from the host", Target: chainDNAT,
			}},
			{From: "POSTROUTING", Place: Bottom, Rule: Rule{Why: "masquerade", Target: chainPostrouting}},
		},
	}
}

// names are the family's names of sets, and its words for the same things.
type names struct {
	nets        string // subnet and bridge of each network
	subnets     string // subnets
	masquerade  string // those whose source is rewritten
	ports       string // container ports to which published ports lead
	open        string // container ports that are open at their own address
	routed      string // subnets that are reached without translation
	unprotected string // subnets that are open to the world
	trusted     string // subnet and the link from which its published ports are reached directly
	apart       string // subnet and bridge of each network that keeps its containers apart
	links       string // container port, and the container that may reach it

	insideOn string // ports of one address of the host that are not translated for who comes from outside
	inside   string // those of all addresses: each has two prefixes, which are all addresses
	// Ports that only some sources may reach, and these sources: of one address, which may be a container's, and of all.
	sourcedOn, comersOn, sourced, comers string
	// Ports of a container that only by some links one may reach, and the container's address with these links.
	linkedOn, ways string

	loopback string // prefix
	icmp     string // protocol
}

func namesOf(v6 bool) names {
	family := byFamily(v6, "4", "6")
	set := func(name string) string { return prefix + "-" + name + family }
	return names{
		nets: set("nets"), subnets: set("subnets"), masquerade: set("masq"), ports: set("ports"),
		open: set("open"), routed: set("routed"), unprotected: set("unprotected"), trusted: set("trusted"),
		apart: set("apart"), links: set("links"),
		insideOn: set("inside-on"), inside: set("inside"),
		sourcedOn: set("sourced-on"), comersOn: set("comers-on"), sourced: set("sourced"), comers: set("comers"),
		linkedOn: set("linked-on"), ways: set("ways"),
		loopback: byFamily(v6, "127.0.0.0/8", "::1/128"),
		icmp:     byFamily(v6, "icmp", "ipv6-icmp"),
	}
}

// setType returns the type of the set with the name.
func (n names) setType(name string) string {
	switch name {
	case n.nets, n.trusted, n.apart, n.ways:
		return hashNetIface
	case n.ports, n.open, n.insideOn, n.sourcedOn, n.linkedOn:
		return hashIPPort
	case n.inside, n.sourced, n.comers:
		return hashNetPort
	case n.comersOn:
		return hashIPPortNet
	case n.links:
		return hashIPPortIP
	}
	return hashNet
}

// Matches that several rules share.
var (
	fromOurs   = devgroup("--src-group", state.GroupBridge, state.GroupBridgeMask)
	fromOthers = devgroup("! --src-group", state.GroupBridge, state.GroupBridgeMask)
	toOurs     = devgroup("--dst-group", state.GroupBridge, state.GroupBridgeMask)
	toOthers   = devgroup("! --dst-group", state.GroupBridge, state.GroupBridgeMask)

	fromOrdinary = devgroup("--src-group", state.GroupBridge, ^state.GroupAdoptedBit)
	fromInternal = devgroup("--src-group", state.GroupInternal, ^state.GroupAdoptedBit)
	toInternal   = devgroup("--dst-group", state.GroupInternal, ^state.GroupAdoptedBit)

	// fromMade are the bridges that we made: on them nobody but containers is to be expected.
	fromMade = devgroup("--src-group", state.GroupBridge, state.GroupBridgeMask|state.GroupAdoptedBit)
)

// unpassed matches packets without the mark for the latch.
var unpassed = fmt.Sprintf("-m mark ! --mark %#x/%#x", firewall.MarkPassed, firewall.MarkPassed)

func devgroup(which string, value, mask uint32) string {
	return fmt.Sprintf("-m devgroup %s %#x/%#x", which, value, mask)
}

const (
	established   = "-m conntrack --ctstate RELATED,ESTABLISHED"
	redirected    = "-m conntrack --ctstate DNAT"
	answered      = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
	notRedirected = "-m conntrack ! --ctstate DNAT"
	invalid       = "-m conntrack --ctstate INVALID"
	fresh         = "-m conntrack --ctstate NEW,INVALID,UNTRACKED"
	answering     = "-m conntrack ! --ctstate NEW,INVALID"

	// asking is what goes the way of the connection's first packet, and replying what goes the other way.
	asking   = "-m conntrack --ctdir ORIGINAL"
	replying = "-m conntrack --ctdir REPLY"

	notEstablished = "-m conntrack ! --ctstate RELATED,ESTABLISHED"
	// notLo is what does not come from the host itself.
	notLo = "! -i lo"
)

// inSet matches a packet against a set; dimensions are src and dst as in ipset(8): for an
// interface src is the incoming one.
func inSet(name, dimensions string) string {
	return "-m set --match-set " + name + " " + dimensions
}

// notInSet is inSet for packets that are not in the set.
func notInSet(name, dimensions string) string {
	return "-m set ! --match-set " + name + " " + dimensions
}

func join(parts ...string) string {
	out := ""
	for _, p := range parts {
		if p != "" && out != "" {
			out += " "
		}
		out += p
	}
	return out
}

// byFamily returns what the family writes of two texts.
func byFamily(v6 bool, text4, text6 string) string {
	if v6 {
		return text6
	}
	return text4
}
