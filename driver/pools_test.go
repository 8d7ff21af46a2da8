package driver

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func (b *bench) putPool(id state.PoolID, prefix string) {
	p := netip.MustParsePrefix(prefix)
	_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error {
		tx.PutPool(state.Pool{ID: id, Prefix: p, Range: p})
		tx.PutLease(state.Lease{Pool: id, Addr: p.Addr().Next(), Gateway: true})
		return nil
	})
	b.ok(err)
}

func (b *bench) poolIDs() (ids []state.PoolID) {
	for _, p := range b.store.Snapshot().Pools {
		ids = append(ids, p.ID)
	}
	return ids
}

// TestDeleteNetworkTakesPools: its own, of both families, and no other's.
func TestDeleteNetworkTakesPools(t *testing.T) {
	b := newBench(t, Options{})
	b.putPool("four", "10.1.0.0/24")
	b.putPool("six", "fd00:1::/64")
	b.putPool("other", "10.2.0.0/24")
	b.putPool("larger", "fd00:2::/32")
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	b.ok(b.deleteNetwork(9))
	if got := len(b.poolIDs()); got != 4 {
		t.Errorf("%d pools after the deletion of an unknown network", got)
	}
	for range 2 {
		b.ok(b.deleteNetwork(1))
		if got := b.poolIDs(); len(got) != 2 || got[0] != "larger" || got[1] != "other" {
			t.Errorf("pools %v", got)
		}
	}
	b.ok(b.store.View(func(tx *store.Tx) error {
		if n := tx.LeaseCount("four") + tx.LeaseCount("six"); n > 0 {
			t.Errorf("%d leases are left", n)
		}
		return nil
	}))
}

// TestFailedCreateNetworkLeavesPools: the engine releases them itself.
func TestFailedCreateNetworkLeavesPools(t *testing.T) {
	b := newBench(t, Options{})
	b.putPool("four", "10.1.0.0/24")
	b.loop.fail = []error{errors.New("the kernel has no room")}
	if err := b.CreateNetwork(b.ctx(), newNetwork(t, 1)); err == nil {
		t.Fatal("no error")
	}
	if got := b.poolIDs(); len(got) != 1 {
		t.Errorf("pools %v", got)
	}
}
