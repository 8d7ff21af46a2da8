package nftables

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is our table, in the family inet. tableComment marks it: a table of that name without the comment is
// somebody else's. mark begins the comment of every rule.
const (
	tableName    = "drawbridge"
	tableComment = "drawbridge: made and kept by the daemon, do not edit"
	mark         = "drawbridge"
)

// Ruleset is all that the table should hold. The zero Ruleset means that there should be no table.
type Ruleset struct {
	Sets   []Set // sets and maps
	Chains []Chain
}

// IsEmpty reports whether no table is needed.
func (r Ruleset) IsEmpty() bool { return len(r.Chains) == 0 }

// Chain is a chain with its rules. Base is the zero value for one that is only jumped to.
type Chain struct {
	Name  string
	Base  Base
	Rules []Rule
}

// Base is the place of a base chain in the kernel.
type Base struct {
	Type     string // filter or nat
	Hook     uint32
	Priority int32
}

// Rule is one rule: its matches and statements, and why it is there.
type Rule struct {
	Parts []Part
	Why   string
}

// Part is a piece of a rule in nft's language and what the kernel is given for it.
type Part struct {
	Text  string
	Exprs []expr.Any
	// Family is the protocol that the packet must be of for Exprs to make sense, 0 for any (NFPROTO_IPV4 …).
	// nft's language implies it, the kernel wants it said.
	Family byte
}

// exprs returns the expressions of a rule.
func (r Rule) exprs() []expr.Any {
	var out []expr.Any
	var said byte
	for _, p := range r.Parts {
		if p.Family != 0 && p.Family != said {
			out = append(out, nfproto(p.Family)...)
			said = p.Family
		}
		out = append(out, p.Exprs...)
	}
	return out
}

// Set is a kernel set or, with Value, a map.
type Set struct {
	Name     string
	Key      []datatype
	Value    []datatype
	Interval bool
	// Timeout, unless it is 0, is how long elements live that rules add; there are no others, and they are nobody's business but
	// the rules'. Size is how many there may be.
	Timeout  time.Duration
	Size     uint32
	Elements []Element // sorted by compareElement
}

// kind is what cannot be changed of a set.
type kind struct {
	keyType, keyLen, valueType, valueLen uint32
	flags                                uint32
	timeout                              uint64 // in milliseconds
}

// learns reports whether elements are added by rules.
func (k kind) learns() bool { return k.flags&unix.NFT_SET_EVAL != 0 }

func (s Set) kind() kind {
	k := kind{flags: s.flags(), timeout: uint64(s.Timeout.Milliseconds())}
	k.keyType, k.keyLen = combined(s.Key)
	k.valueType, k.valueLen = combined(s.Value)
	return k
}

// Element is a member of a set as the kernel holds it. Elements are comparable.
type Element struct {
	Key   string
	End   string // the last key of an interval; empty in sets without
	Value string // of a map
}

func compareElement(a, b Element) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.End, b.End), cmp.Compare(a.Value, b.Value))
}

// missing returns the elements of want that are not in have; both are sorted.
func missing(want, have []Element) []Element {
	var out []Element
	for _, e := range want {
		for len(have) > 0 && compareElement(have[0], e) < 0 {
			have = have[1:]
		}
		if len(have) == 0 || have[0] != e {
			out = append(out, e)
		}
	}
	return out
}

// idLength is the number of hexadecimal digits of a rule's id.
const idLength = 10

// generation of the expressions: to be raised when a rule's expressions change and its text does not.
const generation = "1"

// ids returns the id of each rule of a chain. An id covers the rules before it, so that an inserted, removed or
// moved rule changes all that follow.
func (c Chain) ids() []string {
	out := make([]string, 0, len(c.Rules))
	sum := sha256.Sum256([]byte(generation + c.Name))
	for _, r := range c.Rules {
		sum = sha256.Sum256(fmt.Appendf(sum[:], "%s|%s", r.text(), r.Why))
		out = append(out, hex.EncodeToString(sum[:])[:idLength])
	}
	return out
}

// comment is what marks a rule.
func comment(id, why string) string { return fmt.Sprintf("%s %s %s", mark, id, why) }

var idPattern = regexp.MustCompile(`^` + mark + ` ([0-9a-f]{10}) `)

// idOf returns the id in a rule's comment, "" if it is not a rule of ours.
func idOf(comment string) string {
	if m := idPattern.FindStringSubmatch(comment); m != nil {
		return m[1]
	}
	return ""
}

// held is what the table holds: read from the kernel, or known because it was just written.
type held struct {
	chains map[string]heldChain
	sets   map[string]heldSet
	// broken says that the table cannot be mended piece by piece: it has flags that nobody of us set.
	broken bool
}

type heldChain struct {
	base Base
	ids  []string
}

type heldSet struct {
	kind     kind
	elements []Element
}

// holds returns what the table holds when r is in force; nil stands for no table.
func (r Ruleset) holds() *held {
	if r.IsEmpty() {
		return nil
	}
	h := &held{chains: map[string]heldChain{}, sets: map[string]heldSet{}}
	for _, c := range r.Chains {
		h.chains[c.Name] = heldChain{base: c.Base, ids: c.ids()}
	}
	for _, s := range r.Sets {
		h.sets[s.Name] = heldSet{kind: s.kind(), elements: s.Elements}
	}
	return h
}

// sorted returns the set with its elements in order and without doubles.
func (s Set) sorted() Set {
	slices.SortFunc(s.Elements, compareElement)
	s.Elements = slices.Compact(s.Elements)
	return s
}
