package nftables

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// fakeKernel takes the edits that the kernel takes, refuses what that refuses, and keeps a transaction whole.
type fakeKernel struct {
	gen     uint32
	table   *fakeTable
	docker  []string
	commits int
	asked   int   // requests but commits
	err     error // of the next commit
	reading error
	failing error  // of each check
	before  func() // ahead of the next commit
	after   func() // behind each
	// lacks says which rules it takes not; nil for none.
	lacks func(addRule) bool
}

type fakeTable struct {
	sets   map[string]Set
	chains map[string]fakeChain
}

type fakeChain struct {
	base  Base
	rules []addRule
}

func (f *fakeKernel) generation() (uint32, error)      { f.asked++; return f.gen, nil }
func (f *fakeKernel) dockerBridges() ([]string, error) { return f.docker, nil }
func (f *fakeKernel) dockerTable() (bool, error)       { return f.docker != nil, nil }
func (f *fakeKernel) close()                           {}

func (f *fakeKernel) hasElements(set string) (bool, error) {
	f.asked++
	return f.table != nil && len(f.table.sets[set].Elements) > 0, nil
}

func (f *fakeKernel) check(edits []edit) error {
	if f.failing != nil {
		return f.failing
	}
	if err := f.refuses(edits); err != nil {
		return err
	}
	_, err := applied(f.table, edits)
	return err
}

func (f *fakeKernel) read() (*held, error) {
	f.asked++
	if f.table == nil || f.reading != nil {
		return nil, f.reading
	}
	h := &held{chains: map[string]heldChain{}, sets: map[string]heldSet{}}
	for name, s := range f.table.sets {
		h.sets[name] = heldSet{kind: s.kind(), elements: s.Elements}
		if s.kind().learns() {
			h.sets[name] = heldSet{kind: s.kind()}
		}
	}
	for name, c := range f.table.chains {
		var ids []string
		for _, r := range c.rules {
			ids = append(ids, r.id)
		}
		h.chains[name] = heldChain{base: c.base, ids: ids}
	}
	return h, nil
}

func (f *fakeKernel) commit(generation uint32, edits []edit) (time.Duration, error) {
	if before := f.before; before != nil {
		f.before = nil
		before()
	}
	if err := f.err; err != nil {
		f.err = nil
		return 0, err
	}
	if err := f.refuses(edits); err != nil {
		return 0, err
	}
	if generation != f.gen {
		return 0, errChanged
	}
	table, err := applied(f.table, edits)
	if err != nil {
		return 0, err
	}
	f.table = table
	f.commits++
	f.gen++
	if f.after != nil {
		f.after()
	}
	return 0, nil
}

// refuses says what a kernel says that has been built without something.
func (f *fakeKernel) refuses(edits []edit) error {
	for _, e := range edits {
		if r, ok := e.(addRule); ok && f.lacks != nil && f.lacks(r) {
			return unix.ENOENT
		}
	}
	return nil
}

