package driver

import (
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// dropPools frees the address pools of a network that Docker deletes. ReleasePool, which
// comes before DeleteNetwork, leaves them: it may be meant for another network that
// was refused (see package ipam). The undoing of CreateNetwork leaves them too, since the
// ReleasePool that follows it finds no network.
func dropPools(tx *store.Tx, id state.NetworkID) {
	n, ok := tx.Network(id)
	if !ok {
		return
	}
	for _, p := range tx.Pools() {
		if p.Prefix == n.V4.Prefix || p.Prefix == n.V6.Prefix {
			tx.DeletePool(p.ID)
		}
	}
}
