package iptables

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// model is iptables as script sees it: it takes what iptables-restore --noflush takes, refuses
// what that refuses, and gives back what iptables-save would print.
type model struct {
	tables dump
}

// builtin are the chains that a table has from its first use.
var builtin = map[string][]string{
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"raw":    {"PREROUTING", "OUTPUT"},
}

// save returns a copy by way of text, as Sync gets it.
func (m *model) save() dump {
	var b strings.Builder
	for name, table := range m.tables {
		fmt.Fprintf(&b, "# Generated\n*%s\n", name)
		for _, chain := range sortedNames(table) {
			fmt.Fprintf(&b, ":%s - [7:420]\n", chain)
		}
		for _, chain := range sortedNames(table) {
			for _, r := range table[chain] {
				fmt.Fprintf(&b, "-A %s %s\n", chain, r)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return parse(b.String())
}

// restore applies a script; a table whose part fails stays as it was, and what
// follows is not done.
func (m *model) restore(script string) error {
	var name string
	var table map[string][]string
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			name = line[1:]
			table = m.open(name)
		case line == "COMMIT":
			if err := checkJumps(table); err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			m.tables[name], table = table, nil
		default:
			if err := edit(table, line); err != nil {
				return fmt.Errorf("table %s: %s: %w", name, line, err)
			}
		}
	}
	return nil
}

// open returns a copy of the table to work on.
func (m *model) open(name string) map[string][]string {
	out := map[string][]string{}
	for _, c := range builtin[name] {
		out[c] = nil
	}
	for c, rules := range m.tables[name] {
		out[c] = slices.Clone(rules)
	}
	return out
}

var editLine = regexp.MustCompile(`^(-[ADIFNX]) (\S+)(?: (\d+))?(?: (.*))?$`)

// edit carries out one line.
func edit(table map[string][]string, line string) error {
	if name, ok := strings.CutPrefix(line, ":"); ok {
		name, _, _ = strings.Cut(name, " ")
		table[name] = nil // made or flushed
		return nil
	}
	m := editLine.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("not understood")
	}
	op, chain, rule := m[1], m[2], normal(m[4])
	rules, exists := table[chain]
	if exists == (op == "-N") {
		return fmt.Errorf("chain exists: %v", exists)
	}
	switch op {
	case "-N", "-F":
		table[chain] = nil
	case "-A":
		table[chain] = append(rules, rule)
	case "-I":
		at, err := strconv.Atoi(m[3])
		if err != nil || at < 1 || at > len(rules)+1 {
			return fmt.Errorf("index out of range among %d rules", len(rules))
		}
		table[chain] = slices.Insert(rules, at-1, rule)
	case "-D":
		at := slices.Index(rules, rule)
		if at < 0 {
			return fmt.Errorf("no such rule")
		}
		table[chain] = slices.Delete(rules, at, at+1)
	case "-X":
		return deleteChain(table, chain)
	}
	return nil
}

func deleteChain(table map[string][]string, chain string) error {
	if len(table[chain]) > 0 {
		return fmt.Errorf("chain is not empty")
	}
	for name, rules := range table {
		for _, r := range rules {
			if target(r) == chain {
				return fmt.Errorf("too many links: %s has %s", name, r)
			}
		}
	}
	delete(table, chain)
	return nil
}

// checkJumps refuses rules that lead nowhere.
func checkJumps(table map[string][]string) error {
	for name, rules := range table {
		for _, r := range rules {
			to := target(r)
			if _, ok := table[to]; ok || slices.Contains(targets, to) {
				continue
			}
			return fmt.Errorf("%s leads nowhere: %s", name, r)
		}
	}
	return nil
}

var targets = []string{"ACCEPT", "DROP", "RETURN", "DNAT", "MASQUERADE", "MARK", "SNAT", "TCPMSS"}

var hostMatch = regexp.MustCompile(`(-[sd]) ([0-9a-f.:]+) `)

// normal writes a rule the way iptables-save prints it: an address gets its length.
func normal(rule string) string {
	return hostMatch.ReplaceAllStringFunc(rule, func(m string) string {
		return strings.TrimSuffix(m, " ") + byFamily(strings.Contains(m, ":"), "/32 ", "/128 ")
	})
}

// foreign is the part of the tables that is not ours.
func (m *model) foreign() dump {
	out := dump{}
	for name, table := range m.tables {
		kept := map[string][]string{}
		for chain, rules := range table {
			if isOurs(chain) && chain != chainUser {
				continue
			}
			var foreign []string
			for _, r := range rules {
				if idOf(r) == "" {
					foreign = append(foreign, r)
				}
			}
			kept[chain] = foreign
		}
		out[name] = kept
	}
	return out
}
