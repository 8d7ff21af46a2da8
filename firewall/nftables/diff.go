package nftables

import (
	"maps"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// edit is one change to the table. All edits of a difference are one transaction.
type edit interface {
	// encode appends the edit's messages to a batch.
	encode(b *batch)
	String() string
}

// The edits.
type (
	addTable       struct{}
	deleteTable    struct{}
	addSet         struct{ Set }
	deleteSet      struct{ name string }
	flushSet       struct{ name string }
	addElements    struct{ Set } // Elements are those to add
	deleteElements struct{ Set }
	addChain       struct{ Chain } // without its rules
	flushChain     struct{ name string }
	deleteChain    struct{ name string }
	addRule        struct {
		Rule
		chain, id string
	}
)

func (addTable) String() string         { return "adding the table" }
func (deleteTable) String() string      { return "removing the table" }
func (e addSet) String() string         { return "adding set " + e.Name }
func (e deleteSet) String() string      { return "removing set " + e.name }
func (e flushSet) String() string       { return "emptying set " + e.name }
func (e addElements) String() string    { return "adding to set " + e.Name + " " + e.some() }
func (e deleteElements) String() string { return "removing from set " + e.Name + " " + e.some() }
func (e addChain) String() string       { return "adding chain " + e.Name }
func (e flushChain) String() string     { return "flushing chain " + e.name }
func (e deleteChain) String() string    { return "removing chain " + e.name }
func (e addRule) String() string        { return "adding to chain " + e.chain + " the rule " + e.text() }

// some names one of the elements.
func (s Set) some() string {
	text := s.element(s.Elements[0])
	if len(s.Elements) > 1 {
		text += " and others"
	}
	return text
}

// difference returns what turns a table into want; nil stands for no table. Elements go before others come, since
// an interval may not overlap one that is there, and references go before what they refer to.
func difference(have *held, want Ruleset) []edit {
	if want.IsEmpty() {
		if have == nil {
			return nil
		}
		return []edit{deleteTable{}}
	}
	var edits []edit
	if have != nil && (have.broken || !have.fits(want)) {
		edits, have = append(edits, deleteTable{}), nil
	}
	if have == nil {
		edits, have = append(edits, addTable{}), &held{}
	}
	edits = append(edits, changeSets(have, want)...)
	edits = append(edits, changeChains(have, want)...)
	return append(edits, removeSets(have, want)...)
}

// elementsOf returns the edits of a change that touches no rule.
func elementsOf(c firewall.Change) []edit {
	var edits []edit
	after := c.After.Families()
	for i, f := range c.Before.Families() {
		n := namesOf(f.V6)
		before := &held{sets: map[string]heldSet{}}
		for _, s := range sets(f, n) {
			before.sets[s.Name] = heldSet{elements: s.Elements}
		}
		edits = append(edits, changeSets(before, Ruleset{Sets: sets(after[i], n)})...)
	}
	return edits
}

// fits reports whether what the table has of want's sets and base chains is of their kind, which cannot be changed.
func (h *held) fits(want Ruleset) bool {
	for _, s := range want.Sets {
		if got, ok := h.sets[s.Name]; ok && got.kind != s.kind() {
			return false
		}
	}
	for _, c := range want.Chains {
		if got, ok := h.chains[c.Name]; ok && got.base != c.Base {
			return false
		}
	}
	return true
}

func changeSets(have *held, want Ruleset) []edit {
	var edits []edit
	for _, s := range want.Sets {
		got, ok := have.sets[s.Name]
		if !ok {
			edits = append(edits, addSet{s})
		}
		gone, added := s, s
		gone.Elements, added.Elements = missing(got.elements, s.Elements), missing(s.Elements, got.elements)
		if len(gone.Elements) > 0 {
			edits = append(edits, deleteElements{gone})
		}
		if len(added.Elements) > 0 {
			edits = append(edits, addElements{added})
		}
	}
	return append(edits, forgetVisits(edits)...)
}

// changeChains rewrites the chains that differ, whole.
func changeChains(have *held, want Ruleset) []edit {
	var add, fill, remove []edit
	wanted := map[string]bool{}
	for _, c := range want.Chains {
		wanted[c.Name] = true
		got, ok := have.chains[c.Name]
		ids := c.ids()
		switch {
		case !ok:
			add = append(add, addChain{c})
		case slices.Equal(got.ids, ids):
			continue
		default:
			fill = append(fill, flushChain{c.Name})
		}
		for i, id := range ids {
			fill = append(fill, addRule{c.Rules[i], c.Name, id})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if !wanted[name] {
			fill, remove = append(fill, flushChain{name}), append(remove, deleteChain{name})
		}
	}
	return slices.Concat(add, fill, remove)
}

func removeSets(have *held, want Ruleset) []edit {
	var edits []edit
	for _, name := range slices.Sorted(maps.Keys(have.sets)) {
		if !slices.ContainsFunc(want.Sets, func(s Set) bool { return s.Name == name }) {
			edits = append(edits, deleteSet{name})
		}
	}
	return edits
}
