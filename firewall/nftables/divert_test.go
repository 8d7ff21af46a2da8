package nftables

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// diverting wants a policy that leads to transparent sockets, where the host can.
func diverting() firewall.Wanted {
	w := firewall.Wanted{Divert: true, Policy: func(h firewall.Host) firewall.Policy {
		p := sample()
		p.V4.Divert, p.V6.Divert = !h.NoSocket, !h.NoSocket
		return p
	}}
	return w
}

// TestDivertWhereItCan: where the kernel does not take the rule all others are written, and the backend can be used.
func TestDivertWhereItCan(t *testing.T) {
	for _, lacks := range []bool{false, true} {
		b := newBed()
		b.kernel.noSocket = lacks
		if err := b.Usable(); err != nil {
			t.Errorf("lacking %v: not usable: %v", lacks, err)
		}
		for range 2 {
			if err := b.Sync(t.Context(), diverting()); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Follow(t.Context(), diverting()); err != nil {
			t.Fatal(err)
		}
		found, err := b.Inspect(t.Context(), diverting())
		if err != nil || len(found) > 0 {
			t.Errorf("lacking %v: not as wanted: %v, %v", lacks, found, err)
		}
		if _, there := b.kernel.table.chains[chainDivert]; there == lacks {
			t.Errorf("lacking %v: the chain is there: %v", lacks, there)
		}
	}
}

// refuses is what a kernel without nft_socket says.
func refuses(edits []edit) error {
	for _, e := range edits {
		if r, ok := e.(addRule); ok && r.chain == chainDivert {
			return unix.ENOENT
		}
	}
	return nil
}
