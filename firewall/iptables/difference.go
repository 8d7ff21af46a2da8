package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// setDifference is how a set in the kernel differs from what is wanted.
type setDifference struct {
	Set     // what is wanted
	absent  bool
	lacks   []Element
	surplus []Element
}

// words says in one line what differs, "" for nothing.
func (d setDifference) words() string {
	return firewall.SetWords(d.Name, d.absent, d.lacks, d.surplus, Element.String)
}

// among keeps what differs from an earlier content of the set too, which somebody else must have changed then.
func (d setDifference) among(last []Element) setDifference {
	d.lacks = slices.DeleteFunc(slices.Clone(d.lacks), func(e Element) bool { return !isMember(last, e) })
	d.surplus = slices.DeleteFunc(slices.Clone(d.surplus), func(e Element) bool { return isMember(last, e) })
	return d
}

func isMember(sorted []Element, e Element) bool {
	_, ok := slices.BinarySearchFunc(sorted, e, compareElement)
	return ok
}

// differences says in words how what a dump shows differs from what is wanted, sets aside.
func differences(d dump, want Ruleset) []string {
	var out []string
	for _, name := range tables {
		have, wanted := d[name], want.table(name)
		for _, line := range slices.Concat(userDifferences(have, wanted), chainDifferences(have, wanted), jumpDifferences(have, wanted)) {
			out = append(out, fmt.Sprintf("%s: table %s: %s", program(want.V6), name, line))
		}
	}
	return out
}

func userDifferences(have map[string][]string, want Table) []string {
	var out []string
	for _, name := range want.User {
		if _, ok := have[name]; !ok {
			out = append(out, "chain "+name+" is missing")
		}
	}
	return out
}

func chainDifferences(have map[string][]string, want Table) []string {
	var out []string
	for _, c := range want.Chains {
		current, ok := have[c.Name]
		switch said := c.difference(current); {
		case !ok:
			out = append(out, "chain "+c.Name+" is missing")
		case said != "":
			out = append(out, "chain "+c.Name+" "+said)
		}
	}
	for _, name := range sortedNames(have) {
		wanted := slices.Contains(want.User, name) || slices.ContainsFunc(want.Chains, func(c Chain) bool { return c.Name == name })
		if isOurs(name) && name != chainUser && !wanted {
			out = append(out, "chain "+name+" is left over")
		}
	}
	return out
}

// difference says how the rules of a chain differ from the wanted ones, "" if they do not.
func (c Chain) difference(current []string) string {
	wanted := ids(c.Name, c.Rules)
	have := make(map[string]bool, len(current))
	var more, lacks []string
	for _, rule := range current {
		id := idOf(rule)
		if have[id] || !slices.Contains(wanted, id) {
			more = append(more, rule)
		}
		have[id] = true
	}
	for i, id := range wanted {
		if !have[id] {
			lacks = append(lacks, c.Rules[i].spec(id))
		}
	}
	edits, can := editChain(c, current, wanted)
	switch {
	case len(lacks) > 0:
		return "lacks " + firewall.Some(lacks, "rule", asPrinted)
	case len(more) > 0:
		return "has too much: " + firewall.Some(more, "rule", asPrinted)
	case !can || len(edits) > 0:
		return "has its rules in another order"
	}
	return ""
}

func asPrinted(rule string) string { return rule }

// jumpDifferences is about the jumps in chains of others.
func jumpDifferences(have map[string][]string, want Table) []string {
	var out []string
	for _, from := range foreignChains(have, want) {
		jumps := jumpsFrom(want, from)
		_, removed := keepJumps(have[from], jumps)
		for _, j := range jumps {
			switch {
			case !slices.ContainsFunc(have[from], j.matches):
				out = append(out, fmt.Sprintf("chain %s lacks the jump to %s", from, j.Rule.Target))
			case surplusCopies(have[from], j) > 0:
				out = append(out, fmt.Sprintf("chain %s has the jump to %s %d times", from, j.Rule.Target, surplusCopies(have[from], j)+1))
			case slices.ContainsFunc(removed, j.matches):
				out = append(out, fmt.Sprintf("chain %s has the jump to %s out of place, or twice", from, j.Rule.Target))
			}
		}
		for _, rule := range removed {
			if !slices.ContainsFunc(jumps, func(j Jump) bool { return j.matches(rule) }) {
				out = append(out, fmt.Sprintf("chain %s has too much: the rule %s", from, rule))
			}
		}
	}
	return out
}

// Inspect implements firewall.Backend.
func (b *Backend) Inspect(ctx context.Context, w firewall.Wanted) ([]string, error) {
	variant, err := b.choose(ctx)
	if err != nil {
		return nil, err
	}
	have, err := b.look(ctx, variant)
	if err != nil {
		return nil, err
	}
	host := b.host.Read(have.others())
	if err := b.lacks(ctx, variant, w, &host); err != nil {
		return nil, err
	}
	return b.compare(have, w.Policy(host))
}

// differences says how both families' rules differ, as far as they could be read.
func (t tablesOfBoth) differences(want4, want6 Ruleset) []string {
	out := differences(t.d4, want4)
	if t.err6 == nil {
		out = append(out, differences(t.d6, want6)...)
	}
	return out
}

// compare says how both families differ from a policy.
func (b *Backend) compare(have tablesOfBoth, p firewall.Policy) ([]string, error) {
	want4, want6 := b.render(p.V4), b.render(p.V6)
	out := have.differences(want4, want6)
	if have.err6 != nil && !p.V6.IsEmpty() {
		return out, have.err6
	}
	for _, s := range slices.Concat(want4.Sets, want6.Sets) {
		d, err := b.sets.look(s)
		if err != nil {
			return out, err
		}
		if words := d.words(); words != "" {
			out = append(out, words)
		}
	}
	return out, nil
}

// Inspect says what Read does and changes nothing of what Write knows; compare says how the rules differ from a policy.
func (m *Marked) Inspect(ctx context.Context) (o firewall.Others, installed bool, compare func(firewall.Policy) ([]string, error), err error) {
	variant, err := m.backend.choose(ctx)
	if errors.Is(err, ErrNotInstalled) {
		return o, false, nil, nil
	}
	if err != nil {
		return o, true, nil, err
	}
	have, err := m.backend.look(ctx, variant)
	if err != nil {
		return o, true, nil, err
	}
	return have.others(), true, func(p firewall.Policy) ([]string, error) { return m.backend.compare(have, p) }, nil
}

// foreign says what somebody else had changed of what the last Sync or Follow made true, before r was written over it.
func (b *Backend) foreign(have tablesOfBoth, r written, last firewall.Policy) []string {
	was4, was6 := b.render(last.V4), b.render(last.V6)
	out := have.differences(was4, was6)
	before := slices.Concat(was4.Sets, was6.Sets)
	for _, d := range r.sets {
		i := slices.IndexFunc(before, func(s Set) bool { return s.Name == d.Name })
		if i < 0 {
			continue
		}
		if words := d.among(before[i].Elements).words(); words != "" {
			out = append(out, words)
		}
	}
	return out
}
