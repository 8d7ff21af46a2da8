// Package iptables applies a firewall policy with iptables, ip6tables and ipset.
//
// # What it owns
//
// Chains and sets whose names begin with DRAWBRIDGE are ours, whole. In chains that are
// not ours there is at most one jump of each kind, and it carries a comment that begins
// with "drawbridge". Everything else is left alone, to the byte and the counter.
// The two user chains (DOCKER-USER in filter, DRAWBRIDGE-USER in mangle) are created
// where they are missing and never flushed.
//
// # Where the rules are
//
//	mangle PREROUTING   -> DRAWBRIDGE-USER       the user's, before DNAT: --dport is the published port
//	mangle FORWARD      -> DRAWBRIDGE-FORWARD    what is refused; first, and nobody's filter rule comes before
//	mangle FORWARD      -> DRAWBRIDGE-FORWARD    new connections once more, last, with a latch (firewall.Latch)
//	filter FORWARD      -> DOCKER-USER           the user's, after DNAT, as with Docker
//	filter FORWARD      -> DRAWBRIDGE-FORWARD    what is permitted, after DOCKER-USER
//	filter FORWARD      -> DRAWBRIDGE-GUARD      last; only if we turned ip_forward on
//	mangle POSTROUTING  -> DRAWBRIDGE-INQUIRY    what asked about a client, and DOCKER-USER accepts; only while that has rules
//	mangle PREROUTING   -> DRAWBRIDGE-LIMIT      who may come to which port; only while one is limited
//	nat PREROUTING      -> DRAWBRIDGE-PREROUTING what is left to the host; all else to DRAWBRIDGE-DNAT
//	nat OUTPUT          -> DRAWBRIDGE-DNAT       published ports, a tree of chains by port
//	nat POSTROUTING     -> DRAWBRIDGE-POSTROUTING  masquerade, hairpin
//
// # How it changes them
//
// Where the rules are those that were left, as the generation of nf_tables tells, what differs between two states
// ([firewall.Change]) is written without a look at the rest: elements, and of the tree of chains those parts in which a
// port differs.
//
// [Render] turns a policy into a rule set, a pure function. [Backend.Sync] reads iptables-save and
// the sets, and writes only the difference: new set elements by netlink, then one
// iptables-restore per family and only for chains that differ, then the removal of old
// elements. The sets without which nobody comes in (ports, open and unprotected) are the other way round: what goes is removed
// first, and what comes is added last, behind what limits it. A chain is replaced whole, which iptables-restore does atomically within a table.
//
// A rule is recognised by an id in its comment, a hash over the rule and all rules before it in its
// chain. Rules are never compared as text: iptables-save does not return what was given
// (-p tcp --dport comes back as -p tcp -m tcp --dport).
//
// # What somebody else does
//
// Changes of sets and of the legacy variant's rules are told to nobody. [Backend.Watch] asks for the numbers of elements and of
// rules, which costs a few system calls, and compares them with those that were left.
//
// # Be aware
//
// The bridges of Docker's own driver are one rule each, not elements: a hash:net,iface set
// takes one prefix with at most 64 interfaces (ipset(8)).
//
// No set has a link beside a port. Ports that are limited to links are rules, a tree as for published ports, and no client is learned:
// ports that would be are left to the host.
//
// A physdev match loads br_netfilter, which changes what every bridge of the host does. The guard
// has one only where the kernel has br_netfilter already.
//
// A table is never named to the legacy variant's iptables-save: that would create it.
//
// iptables-restore is atomic per table, not over tables or families. The order of
// tables in a script is therefore part of its meaning: what is refused (mangle) before what is
// permitted (filter) before what leads inside (nat).
//
// Sets need the ip_set and xt_set modules; the kernel loads them by itself.
package iptables
