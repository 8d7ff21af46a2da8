//go:build kernel

package iptables

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// TestDivertKernel: the kernel takes the rule, whoever asks and whether it is there already, and a state that needs none has none.
func TestDivertKernel(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			divert := true
			bring := func(b firewall.Backend) []string {
				t.Helper()
				p := firewall.NewPlane(b, firewall.Settings{Divert: func(state.Snapshot) bool { return divert }})
				must(t, p.Apply(t.Context(), firewalltest.State()))
				if lacks := p.Undiverted(); lacks != "" {
					t.Errorf("lacks %s", lacks)
				}
				var rules []string
				for _, v6 := range []bool{false, true} {
					d, err := l.backend.read(t.Context(), variant, v6)
					must(t, err)
					rules = append(rules, d["mangle"][chainDivert]...)
				}
				found, err := p.Inspect(t.Context(), firewalltest.State())
				must(t, err)
				if len(found) > 0 {
					t.Errorf("not as wanted: %v", found)
				}
				return rules
			}
			if got := bring(l.backend); len(got) != 4 {
				t.Errorf("rules %q", got)
			}
			if got := bring(withBackend(l.Lab).backend); len(got) != 4 {
				t.Errorf("after a restart: rules %q", got)
			}
			divert = false
			if got := bring(l.backend); len(got) != 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}
