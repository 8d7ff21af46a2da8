package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/internal/legacytables"
)

// tables are those in which something of ours may be.
var tables = []string{"mangle", "filter", "nat"}

// change is what iptables-restore --noflush is told.
type change struct {
	text string // "" if nothing differs
	// result is what the tables hold afterwards, if sure: where more than chains of ours change, somebody has to look.
	result dump
	sure   bool
	// adds is how many rules more the tables that it changes have afterwards, as the kernel counts those of the legacy variant.
	adds map[string]int
	// sets says how they differed.
	sets []setDifference
}

// script returns the text of changeTo.
func script(d dump, want Ruleset) string { return changeTo(d, want).text }

// changeTo returns what turns what d shows into want. It names only what differs, and foreign rules never.
func changeTo(d dump, want Ruleset) change {
	c := change{result: maps.Clone(d), sure: true, adds: map[string]int{}}
	for _, name := range tables {
		lines, result, sure := tableScript(d[name], want.table(name))
		if len(lines) > 0 {
			c.add(name, d[name], lines, result, sure)
		}
	}
	return c
}

// add adds the lines for one table, and what it holds after them. Have are the chains that they are about, as they were.
func (c *change) add(table string, have map[string][]string, lines []string, result map[string][]string, sure bool) {
	c.text += fmt.Sprintf("*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
	c.adds[table] = adds(have, lines)
	c.sure = c.sure && sure
	c.result[table] = result
}

// adds returns how many rules more a table has by the lines. Those of a chain that is emptied go, and a chain itself counts two: its name,
// and what ends it (iptables libiptc/libiptc.c).
func adds(have map[string][]string, lines []string) int {
	const chain = 2
	more := 0
	for _, line := range lines {
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case verb == "-A", verb == "-I":
			more++
		case verb == "-D":
			more--
		case verb == "-N":
			more += chain
		case verb == "-X":
			more -= chain
		case verb == "-F":
			more -= len(have[rest])
		default: // :NAME makes the chain, or empties it
			if rules, there := have[verb[1:]]; there {
				more -= len(rules)
			} else {
				more += chain
			}
		}
	}
	return more
}

// addedTo returns by how many rules both families' tables grow.
func addedTo(v4, v6 change) map[legacytables.Table]int {
	added := map[legacytables.Table]int{}
	for i, c := range []change{v4, v6} {
		for name, more := range c.adds {
			added[legacytables.Table{V6: i == 1, Name: name}] = more
		}
	}
	return added
}

// changePorts returns what has a dump's chains redirect the ports after, where they redirected those before.
func changePorts(d dump, before, after []firewall.Port) change {
	c := change{result: maps.Clone(d), sure: true, adds: map[string]int{}}
	if slices.Equal(before, after) {
		return c // perhaps there are no chains at all
	}
	gone, come := dnat.change(before, after)
	have := map[string][]string{}
	for _, chain := range slices.Concat(gone, come) {
		if rules, ok := d["nat"][chain.Name]; ok {
			have[chain.Name] = rules
		}
	}
	lines, result, sure := tableScript(have, Table{Name: "nat", Chains: come})
	if len(lines) == 0 {
		return c
	}
	nat := maps.Clone(d["nat"])
	for name := range have {
		delete(nat, name)
	}
	maps.Copy(nat, result)
	c.add("nat", have, lines, nat, sure)
	return c
}

// table returns what the table with the name should hold, which may be nothing.
func (r Ruleset) table(name string) Table {
	if i := slices.IndexFunc(r.Tables, func(t Table) bool { return t.Name == name }); i >= 0 {
		return r.Tables[i]
	}
	return Table{Name: name}
}

// blurred returns the dump with rules that nobody recognises in the chains of ours that differ, so that these are written whole.
func (d dump) blurred(want Ruleset) dump {
	out := maps.Clone(d)
	for _, t := range want.Tables {
		table := maps.Clone(d[t.Name])
		if table == nil {
			continue
		}
		for _, c := range t.Chains {
			if lines, _ := editChain(c, table[c.Name], ids(c.Name, c.Rules)); len(lines) > 0 {
				table[c.Name] = []string{"?"}
			}
		}
		out[t.Name] = table
	}
	return out
}

