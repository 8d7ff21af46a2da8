package ipam

import (
	"context"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Loose returns the pools of which no network in the store was made and that are not being made one of at this moment. They are those of
// other drivers' networks, or an engine has forgotten them.
func (d *Driver) Loose(ctx context.Context) (loose []state.Pool, err error) {
	_, err = d.store.Update(ctx, func(tx *store.Tx) error { // not View: memory belongs to updates
		loose = d.loose(tx)
		return nil
	})
	return loose, err
}

func (d *Driver) loose(tx *store.Tx) []state.Pool {
	made := map[state.PoolID]bool{}
	for p := range madePools(tx) {
		made[p.ID] = true
	}
	return slices.DeleteFunc(tx.Pools(), func(p state.Pool) bool { return made[p.ID] || d.memory.isUnderWay(p.ID, d.now()) })
}

// ForgetPool removes a pool that Docker forgot, with its addresses, and reports whether it did: not if a network has it by now, nor if
// it has changed meanwhile, as it does when an address is chosen.
func (d *Driver) ForgetPool(ctx context.Context, p state.Pool) (gone bool, err error) {
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		if gone = slices.Contains(d.loose(tx), p); gone {
			tx.DeletePool(p.ID)
		}
		return nil
	})
	return gone && err == nil, err
}
