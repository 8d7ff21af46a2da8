//go:build kernel

package nftables

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// TestDivertKernel: the kernel takes the rule, whoever asks and whether it is there already, and a state that needs none has none.
func TestDivertKernel(t *testing.T) {
	l := newLab(t, "-nft")
	divert := true
	bring := func(b firewall.Backend) int {
		t.Helper()
		p := firewall.NewPlane(b, firewall.Settings{Divert: func(state.Snapshot) bool { return divert }})
		must(t, p.Apply(t.Context(), firewalltest.State()))
		if lacks := p.Undiverted(); lacks != "" {
			t.Errorf("lacks %s", lacks)
		}
		return strings.Count(l.nft("list", "table", "inet", "drawbridge"), "socket transparent 1")
	}
	if got := bring(l.backend); got != 4 {
		t.Errorf("%d rules", got)
	}
	if got := bring(withBackend(l.Lab).backend); got != 4 {
		t.Errorf("after a restart: %d rules", got)
	}
	divert = false
	if got := bring(l.backend); got != 0 {
		t.Errorf("%d rules are left", got)
	}
}
