package hostfirewall

import "net/netip"

// A Case is a list of rules that is worth a comparison.
type Case struct {
	Name string
	Rules
}

// Cases are about one port. The clients come by ext0 and ext1, and of those by ext0 one is told from the others, by its addresses.
func Cases(proto string, port uint16, one []netip.Addr) []Case {
	about := func(change func(*Rule)) Rule {
		r := Rule{Proto: proto, Port: port}
		change(&r)
		return r
	}
	all := about(func(*Rule) {})
	byLink := about(func(r *Rule) { r.Link = "ext1" })
	var bySource []Rule
	for _, a := range one {
		bySource = append(bySource, about(func(r *Rule) { r.From = netip.PrefixFrom(a, a.BitLen()) }))
	}
	return []Case{
		{"denied", Rules{}},
		{"allowed", Rules{Allowed: []Rule{all}}},
		{"another port allowed", Rules{Allowed: []Rule{about(func(r *Rule) { r.Port++ })}}},
		{"allowed by source", Rules{Allowed: bySource}},
		{"allowed by link", Rules{Allowed: []Rule{byLink}}},
		{"denied by source", Rules{Allowed: []Rule{all}, Denied: bySource}},
		{"denied by link", Rules{Allowed: []Rule{all}, Denied: []Rule{byLink}}},
	}
}
