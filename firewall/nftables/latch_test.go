package nftables

import (
	"strings"
	"testing"
)

// TestLatchTouchesOurs: no rule of the latch does anything to a packet that neither comes from nor goes to a bridge of ours. Others may
// use the bit.
func TestLatchTouchesOurs(t *testing.T) {
	for _, families := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		rules := 0
		for _, c := range latch(families[0], families[1]).Chains {
			for _, r := range c.Rules {
				rules++
				if text := r.text(); !strings.Contains(text, toOurs.Text) && !strings.Contains(text, fromOurs.Text) {
					t.Errorf("%v: %s", families, text)
				}
			}
		}
		if rules == 0 {
			t.Errorf("%v: no rules", families)
		}
	}
}
