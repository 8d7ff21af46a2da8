package nftables

import (
	"fmt"
	"maps"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// words says how the table with the name differs from what is wanted; nil stands for no table.
func words(name string, have *held, want Ruleset) []string {
	table := "nftables: table inet " + name
	switch {
	case want.IsEmpty() && have == nil:
		return nil
	case want.IsEmpty():
		return []string{table + " is left over"}
	case have == nil:
		return []string{table + " is missing"}
	case have.broken || !have.fits(want):
		return []string{table + " is not as it was made: its flags, or the kind of a set or chain, are others"}
	}
	var out []string
	for _, line := range slices.Concat(setWords(have, want), chainWords(have, want)) {
		out = append(out, table+": "+line)
	}
	return out
}

func setWords(have *held, want Ruleset) []string {
	var out []string
	for _, s := range want.Sets {
		got, ok := have.sets[s.Name]
		lacks, more := missing(s.Elements, got.elements), missing(got.elements, s.Elements)
		if words := firewall.SetWords(s.Name, !ok, lacks, more, s.element); words != "" {
			out = append(out, words)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.sets)) {
		if !slices.ContainsFunc(want.Sets, func(s Set) bool { return s.Name == name }) {
			out = append(out, fmt.Sprintf("set %s is left over", name))
		}
	}
	return out
}

func chainWords(have *held, want Ruleset) []string {
	var out []string
	for _, c := range want.Chains {
		got, ok := have.chains[c.Name]
		switch ids := c.ids(); {
		case !ok:
			out = append(out, fmt.Sprintf("chain %s is missing", c.Name))
		case slices.Equal(got.ids, ids):
		case len(got.ids) < len(ids):
			out = append(out, fmt.Sprintf("chain %s has %d of its %d rules", c.Name, len(got.ids), len(ids)))
		default:
			out = append(out, fmt.Sprintf("chain %s has rules that do not belong there, or in another order", c.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if !slices.ContainsFunc(want.Chains, func(c Chain) bool { return c.Name == name }) {
			out = append(out, fmt.Sprintf("chain %s is left over", name))
		}
	}
	return out
}
