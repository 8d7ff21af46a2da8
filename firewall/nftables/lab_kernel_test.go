//go:build kernel

package nftables

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

func TestMain(m *testing.M) { firewalltest.Main(m) }

// lab is a router with a Backend.
type lab struct {
	*firewalltest.Lab
	backend *Backend
	run     iptables.Runner // as the neighbour does
}

func newLab(t *testing.T, variant string) *lab {
	t.Helper()
	return withBackend(firewalltest.New(t, variant))
}

// withBackend makes a backend beside the lab's variant of iptables, or alone where that is "".
func withBackend(inner *firewalltest.Lab) *lab {
	l := &lab{Lab: inner, run: inner.Run}
	l.In(func() {
		var neighbour Neighbour = nobody{}
		if l.Variant != "" {
			m, err := iptables.NewMarkedVariant(func(ctx context.Context, in string, argv ...string) (string, error) {
				return l.run(ctx, in, argv...)
			}, MarkPermitted, l.Variant)
			must(l.T, err)
			l.T.Cleanup(m.Close)
			neighbour = m
		}
		k, err := newKernel(tableName, 0)
		must(l.T, err)
		l.backend = newBackend(k, neighbour, unlisted)
		l.backend.host.BridgeSysctls = l.BridgeSysctls
		if l.Variant == "-legacy" {
			// It has no generation: every Sync is one that was due by time.
			at := time.Now()
			l.backend.now = func() time.Time { at = at.Add(lookInterval); return at }
		}
		l.T.Cleanup(l.backend.Close)
		if l.Latch == nil { // else it is that of the backend before, whose table nobody else may change
			latch, err := NewLatch()
			must(l.T, err)
			l.T.Cleanup(latch.Close)
			l.Latch = latch
		}
	})
	return l
}

func inLab(inner *firewalltest.Lab) firewall.Backend { return withBackend(inner).backend }

// unlisted stands for a host whose bridges cannot be listed: only Docker's rules name them then.
func unlisted() ([]string, error) { return nil, errors.New("not listed") }

// nobody is a host without iptables.
type nobody struct{ Neighbour }

func (nobody) Read(context.Context) (firewall.Others, bool, error) {
	return firewall.Others{}, false, nil
}
func (nobody) Purge(context.Context) error { return nil }

func (l *lab) sync(s state.Snapshot) {
	l.T.Helper()
	l.Sync(l.backend, s)
}

// nft runs nft in the router.
func (l *lab) nft(args ...string) string {
	l.T.Helper()
	var out []byte
	var err error
	l.In(func() { out, err = exec.Command("nft", args...).CombinedOutput() })
	if err != nil {
		l.T.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
