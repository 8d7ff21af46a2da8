package nftables

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// TestWithoutWhatTheKernelLacks: where the kernel does not take rules that can be done without, all others are written, and the backend can
// be used.
func TestWithoutWhatTheKernelLacks(t *testing.T) {
	has := func(match func(expr.Any) bool) func(addRule) bool {
		return func(r addRule) bool { return slices.ContainsFunc(r.exprs(), match) }
	}
	labels := func(e expr.Any) bool {
		ct, ok := e.(*expr.Ct)
		return ok && ct.Key == expr.CtKeyLABELS
	}
	fills := func(e expr.Any) bool { _, ok := e.(*expr.Dynset); return ok }
	shows := func(e expr.Any) bool { _, ok := e.(*expr.Log); return ok }
	for _, tt := range []struct {
		name   string
		lacks  func(addRule) bool
		absent string // the chain that is not there for that
	}{
		{"nothing", nil, ""},
		{"sockets", func(r addRule) bool { return r.chain == chainDivert }, chainDivert},
		{"labels of connections", has(labels), namesOf(false).learn},
		{"sets that rules fill", has(fills), namesOf(false).learn},
		{"the log", has(shows), chainInquiry},
	} {
		t.Run(tt.name, func(t *testing.T) {
			everything := firewall.Wanted{Divert: true, Policy: func(h firewall.Host) firewall.Policy { return without(sample(), h) }}
			b := newBed()
			b.neighbour.users = firewall.Both{V4: true, V6: true}
			b.kernel.lacks = tt.lacks
			if err := b.Usable(); err != nil {
				t.Errorf("not usable: %v", err)
			}
			for range 2 {
				if err := b.Sync(t.Context(), everything); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Follow(t.Context(), everything); err != nil {
				t.Fatal(err)
			}
			found, err := b.Inspect(t.Context(), everything)
			if err != nil || len(found) > 0 {
				t.Errorf("not as wanted: %v, %v", found, err)
			}
			for _, chain := range []string{chainDivert, namesOf(false).learn, chainInquiry} {
				if _, there := b.kernel.table.chains[chain]; there == (chain == tt.absent) {
					t.Errorf("chain %s is there: %v", chain, there)
				}
			}
		})
	}
}

// TestFailureIsNoLack: what failed once for want of memory is asked again, and what the kernel lacks is not.
func TestFailureIsNoLack(t *testing.T) {
	for _, tt := range []struct {
		err   error
		again bool
	}{{unix.ENOMEM, true}, {unix.ENOBUFS, true}, {unix.ENOENT, false}, {unix.EOPNOTSUPP, false}} {
		b := newBed()
		b.kernel.failing = tt.err
		var h firewall.Host
		b.lacks(firewall.Wanted{Divert: true}, &h)
		if !h.NoSocket || h.NoLearning == "" {
			t.Errorf("%v: the host has what its kernel refused: %+v", tt.err, h)
		}
		b.kernel.failing = nil
		h = firewall.Host{}
		b.lacks(firewall.Wanted{Divert: true}, &h)
		if again := !h.NoSocket && h.NoLearning == ""; again != tt.again {
			t.Errorf("%v: asked again: %v", tt.err, again)
		}
	}
}

// TestModulesAreNamed: a kernel that lacks what cannot be done without is told of by the names of its modules.
func TestModulesAreNamed(t *testing.T) {
	b := newBed()
	b.kernel.lacks = func(r addRule) bool {
		return slices.ContainsFunc(r.exprs(), func(e expr.Any) bool {
			_, masquerades := e.(*expr.Masq)
			_, looks := e.(*expr.Fib)
			return masquerades || looks
		})
	}
	const want = "the kernel lacks nft_fib_inet, nft_masq for nftables"
	if err := b.Usable(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
