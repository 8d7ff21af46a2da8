package hostfw

import (
	"cmp"
	"slices"
)

// fate is what may become of packets: one of these, or both.
type fate uint8

const (
	accepted fate = 1 << iota
	refused
)

// beyond names what else than who comes and where to decides about packets of a base chain, "" for nothing. A rule that is not plain decides if
// packets fare otherwise behind it than where it sends them. One that only logs or counts does not, nor one that jumps to such.
func (t table) beyond(base string) string {
	policy := accepted
	if t.chains[base].drops {
		policy = refused
	}
	w := walk{table: t, fates: map[visit]fate{}, decisive: map[string]bool{}}
	w.chain(base, policy)
	return w.found
}

// walk follows packets through the chains of a table.
type walk struct {
	table
	fates    map[visit]fate
	decisive map[string]bool
	found    string
}

// visit is a chain, and what becomes of those that come through it.
type visit struct {
	chain string
	after fate
}

// chain says what may become of packets that come to a chain. It goes backwards: of a rule is asked what is behind it.
func (w *walk) chain(name string, after fate) fate {
	c := w.chains[name]
	if c == nil || passedOver(name) {
		return after
	}
	at := visit{name, after}
	if known, ok := w.fates[at]; ok {
		return known
	}
	w.fates[at] = after // of a circle, which the kernel does not have
	rest, deciding := after, false
	for _, r := range slices.Backward(c.rules) {
		may := rest
		for _, r := range w.actions(r) {
			sent := w.send(r, rest, after)
			decides := w.decides(r) || r.leaves && deciding
			if r.beyond != "" && (r.writes || decides && sent|rest == accepted|refused) {
				w.found = r.beyond
			}
			may |= sent
		}
		rest, deciding = may, deciding || slices.ContainsFunc(w.actions(r), w.decides)
	}
	w.fates[at] = rest
	return rest
}

// actions are what a rule may do, more than one where it asks a verdict map.
func (t table) actions(r rule) []rule {
	if slices.ContainsFunc(r.sets, func(s string) bool { return t.filled[s] }) {
		r.beyond = cmp.Or(r.beyond, filledSet)
	}
	out := []rule{r}
	for _, e := range t.verdicts[r.lookup.verdicts] {
		if e.invalid && r.lookup.byState {
			continue
		}
		action := e.rule
		action.beyond = cmp.Or(r.beyond, action.beyond)
		out = append(out, action)
	}
	return out
}

// send says what may become of packets that a rule is for: rest of those that come behind it, after of those that leave the chain.
func (w *walk) send(r rule, rest, after fate) fate {
	next := rest
	if r.leaves {
		next = after
	}
	var to fate
	if r.accepts {
		to |= accepted
	}
	if r.refuses {
		to |= refused
	}
	switch {
	case r.jumps != "":
		to |= w.chain(r.jumps, next)
	case to == 0:
		to = next
	}
	return to
}

// decides reports whether a rule, or one in the chain to which it leads, accepts or refuses.
func (w *walk) decides(r rule) bool {
	if r.accepts || r.refuses {
		return true
	}
	c := w.chains[r.jumps]
	if c == nil || passedOver(r.jumps) {
		return false
	}
	known, ok := w.decisive[r.jumps]
	if !ok {
		w.decisive[r.jumps] = false // until it is known, should it lead in a circle
		known = slices.ContainsFunc(c.rules, func(r rule) bool { return slices.ContainsFunc(w.actions(r), w.decides) })
		w.decisive[r.jumps] = known
	}
	return known
}
