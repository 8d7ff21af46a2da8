package nftables

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// TestDifferences: what somebody did to the table is told by a look, which changes nothing, and by the Sync that mends it; a change
// of the policy is nobody's doing.
func TestDifferences(t *testing.T) {
	first := func(m map[string]Set) string {
		for name, s := range m {
			if len(s.Elements) > 0 && strings.Contains(name, "ports") {
				return name
			}
		}
		return ""
	}
	rows := []struct {
		name   string
		damage func(*fakeKernel, *fakeNeighbour)
		want   string
	}{
		{"nothing", func(*fakeKernel, *fakeNeighbour) {}, ""},
		{"table gone", func(k *fakeKernel, _ *fakeNeighbour) { k.table = nil }, "table inet drawbridge is missing"},
		{"elements gone", func(k *fakeKernel, _ *fakeNeighbour) {
			name := first(k.table.sets)
			s := k.table.sets[name]
			s.Elements = nil
			k.table.sets[name] = s
		}, " lacks "},
		{"chain flushed", func(k *fakeKernel, _ *fakeNeighbour) {
			for name, c := range k.table.chains {
				if len(c.rules) > 1 {
					c.rules = nil
					k.table.chains[name] = c
					return
				}
			}
		}, " has 0 of its "},
		{"foreign chain", func(k *fakeKernel, _ *fakeNeighbour) { k.table.chains["extra"] = fakeChain{} }, "chain extra is left over"},
		{"iptables", func(_ *fakeKernel, n *fakeNeighbour) { n.damage = []string{"iptables: a jump is missing"} }, "iptables: a jump is missing"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b, p := newBed(), sample()
			b.sync(t, p)
			row.damage(b.kernel, b.neighbour)
			b.kernel.gen++
			commits := b.kernel.commits
			looked, err := b.Inspect(t.Context(), always(p))
			if text := strings.Join(looked, "; "); err != nil || (row.want == "") != (text == "") || !strings.Contains(text, row.want) {
				t.Errorf("a look: %q, %v", text, err)
			}
			if b.kernel.commits != commits {
				t.Error("a look changed something")
			}
			var found []string
			w := always(oneMore(p))
			w.Last = func() (firewall.Policy, bool) { return p, true }
			w.Found = func(differences []string) { found = differences }
			if err := b.Sync(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(found, looked) {
				t.Errorf("mended %q, looked at %q", found, looked)
			}
			b.check(t, oneMore(p))
		})
	}
}
