package nftables

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// limitedPort is a policy without a port that only some may come to, and with it: published, in a row, and open at its own address. Without
// it nothing is limited, unless others are.
func limitedPort(others bool) (without, with firewall.Policy) {
	without, with = sample(), sample()
	for _, f := range []*firewall.Family{&without.V4, &without.V6} {
		f.Open = nil
		f.Ports = slices.DeleteFunc(f.Ports, func(p firewall.Port) bool { return p.HostPort >= 9000 })
		if f.Limits = f.Limits[:1]; !others {
			f.Limits, f.Limited = nil, false
		}
	}
	return without, with
}

// TestLimitsFirst: what lets in to a limited port comes in a transaction of its own, behind the limit, and goes in one ahead of it. What
// lies between is what a daemon leaves that is killed there.
func TestLimitsFirst(t *testing.T) {
	for _, others := range []bool{false, true} {
		without, with := limitedPort(others)
		for what, way := range map[string][2]firewall.Policy{"opened": {without, with}, "closed": {with, without}} {
			b := newBed()
			b.sync(t, way[0])
			var left []*fakeTable
			b.kernel.after = func() { left = append(left, b.kernel.table) }
			b.sync(t, way[1])
			b.check(t, way[1])
			if len(left) != 2 {
				t.Fatalf("%s, others limited: %v: %d transactions", what, others, len(left))
			}
			for _, s := range Render(without, false).Sets {
				if more := missing(left[0].sets[s.Name].Elements, s.Elements); roles[s.Name] == letsIn && len(more) > 0 {
					t.Errorf("%s, others limited: %v: set %s lets in between the transactions", what, others, s.Name)
				}
			}
			for _, s := range Render(with, false).Sets {
				if lacks := missing(s.Elements, left[0].sets[s.Name].Elements); roles[s.Name] == limits && len(lacks) > 0 {
					t.Errorf("%s, others limited: %v: set %s limits nothing between the transactions", what, others, s.Name)
				}
			}
		}
	}
}

// TestUnlimitedAtOnce: where nobody's limits change there is one transaction.
func TestUnlimitedAtOnce(t *testing.T) {
	b := newBed()
	plain, _ := limitedPort(false)
	b.sync(t, plain)
	if b.kernel.commits != 1 {
		t.Errorf("%d transactions for a table", b.kernel.commits)
	}
	_, limited := limitedPort(false)
	b.sync(t, limited)
	commits := b.kernel.commits
	b.sync(t, oneMore(limited))
	b.sync(t, limited)
	if b.kernel.commits != commits+2 {
		t.Errorf("%d transactions for a port that comes and goes beside limited ones", b.kernel.commits-commits)
	}
}

// TestBetweenTransactions: who fails behind the first of several transactions takes nothing for known, and tells nobody that somebody else
// has changed what he did himself.
func TestBetweenTransactions(t *testing.T) {
	without, with := limitedPort(true)
	for what, interrupt := range map[string]func(*fakeKernel){
		"a failure":            func(k *fakeKernel) { k.err = unix.ENOMEM },
		"somebody else's rule": func(k *fakeKernel) { k.gen++ },
	} {
		b := newBed()
		b.sync(t, without)
		b.kernel.after = func() { b.kernel.after = nil; interrupt(b.kernel) }
		w := always(with)
		w.Last = func() (firewall.Policy, bool) { return without, true }
		w.Found = func(words []string) { t.Errorf("%s: told of %q", what, words) }
		for range 2 {
			if err := b.Sync(t.Context(), w); err != nil && !errors.Is(err, unix.ENOMEM) {
				t.Errorf("%s: %v", what, err)
			}
		}
		b.check(t, with)
		if b.partly {
			t.Errorf("%s: the whole is taken for a part", what)
		}
	}
}
