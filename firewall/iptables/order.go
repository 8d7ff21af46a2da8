package iptables

import (
	"context"
	"slices"
)

// carryOut makes rules and sets as wanted, and closes before it opens. Each element comes or goes by itself, and each table of rules: so
// first the ways in go that are to go; then comes all else with the limits, elements ahead of the rules that look for them; and the
// ways in that are to come are last. In between a port is closed, and never everybody's that is limited. What nothing looks for any
// more goes at the end, in the other order than it came.
func (b *Backend) carryOut(ctx context.Context, variant string, v6 bool, text string, differences []setDifference) error {
	n := namesOf(v6)
	var waysIn, rest []setDifference
	for _, d := range differences {
		if n.letsIn(d.Name) {
			waysIn = append(waysIn, d)
		} else {
			rest = append(rest, d)
		}
	}
	if err := b.shrink(waysIn); err != nil {
		return err
	}
	if err := b.grow(rest); err != nil {
		return err
	}
	if err := b.restore(ctx, variant, v6, text); err != nil {
		return err
	}
	if err := b.grow(waysIn); err != nil {
		return err
	}
	return b.shrink(rest)
}

// letsIn reports whether a set is one of those without whose elements nobody from outside comes to a container's port, translated or not.
func (n names) letsIn(set string) bool {
	return slices.Contains([]string{n.ports, n.open, n.unprotected}, set)
}

// grow adds what sets lack.
func (b *Backend) grow(differences []setDifference) error {
	for _, d := range differences {
		if err := b.sets.add(d.of(d.lacks)); err != nil {
			return err
		}
	}
	return nil
}

// shrink removes from sets what they have too much, those behind first.
func (b *Backend) shrink(differences []setDifference) error {
	for _, d := range slices.Backward(differences) {
		if err := b.sets.remove(d.of(d.surplus)); err != nil {
			return err
		}
	}
	return nil
}

// of returns the set with other elements.
func (d setDifference) of(elements []Element) Set {
	s := d.Set
	s.Elements = elements
	return s
}
