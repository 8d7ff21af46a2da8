// Package nftables applies a firewall policy with the kernel's nftables, by netlink: no program is started for it.
//
// # What it owns
//
// The table inet drawbridge is ours, whole, and nothing else of nftables. It carries a comment; a table of that name
// without the comment is somebody's, and an error. `nft list table inet drawbridge` shows it.
//
// # Where the rules are
//
// The base chains and their priorities are the table above [Render]. A forwarded packet goes through one chain of its
// family, which drops what is refused and lets the rest pass; package firewall says what and why. All rules are constant.
// What varies is elements: of sets, and of maps that say for a published port where it leads. Per family:
//
//	nets, apart, trusted      prefix . interface      intervals
//	subnets, routed …         prefix                  intervals
//	ports, open, links        address . protocol . port (. address)
//	published_on, _any        (host address .) protocol . port : address . port
//	ranges_on, _any           (host address .) protocol . ports : address
//	guarded_on, _any          (host address .) protocol . port : address . port  not translated for everybody from outside
//	guarded_ranges_on, _any   (host address .) protocol . ports : address        the same
//	learning_on, _any …       (host address .) protocol . port(s)  those of them that are learned
//	learned                   source . interface . address . protocol . port, by the rules of chain learn, for a while
//	asked                     the same                             by the rules of chain ask, for a moment
//	sourced_on, _any          (address .) protocol . ports         for some sources only
//	comers_on, _any           (address .) protocol . ports . source
//	linked_on, _any           (address .) protocol . ports         by some links only
//	ways_on, _any             (address .) protocol . ports . interface
//	port_ranges               address . protocol . ports
//
// A published port of one address of the host comes before one of all. A range whose container ports have the host's
// numbers is one element: a map can hold an interval, and leave the port as it is, but not shift it. All others are an
// element each.
//
// # What is learned
//
// The chain input is behind whatever may refuse a packet for the host, so that what it sees was let in. It notes who began a connection,
// for a moment, and then who goes on with an answered one, once per connection: a bit of the connection's label (ct label) remembers
// that. Sets forget after their timeout, or when somebody calls [Backend.ForgetLearned]; their elements are nobody's
// business but the rules', and no difference. Sets and rules for it are there while a port is learned, those for limits while a port is
// limited.
//
// # Beside iptables
//
// An accept of ours ends our chain and no other. Where Docker or an administrator has iptables refuse what nobody
// accepts, what we permit must be accepted there too: it gets a bit of the packet's mark ([MarkPermitted]), and
// iptables.Marked accepts packets with the bit, by two rules behind DOCKER-USER. The bit is taken off on the packet's way
// out. Users' chains (DOCKER-USER, DRAWBRIDGE-USER) and the guard are in iptables, as with that backend. Where no iptables is
// installed there is nothing to tell, and users have tables of their own.
//
// # How it changes them
//
// [Render] turns a policy into a [Ruleset], a pure function. [Backend.Sync] compares it with the table and makes the
// difference one transaction over both families. A rule is recognised by an id in its comment, a hash over the rule and
// all before it in its chain; a chain that differs is written whole, sets are touched by elements only. Where a set or base
// chain is of another kind, as after an update, the table is made anew in the transaction of the rules.
//
// A transaction is all or nothing, but not at one moment for packets: sets of intervals, which limits are, change some milliseconds behind
// rules and all other sets. So where limits change there are up to three transactions: ways in that go (elements of ports, port_ranges, open and
// unprotected, and where published ports lead), limits and all else, ways in that come. What lies between two is closed.
//
// What differs between two states ([firewall.Change]) is elements, whose edits are found without a look at the rest. The
// table's contents are not remembered, but the state that they were rendered from.
//
// Each change of anybody raises the number of nftables' generation. A transaction of ours is bound to the generation that
// was read: if somebody was faster the kernel refuses it, and we read again. While the generation is that of our
// own last transaction nobody changed anything: the comparison is with what that was rendered from, and a Sync with nothing to do
// is one request to nftables and one for the host's bridges. iptables-nft raises the generation too. The legacy variant
// does not: its rules are read at every interval of the loop.
//
// # Be aware
//
// Kernel 5.10 is needed, for the comment of a table, with labels of connections (CONFIG_NF_CONNTRACK_LABELS). [Backend.Usable] asks the kernel.
//
// The mark has the length of the way from the forward hook to the way out. A rule that sets the whole mark in iptables' filter
// table ahead of ours (-j MARK --set-mark in DOCKER-USER) takes the bit away; --or-mark and --set-xmark with a mask do not. A rule there that compares
// the whole mark (-m mark --mark 1) does not match what we permit: give it a mask (--mark 1/0xff).
//
// Among nat's chains who translates first wins. An ACCEPT in iptables' nat table does not keep ours from translating: there
// is nothing to say so but the mangle table.
//
// Where no iptables is installed the guard is a chain of ours. There an accept of another table does not open
// what the guard refuses: whoever wants to route turns on forwarding himself, and no guard is made.
//
// The library's connection cannot bind a transaction to a generation, give a table a comment or ask for the generation, and
// has rules echoed. Of github.com/google/nftables we use the expressions and types; the messages around them are in message.go.
package nftables
