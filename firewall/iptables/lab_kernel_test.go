//go:build kernel

package iptables

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

func TestMain(m *testing.M) { firewalltest.Main(m) }

// lab is a router with a Backend.
type lab struct {
	*firewalltest.Lab
	backend *Backend
}

func newLab(t *testing.T, variant string) *lab {
	t.Helper()
	return withBackend(firewalltest.New(t, variant))
}

func withBackend(inner *firewalltest.Lab) *lab {
	l := &lab{Lab: inner}
	l.In(func() {
		sets, err := newKernelSets()
		must(l.T, err)
		l.backend = newBackend(l.Run, sets, unlisted)
		l.backend.heed(sets)
		l.backend.host.BridgeSysctls = l.BridgeSysctls
		l.backend.variant.Store(&l.Variant)
		l.T.Cleanup(l.backend.Close)
		if l.Latch == nil { // else it is that of the backend before, whose table nobody else may change
			latch, err := nftables.NewLatch()
			must(l.T, err)
			l.T.Cleanup(latch.Close)
			l.Latch = latch
		}
	})
	return l
}

func (l *lab) sync(s state.Snapshot) {
	l.T.Helper()
	l.Sync(l.backend, s)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
