//go:build kernel

package nftables

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// TestLatch has others try to take the latch away, ends its owner, and has another one take over.
func TestLatch(t *testing.T) {
	l := withBackend(firewalltest.NewBare(t, "-nft"))
	l.nft("add", "table", "inet", "other")
	owner := l.latch(t)
	must(t, owner.Hold(t.Context(), latchedFor(true, true)))
	l.wantLatch(t, owner, true, true)
	for _, command := range []string{"flush ruleset", "delete table inet " + latchName, "flush chain inet " + latchName + " " + chainLatch} {
		_, err := l.run(t.Context(), "", append([]string{"nft"}, strings.Fields(command)...)...)
		if refused := err != nil; refused != (command != "flush ruleset") {
			t.Errorf("nft %s: %v", command, err)
		}
		l.wantLatch(t, owner, true, true)
	}
	if out := l.nft("list", "tables"); strings.Contains(out, "other") {
		t.Errorf("the flush did nothing: %s", out)
	}

	l.In(owner.Close)
	l.In(func() {
		if !LatchLeft() {
			t.Error("the latch went with its owner")
		}
	})
	next := l.latch(t)
	must(t, next.Hold(t.Context(), latchedFor(true, false)))
	l.wantLatch(t, next, true, false)
	if _, err := l.run(t.Context(), "", "nft", "delete", "table", "inet", latchName); err == nil {
		t.Error("a latch that was taken over is not its owner's")
	}
	must(t, next.Hold(t.Context(), latchedFor(false, false)))
	l.wantLatch(t, next, false, false)

	must(t, next.Hold(t.Context(), latchedFor(false, true)))
	l.In(next.Close)
	l.In(func() {
		must(t, RemoveLatch())
		must(t, RemoveLatch())
		if LatchLeft() {
			t.Error("the latch is still there")
		}
	})
}

// TestForeignLatch meets a table of that name that is somebody else's.
func TestForeignLatch(t *testing.T) {
	l := withBackend(firewalltest.NewBare(t, "-nft"))
	l.nft("add", "table", "inet", latchName)
	latch := l.latch(t)
	if err := latch.Hold(t.Context(), latchedFor(true, true)); err == nil || !strings.Contains(err.Error(), "nft delete table inet "+latchName) {
		t.Errorf("a foreign table: %v", err)
	}
	l.In(func() {
		must(t, RemoveLatch())
		if LatchLeft() {
			t.Error("it is taken for ours")
		}
	})
	if out := l.nft("list", "tables"); !strings.Contains(out, latchName) {
		t.Error("somebody else's table was removed")
	}
}

// TestLatchFollows has networks come and go. Each is an element: the rules stay, and where nothing changes nothing is written.
func TestLatchFollows(t *testing.T) {
	l := withBackend(firewalltest.NewBare(t, "-nft"))
	owner := l.latch(t)
	both := func(bridges ...string) firewall.Latched {
		return firewall.Latched{V4: true, V6: true, Bridges: bridges}
	}
	must(t, owner.Hold(t.Context(), both("br-a")))
	rules := l.nft("--handle", "list", "chain", "inet", latchName, chainLatch)
	for _, step := range []struct {
		want   firewall.Latched
		writes bool
	}{{both("br-a", "br-b"), true}, {both("br-b"), true}, {both("br-b"), false}, {both("br-c"), true}} {
		before, err := owner.kernel.generation()
		must(t, err)
		must(t, owner.Hold(t.Context(), step.want))
		after, err := owner.kernel.generation()
		must(t, err)
		if after != before != step.writes {
			t.Errorf("%v: generation %d after %d", step.want.Bridges, after, before)
		}
		found, err := owner.Inspect(step.want)
		must(t, err)
		if len(found) > 0 {
			t.Errorf("%v: %q", step.want.Bridges, found)
		}
	}
	if now := l.nft("--handle", "list", "chain", "inet", latchName, chainLatch); now != rules {
		t.Errorf("the rules were made anew:\n%s\nthey were\n%s", now, rules)
	}
	// A table that is gone all the same comes back.
	_, err := owner.kernel.commit(0, []edit{deleteTable{}})
	must(t, err)
	must(t, owner.Hold(t.Context(), both("br-c")))
	l.wantLatch(t, owner, true, true, "br-c")
}

// latchedFor has bridges for the families.
func latchedFor(v4, v6 bool, bridges ...string) firewall.Latched {
	return firewall.Latched{V4: v4, V6: v6, Bridges: bridges}
}

// latch opens another one in the router.
func (l *lab) latch(t *testing.T) (out *Latch) {
	l.In(func() {
		var err error
		out, err = NewLatch()
		must(t, err)
	})
	return out
}

// wantLatch looks at the table with the eyes of nft and of the latch itself.
func (l *lab) wantLatch(t *testing.T, owner *Latch, v4, v6 bool, bridges ...string) {
	t.Helper()
	var found []string
	l.In(func() {
		var err error
		found, err = owner.Inspect(latchedFor(v4, v6, bridges...))
		must(t, err)
	})
	if len(found) > 0 {
		t.Errorf("differences: %q", found)
	}
	out := l.nft("list", "ruleset")
	if got := strings.Contains(out, "table inet "+latchName); got != (v4 || v6) {
		t.Errorf("v4 %v, v6 %v: %s", v4, v6, out)
	}
	families := []bool{strings.Contains(out, "nfproto ipv4 meta mark"), strings.Contains(out, "nfproto ipv6 meta mark")}
	if want := []bool{v4 && !v6, v6 && !v4}; !slices.Equal(families, want) {
		t.Errorf("v4 %v, v6 %v: rules for one family alone: %v, want %v\n%s", v4, v6, families, want, out)
	}
}
