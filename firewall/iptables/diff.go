package iptables

import (
	"fmt"
	"slices"
	"strings"
)

// tables are those in which something of ours may be.
var tables = []string{"mangle", "filter", "nat"}

// script returns the input for iptables-restore --noflush that turns what d shows into
// want, or "" if nothing differs. It names only what differs, and foreign rules never.
func script(d dump, want Ruleset) string {
	var b strings.Builder
	for _, name := range tables {
		i := slices.IndexFunc(want.Tables, func(t Table) bool { return t.Name == name })
		wanted := Table{Name: name}
		if i >= 0 {
			wanted = want.Tables[i]
		}
		if lines := tableScript(d[name], wanted); len(lines) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", name, strings.Join(lines, "\n"))
		}
	}
	return b.String()
}

// tableScript returns the lines for one table. Order matters: chains exist before
// something jumps to them and are empty and unreferenced before they go.
func tableScript(have map[string][]string, want Table) []string {
	var lines []string
	lines = append(lines, createUser(have, want)...)
	lines = append(lines, replaceChains(have, want)...)
	lines = append(lines, placeJumps(have, want)...)
	return append(lines, removeChains(have, want)...)
}

// createUser makes missing user chains. -N fails if somebody made the chain meanwhile, where
// ":CHAIN" would flush it.
func createUser(have map[string][]string, want Table) []string {
	var lines []string
	for _, name := range want.User {
		if _, ok := have[name]; !ok {
			lines = append(lines, "-N "+name)
		}
	}
	return lines
}

// replaceChains declares every chain that differs, which creates or flushes it, and then
// fills them.
func replaceChains(have map[string][]string, want Table) []string {
	var declared, rules []string
	for _, c := range want.Chains {
		if current, ok := have[c.Name]; ok && slices.Equal(idsOf(current), ids(c.Name, c.Rules)) {
			continue
		}
		declared = append(declared, ":"+c.Name+" - [0:0]")
		if text := strings.TrimSuffix(c.text(), "\n"); text != "" {
			rules = append(rules, text)
		}
	}
	return append(declared, rules...)
}

func idsOf(rules []string) []string {
	out := make([]string, 0, len(rules))
	for _, r := range rules {
		out = append(out, idOf(r))
	}
	return out
}

// placeJumps takes stale, doubled and misplaced jumps of ours out of foreign chains
// and inserts what is missing.
func placeJumps(have map[string][]string, want Table) []string {
	var lines []string
	for _, from := range foreignChains(have, want) {
		jumps := jumpsFrom(want, from)
		kept, removed := keepJumps(have[from], jumps)
		for _, rule := range removed {
			lines = append(lines, "-D "+from+" "+rule)
		}
		for _, j := range jumps {
			var line string
			if line, kept = place(from, kept, j); line != "" {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// foreignChains returns, sorted, the chains that are not ours and have or should have a jump.
func foreignChains(have map[string][]string, want Table) []string {
	var out []string
	for name := range have {
		if !isOurs(name) {
			out = append(out, name)
		}
	}
	for _, j := range want.Jumps {
		if _, ok := have[j.From]; !ok {
			out = append(out, j.From)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func jumpsFrom(want Table, from string) []Jump {
	var out []Jump
	for _, j := range want.Jumps {
		if j.From == from {
			out = append(out, j)
		}
	}
	return out
}

// keepJumps splits the rules of a foreign chain into those that stay and the rules of
// ours that have to go. Of a doubled jump none stays: -D deletes the first of equal
// rules, which may be the one in place.
func keepJumps(rules []string, jumps []Jump) (kept, removed []string) {
	count := map[string]int{}
	for _, r := range rules {
		count[idOf(r)]++
	}
	for i, r := range rules {
		id := idOf(r)
		if id == "" {
			kept = append(kept, r)
			continue
		}
		n := slices.IndexFunc(jumps, func(j Jump) bool { return j.id() == id })
		if n < 0 || count[id] > 1 || !inPlace(rules, i, jumps[n]) {
			removed = append(removed, r)
			continue
		}
		kept = append(kept, r)
	}
	return kept, removed
}

// inPlace reports whether the jump may stay at index i of the chain.
func inPlace(rules []string, i int, j Jump) bool {
	switch j.Place {
	case First:
		return i == 0
	case Last:
		return i == len(rules)-1
	case AfterUser:
		user := slices.IndexFunc(rules, isUserJump)
		return user < i // also when there is none: it will be inserted ahead
	}
	return true
}

// isUserJump recognises the jump to DOCKER-USER, dockerd's and ours alike.
func isUserJump(rule string) bool { return rule == "-j "+chainDockerUser }

// place returns the line that puts a missing jump where it belongs, and the chain's
// rules thereafter.
func place(from string, rules []string, j Jump) (string, []string) {
	if slices.ContainsFunc(rules, j.matches) {
		return "", rules
	}
	at := len(rules)
	switch j.Place {
	case First, Top:
		at = 0
	case AfterUser:
		at = slices.IndexFunc(rules, isUserJump) + 1
	}
	spec := j.spec()
	line := fmt.Sprintf("-I %s %d %s", from, at+1, spec)
	if at == len(rules) {
		line = "-A " + from + " " + spec
	}
	return line, slices.Insert(slices.Clone(rules), at, spec)
}

// matches reports whether a dumped rule is this jump.
func (j Jump) matches(rule string) bool {
	if j.Plain {
		return rule == j.spec()
	}
	return idOf(rule) == j.id()
}

// removeChains flushes and deletes chains of ours that are no longer wanted. User chains go only
// when they are empty and nobody else leads to them.
func removeChains(have map[string][]string, want Table) []string {
	var flush, remove []string
	for _, name := range sortedNames(have) {
		switch {
		case slices.Contains(want.User, name), slices.ContainsFunc(want.Chains, func(c Chain) bool { return c.Name == name }):
		case name == chainUser:
			if len(have[name]) == 0 && !referenced(have, name) {
				remove = append(remove, "-X "+name)
			}
		case name == chainDockerUser:
			remove = append(remove, removeDockerUser(have)...)
		case isOurs(name):
			if len(have[name]) > 0 {
				flush = append(flush, "-F "+name)
			}
			if !referenced(have, name) { // else -X would fail, and all else with it
				remove = append(remove, "-X "+name)
			}
		}
	}
	return append(flush, remove...)
}

// removeDockerUser takes DOCKER-USER away together with our own chain where it is empty and
// dockerd has no chain in the table: then it was made by us and does nothing.
func removeDockerUser(have map[string][]string) []string {
	_, ours := have[chainForward]
	_, docker := have["DOCKER"]
	_, docker28 := have["DOCKER-FORWARD"]
	if !ours || docker || docker28 || len(have[chainDockerUser]) > 0 {
		return nil
	}
	var lines []string
	for _, name := range sortedNames(have) {
		for _, rule := range have[name] {
			switch {
			case name == "FORWARD" && isUserJump(rule):
				lines = append(lines, "-D FORWARD "+rule)
			case target(rule) == chainDockerUser:
				return nil // somebody else uses it
			}
		}
	}
	return append(lines, "-X "+chainDockerUser)
}

func sortedNames(have map[string][]string) []string {
	out := make([]string, 0, len(have))
	for name := range have {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
