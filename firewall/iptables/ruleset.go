package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// prefix begins the name of every chain and set of ours, mark the comment of
// every rule.
const (
	prefix = "DRAWBRIDGE"
	mark   = "drawbridge"
)

// Ruleset is all that one family should have in the kernel. The zero Ruleset, with V6
// set or not, means that nothing of ours should be there.
type Ruleset struct {
	V6     bool
	Sets   []Set
	Tables []Table // in the order in which they must be loaded
}

// Table is our part of one iptables table.
type Table struct {
	Name   string
	Chains []Chain  // ours
	User   []string // the user's chains: created where missing, never flushed
	Jumps  []Jump   // into our chains and the user's
}

// Chain is one chain of ours with its rules.
type Chain struct {
	Name  string
	Rules []Rule
}

// Rule is one rule: what it matches, why it is there, and its target with options.
type Rule struct {
	Match  string
	Why    string
	Target string
	// Goto goes to the chain Target and, where that ends, on behind the chain that the rule is in.
	Goto bool
}

// Jump is a rule of ours in a chain that is not.
type Jump struct {
	From  string // the chain that is not ours
	Rule  Rule
	Place Place
	// Plain jumps carry no comment: they are the same as those that dockerd makes, so that
	// each program finds the other's and none is doubled.
	Plain bool
}

// Place says where in the foreign chain a jump belongs.
type Place int

const (
	// First: ahead of every other rule.
	First Place = iota
	// Top: inserted at the head if missing, then left where it is.
	Top
	// AfterUser: anywhere behind the jump to DOCKER-USER.
	AfterUser
	// Bottom: appended if missing, then left where it is.
	Bottom
	// Last: behind every other rule.
	Last
)

// Set is a kernel set and its elements.
type Set struct {
	Name     string
	Type     string // hash:ip,port …
	V6       bool
	Elements []Element
}

// spec returns the rule as iptables reads it, without the chain, under an id.
func (r Rule) spec(id string) string {
	var parts []string
	if r.Match != "" {
		parts = append(parts, r.Match)
	}
	if id != "" {
		parts = append(parts, fmt.Sprintf(`-m comment --comment "%s %s %s"`, mark, id, r.Why))
	}
	verb := "-j "
	if r.Goto {
		verb = "-g "
	}
	return strings.Join(append(parts, verb+r.Target), " ")
}

// idLength is the number of hexadecimal digits of a rule's id.
const idLength = 10

// ids returns the id of each rule of a chain, no two of which are the same. An id depends on nothing but the chain's name, the
// rule and how often it was there before, so that a chain whose rules come and go keeps those that stay.
func ids(chain string, rules []Rule) []string {
	out := make([]string, 0, len(rules))
	seen := make(map[Rule]int, len(rules))
	for _, r := range rules {
		out = append(out, ruleID(chain, r, seen[r]))
		seen[r]++
	}
	return out
}

func ruleID(chain string, r Rule, before int) string {
	verb := "jump"
	if r.Goto {
		verb = "goto"
	}
	text := strings.Join([]string{chain, r.Match, r.Why, verb, r.Target, strconv.Itoa(before)}, "\x00")
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:idLength/2])
}

// id returns the id of a jump; it depends on nothing but the jump.
func (j Jump) id() string {
	if j.Plain {
		return ""
	}
	return ruleID(j.From, j.Rule, 0)
}

// spec returns the jump as iptables reads it, without the chain.
func (j Jump) spec() string { return j.Rule.spec(j.id()) }