// tableScript returns the lines for one table, and what it holds after them: sure says that they change nothing but chains of
// ours. Order matters: chains exist before something jumps to them and are empty and unreferenced before they go.
func tableScript(have map[string][]string, want Table) (lines []string, result map[string][]string, sure bool) {
	user, jumps, removals := createUser(have, want), placeJumps(have, want), removeChains(have, want)
	sure = len(user) == 0 && len(jumps) == 0 && !slices.ContainsFunc(removals, func(line string) bool {
		return strings.HasPrefix(line, "-D ") || line == "-X "+chainUser || line == "-X "+chainDockerUser
	})
	chains, result := changeChains(have, want)
	for name, rules := range have {
		if !isOurs(name) || name == chainUser {
			result[name] = rules
		}
	}
	return slices.Concat(user, chains, jumps, removals), result, sure
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

// changeChains makes the chains that are missing and edits those that differ; it returns what all of them hold then. Rules that
// stay are not touched: to take one away makes the program wait for the kernel when it ends, for ten times as long as all else takes.
func changeChains(have map[string][]string, want Table) (lines []string, result map[string][]string) {
	var declared, rules []string
	result = map[string][]string{}
	for _, c := range want.Chains {
		current, ok := have[c.Name]
		edits, can := editChain(c, current, ids(c.Name, c.Rules))
		if ok && can && len(edits) == 0 {
			result[c.Name] = current
			continue
		}
		result[c.Name] = c.lines()
		if ok && can {
			rules = append(rules, edits...)
			continue
		}
		// This creates the chain, or flushes it.
		declared = append(declared, ":"+c.Name+" - [0:0]")
		for _, line := range result[c.Name] {
			rules = append(rules, "-A "+c.Name+" "+line)
		}
	}
	return append(declared, rules...), result
}

// editChain returns what turns a chain into one with the wanted rules, and false where it would have to move some or
// does not know all of them.
func editChain(c Chain, current, wanted []string) ([]string, bool) {
	at := make(map[string]int, len(wanted)) // place of each wanted rule
	for i, id := range wanted {
		at[id] = i
	}
	var lines []string
	next := 0 // no rule that stays may belong ahead of this place
	stays := make([]bool, len(wanted))
	for _, rule := range current {
		id := idOf(rule)
		i, keep := at[id]
		switch {
		case id == "", keep && i < next:
			return nil, false
		case keep:
			stays[i], next = true, i+1
		default:
			lines = append(lines, "-D "+c.Name+" "+rule)
		}
	}
	for i, id := range wanted {
		switch {
		case stays[i]:
		case i >= next: // behind all that stay
			lines = append(lines, "-A "+c.Name+" "+c.Rules[i].spec(id))
		default:
			lines = append(lines, fmt.Sprintf("-I %s %d %s", c.Name, i+1, c.Rules[i].spec(id)))
		}
	}
	return lines, true
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
			if more := surplusCopies(kept, j); more > 0 {
				lines = append(lines, merge(from, kept, j)...)
				kept = withoutCopies(kept, j)
			}
			var line string
			if line, kept = place(from, kept, j); line != "" {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// surplusCopies returns how many copies of a plain jump a chain has beyond the first. dockerd takes its jump away and puts it back with
// two programs: what we put there in between stands beside it.
func surplusCopies(rules []string, j Jump) (more int) {
	if !j.Plain {
		return 0
	}
	for _, r := range rules {
		if r == j.spec() {
			more++
		}
	}
	return max(more-1, 0)
}

// merge makes one of the copies of a jump, in the place of the first. They are named by what they are, and not by their numbers, so
// that nobody else's rule can be meant.
func merge(from string, rules []string, j Jump) []string {
	lines := slices.Repeat([]string{"-D " + from + " " + j.spec()}, surplusCopies(rules, j)+1)
	return append(lines, fmt.Sprintf("-I %s %d %s", from, slices.Index(rules, j.spec())+1, j.spec()))
}

// withoutCopies returns the rules with the first copy of the jump alone.
func withoutCopies(rules []string, j Jump) []string {
	first := slices.Index(rules, j.spec())
	rest := slices.DeleteFunc(slices.Clone(rules[first+1:]), func(r string) bool { return r == j.spec() })
	return append(slices.Clone(rules[:first+1]), rest...)
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
