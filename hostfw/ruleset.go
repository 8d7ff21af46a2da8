package hostfw

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Finding says whether a firewall of the host is active. Why is a sentence without its end.
type Finding struct {
	Active bool
	Why    string
	// Beyond names what else than who comes and where to decides in INPUT, such as "limit" or "string"; empty for nothing, and where
	// no firewall is active.
	Beyond string
}

// table is one table of rules, of whichever kind.
type table struct {
	label  label
	chains map[string]*chain
	// verdicts are the maps from which rules take what to do, by name.
	verdicts map[string][]element
	// filled are the sets that rules fill, or whose elements count.
	filled map[string]bool
}

// label is how people know a table: the words around the name of a chain, and what is said where its policy is to drop.
type label struct{ before, after, policy string }

func (l label) of(chain string) string { return l.before + chain + l.after }

// chain is a list of rules.
type chain struct {
	input bool // packets for the host itself come here first
	drops bool // the policy
	rules []rule
}

// rule is what a rule may do with a packet. Zero for what lets it go on.
type rule struct {
	refuses bool
	accepts bool   // as far as the base chain goes
	jumps   string // the chain in which it goes on
	leaves  bool   // the chain: it does not come back from where it jumps to
	lookup  lookup
	writes  bool     // something that rules behind it may ask for
	beyond  string   // what of that by which it picks packets is not plain, "" for nothing
	sets    []string // by which it picks them
	fills   []string // sets
}

// lookup is a verdict map that a rule asks. byState says that it asks with the state of the connection.
type lookup struct {
	verdicts string
	byState  bool
}

// element is what a verdict map has for a key.
type element struct {
	invalid bool // the key, if it is a state, is "invalid"
	rule
}

// judge finds whether tables guard the host. It names ufw where that is part of it.
func judge(tables []table) Finding {
	var first, ufw, beyond string
	for _, t := range tables {
		for _, name := range slices.Sorted(maps.Keys(t.chains)) {
			if !t.chains[name].input {
				continue
			}
			why := t.refusal(name)
			if why != "" && t.ufw(name) {
				ufw = "ufw is active"
			}
			first = cmp.Or(first, why)
			if beyond == "" {
				beyond = t.beyond(name)
			}
		}
	}
	if first == "" {
		return Finding{}
	}
	return Finding{Active: true, Why: cmp.Or(ufw, first), Beyond: beyond}
}

// refusal says by what a base chain refuses packets, "" if it refuses none.
func (t table) refusal(base string) string {
	if t.chains[base].drops {
		return t.label.of(base) + t.label.policy
	}
	seen := map[string]bool{base: true}
	for todo := []string{base}; len(todo) > 0; todo = todo[1:] {
		name := todo[0]
		c := t.chains[name]
		if c == nil {
			continue
		}
		for _, r := range c.rules {
			refuses, next := t.follow(r)
			if refuses && name == base {
				return t.label.of(base) + " has a rule that refuses"
			}
			if refuses {
				return t.label.of(base) + " leads to " + name + ", which has a rule that refuses"
			}
			for _, n := range next {
				if !seen[n] && !passedOver(n) {
					seen[n] = true
					todo = append(todo, n)
				}
			}
		}
	}
	return ""
}

// follow says what a rule and the verdict map that it asks may do.
func (t table) follow(r rule) (refuses bool, next []string) {
	refuses = r.refuses
	if r.jumps != "" {
		next = append(next, r.jumps)
	}
	for _, e := range t.verdicts[r.lookup.verdicts] {
		if e.invalid && r.lookup.byState {
			continue
		}
		refuses = refuses || e.refuses
		if e.jumps != "" {
			next = append(next, e.jumps)
		}
	}
	return refuses, next
}

// ufw reports whether ufw's chains hang in a base chain.
func (t table) ufw(base string) bool {
	return slices.ContainsFunc(t.chains[base].rules, func(r rule) bool {
		return strings.HasPrefix(r.jumps, "ufw-") || strings.HasPrefix(r.jumps, "ufw6-")
	})
}

// passedOver reports whether a chain is ours or Docker's and not for users.
func passedOver(chain string) bool {
	if chain == "DOCKER-USER" || chain == "DRAWBRIDGE-USER" {
		return false
	}
	return strings.HasPrefix(chain, "DRAWBRIDGE") || strings.HasPrefix(chain, "DOCKER")
}

// passedOverTable reports whether a table of nftables is ours or Docker's.
func passedOverTable(name string) bool {
	return name == "drawbridge" || strings.HasPrefix(name, "drawbridge-latch") || name == "docker-bridges"
}
