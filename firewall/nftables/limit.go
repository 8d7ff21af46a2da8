package nftables

import (
	"net/netip"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// limited leads what comes from outside to the rules that say who may come to a port. It is asked before the destination changes,
// whether the port is translated or a socket of the host serves it; what belongs to a connection was asked with its first packet.
func limited(n names) Rule {
	return rule("who may come", n.only(), fromOthers, notLo, unestablished, isLocal, jump(n.limit))
}

// limit refuses who may not come to a port of all addresses, or of one.
func limit(n names) Chain {
	return Chain{Name: n.limit, Rules: []Rule{
		rule("ports of one address", jump(n.limitHere)),
		rule("not for this source", in(n.sourced.everywhere, l4, toPort), notIn(n.comers.everywhere, l4, toPort, n.from), drop),
		rule("not by this link", in(n.linked.everywhere, l4, toPort), notIn(n.ways.everywhere, l4, toPort, iif), drop),
	}}
}

// limitHere refuses who may not come to a port of one address, which is the host's or, for what is routed, a container's.
func limitHere(n names) Chain {
	return Chain{Name: n.limitHere, Rules: []Rule{
		rule("not for this source", in(n.sourced.here, n.to, l4, toPort), notIn(n.comers.here, n.to, l4, toPort, n.from), drop),
		rule("not by this link", in(n.linked.here, n.to, l4, toPort), notIn(n.ways.here, n.to, l4, toPort, iif), drop),
	}}
}

// limitSets are the sets of limits without their elements. One element stands for many ports.
func limitSets(n names) []Set {
	here, everywhere := []datatype{n.addr, proto, service}, []datatype{proto, service}
	with := func(fields []datatype, last datatype) []datatype {
		return append(fields[:len(fields):len(fields)], last)
	}
	return []Set{
		{Name: n.sourced.here, Key: here, Interval: true},
		{Name: n.sourced.everywhere, Key: everywhere, Interval: true},
		{Name: n.comers.here, Key: with(here, n.addr), Interval: true},
		{Name: n.comers.everywhere, Key: with(everywhere, n.addr), Interval: true},
		{Name: n.linked.here, Key: here, Interval: true},
		{Name: n.linked.everywhere, Key: everywhere, Interval: true},
		{Name: n.ways.here, Key: with(here, ifname), Interval: true},
		{Name: n.ways.everywhere, Key: with(everywhere, ifname), Interval: true},
	}
}

// addLimits adds the elements of limits, which are sorted by protocol and port.
func addLimits(add func(set string, e Element), n names, limits []firewall.Limit) {
	for _, r := range rows(limits) {
		first, last := packPlace(r.Host, r.Proto, r.Port), packPlace(r.Host, r.Proto, r.last)
		to := func(set pair, from, until string) {
			add(set.of(r.Host), Element{Key: first + from, End: last + until})
		}
		if r.BySource {
			to(n.sourced, "", "")
		}
		for _, p := range r.Sources(n.v6) {
			to(n.comers, packAddr(p.Addr()), packAddr(lastOf(p)))
		}
		if r.Links != "" {
			to(n.linked, "", "")
		}
		for _, name := range r.Links.All() {
			to(n.ways, packName(name), packName(name))
		}
	}
}

// row is limits of a container that are the same for ports in a row.
type row struct {
	firewall.Limit
	last uint16
}

// rows joins limits.
func rows(limits []firewall.Limit) []row {
	var out []row
	open := map[netip.Addr]int{} // the last row of each address
	for _, l := range limits {
		if i, ok := open[l.Host]; ok && out[i].goesOnWith(l) {
			out[i].last = l.Port
			continue
		}
		open[l.Host] = len(out)
		out = append(out, row{l, l.Port})
	}
	return out
}

func (r row) goesOnWith(l firewall.Limit) bool {
	same := r.Limit
	same.Port = l.Port
	return same == l && int(r.last)+1 == int(l.Port)
}