// applied returns the table after the edits.
func applied(table *fakeTable, edits []edit) (*fakeTable, error) {
	if table != nil {
		table = &fakeTable{maps.Clone(table.sets), maps.Clone(table.chains)}
	}
	for _, e := range edits {
		var err error
		switch e := e.(type) {
		case addTable:
			if table == nil {
				table = &fakeTable{map[string]Set{}, map[string]fakeChain{}}
			}
		case deleteTable:
			if table == nil {
				err = unix.ENOENT
			}
			table = nil
		default:
			if table == nil {
				err = unix.ENOENT
			} else {
				err = table.apply(e)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
	}
	return table, nil
}

func (t *fakeTable) apply(e edit) error {
	switch e := e.(type) {
	case addSet:
		return t.addSet(e.Set)
	case deleteSet:
		return t.deleteSet(e.name)
	case addElements:
		return t.addElements(e.Set)
	case deleteElements:
		return t.deleteElements(e.Set)
	case flushSet:
		s, ok := t.sets[e.name]
		if !ok {
			return unix.ENOENT
		}
		s.Elements = nil
		t.sets[e.name] = s
	case addChain:
		if _, ok := t.chains[e.Name]; ok {
			return unix.EEXIST
		}
		t.chains[e.Name] = fakeChain{base: e.Base}
	case flushChain:
		c, ok := t.chains[e.name]
		if !ok {
			return unix.ENOENT
		}
		c.rules = nil
		t.chains[e.name] = c
	case deleteChain:
		return t.deleteChain(e.name)
	case addRule:
		return t.addRule(e)
	}
	return nil
}

func (t *fakeTable) addSet(s Set) error {
	if _, ok := t.sets[s.Name]; ok {
		return unix.EEXIST
	}
	s.Elements = nil
	t.sets[s.Name] = s
	return nil
}

func (t *fakeTable) deleteSet(name string) error {
	if _, ok := t.sets[name]; !ok {
		return unix.ENOENT
	}
	if t.refers(func(x expr.Any) bool {
		l, ok := x.(*expr.Lookup)
		d, adds := x.(*expr.Dynset)
		return ok && l.SetName == name || adds && d.SetName == name
	}) {
		return unix.EBUSY
	}
	delete(t.sets, name)
	return nil
}

func (t *fakeTable) deleteChain(name string) error {
	c, ok := t.chains[name]
	switch {
	case !ok:
		return unix.ENOENT
	case len(c.rules) > 0, t.refers(func(x expr.Any) bool { v, ok := x.(*expr.Verdict); return ok && v.Chain == name }):
		return unix.EBUSY
	}
	delete(t.chains, name)
	return nil
}

func (t *fakeTable) refers(to func(expr.Any) bool) bool {
	for _, c := range t.chains {
		for _, r := range c.rules {
			if slices.ContainsFunc(r.exprs(), to) {
				return true
			}
		}
	}
	return false
}

func (t *fakeTable) addRule(r addRule) error {
	c, ok := t.chains[r.chain]
	if !ok {
		return unix.ENOENT
	}
	for _, x := range r.exprs() {
		switch x := x.(type) {
		case *expr.Lookup:
			s, ok := t.sets[x.SetName]
			if !ok {
				return unix.ENOENT
			}
			if x.IsDestRegSet != (len(s.Value) > 0) {
				return unix.EINVAL
			}
		case *expr.Dynset:
			if s, ok := t.sets[x.SetName]; !ok || !s.kind().learns() {
				return unix.ENOENT
			}
		case *expr.Verdict:
			if _, ok := t.chains[x.Chain]; x.Chain != "" && !ok {
				return unix.ENOENT
			}
		}
	}
	c.rules = append(slices.Clone(c.rules), r)
	t.chains[r.chain] = c
	return nil
}

func (t *fakeTable) addElements(s Set) error {
	have, ok := t.sets[s.Name]
	if !ok {
		return unix.ENOENT
	}
	all := slices.Clone(have.Elements)
	k := have.kind()
	for _, e := range s.Elements {
		if len(e.Key) != int(k.keyLen) || len(e.Value) != int(k.valueLen) || (e.End != "") != have.Interval {
			return unix.EINVAL
		}
		for _, other := range all {
			if have.overlap(e, other) {
				return unix.EEXIST
			}
		}
		all = append(all, e)
	}
	have.Elements = all
	t.sets[s.Name] = have.sorted()
	return nil
}

// overlap reports whether two elements have a key in common.
func (s Set) overlap(a, b Element) bool {
	if !s.Interval {
		return a.Key == b.Key
	}
	at := 0
	for _, f := range s.Key {
		to := at + f.size
		if a.End[at:to] < b.Key[at:to] || b.End[at:to] < a.Key[at:to] {
			return false
		}
		at += f.width()
	}
	return true
}

func (t *fakeTable) deleteElements(s Set) error {
	have, ok := t.sets[s.Name]
	if !ok {
		return unix.ENOENT
	}
	for _, e := range s.Elements {
		if !slices.Contains(have.Elements, e) {
			return unix.ENOENT
		}
	}
	have.Elements = slices.DeleteFunc(slices.Clone(have.Elements), func(e Element) bool { return slices.Contains(s.Elements, e) })
	t.sets[s.Name] = have
	return nil
}

// fakeNeighbour is iptables.
type fakeNeighbour struct {
	missing bool
	bridges []string
	users   firewall.Both // where DOCKER-USER has rules
	reads   int
	writes  []firewall.Policy
	err     error
	onWrite func()
	damage  []string // what somebody did to the rules, in words
}

func (n *fakeNeighbour) Read(context.Context) (firewall.Others, bool, error) {
	n.reads++
	return firewall.Others{Bridges: n.bridges, UserRules: n.users}, !n.missing, n.err
}

func (n *fakeNeighbour) Write(_ context.Context, p firewall.Policy) ([]string, error) {
	n.writes = append(n.writes, p)
	if n.onWrite != nil {
		n.onWrite()
	}
	mended := n.damage
	n.damage = nil
	return mended, n.err
}

func (n *fakeNeighbour) Inspect(context.Context) (firewall.Others, bool, func(firewall.Policy) ([]string, error), error) {
	compare := func(firewall.Policy) ([]string, error) { return n.damage, nil }
	return firewall.Others{Bridges: n.bridges, UserRules: n.users}, !n.missing, compare, n.err
}

func (n *fakeNeighbour) Rules(firewall.Policy) string { return "*filter\n" }

func (n *fakeNeighbour) Purge(context.Context) error { return n.err }
