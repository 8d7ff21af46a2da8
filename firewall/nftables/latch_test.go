package nftables

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// TestLatchTouchesOurs: no rule of the latch does anything to a packet that neither comes from nor goes to a bridge of ours. Others may
// use the bit.
func TestLatchTouchesOurs(t *testing.T) {
	for _, families := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		rules := 0
		for _, c := range latch(firewall.Latched{V4: families[0], V6: families[1], Bridges: []string{"br-one"}}).Chains {
			for _, r := range c.Rules {
				rules++
				about := func(p Part) bool { return strings.Contains(r.text(), p.Text) }
				if !slices.ContainsFunc([]Part{toOurs, fromOurs, in(setLatch, oif), in(setLatch, iif)}, about) {
					t.Errorf("%v: %s", families, r.text())
				}
			}
		}
		if rules == 0 {
			t.Errorf("%v: no rules", families)
		}
	}
}
