package ipam

import (
	"context"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// orphanPatience is how long nobody may have an address before it is freed. An engine asks for
// an address seconds before CreateEndpoint.
const orphanPatience = time.Minute

// Sweep frees the addresses that nobody has and nobody will release, and returns their leases.
// Docker forgets the IPv4 address of a container when the request for its IPv6 address
// fails (moby, daemon/libnetwork/network.go, createEndpoint: what would release it is deferred after
// both), and it drops the errors of ReleaseAddress. Sweep is to be called every few seconds.
//
// Pools of which no network in the store was made are left alone: their network has another driver,
// and who has their addresses is not known here.
func (d *Driver) Sweep(ctx context.Context, now time.Time) (freed []state.Lease, err error) {
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		freed = nil
		since := map[leaseKey]time.Time{}
		for pool, inUse := range madePools(tx) {
			for _, l := range tx.Leases(pool.ID) {
				if _, used := inUse[l.Addr]; used || l.Reserved {
					continue
				}
				key := leaseKey{l.Pool, l.Addr}
				first, known := d.memory.orphans[key]
				if !known {
					first = now
				}
				since[key] = first
				if now.Sub(first) >= orphanPatience {
					release(tx, l.Pool, l.Addr)
					freed = append(freed, l)
				}
			}
		}
		d.memory.orphans = since
		d.memory.prune(tx)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return freed, nil
}

// prune forgets about pools and addresses that are gone.
func (m *memory) prune(tx *store.Tx) {
	for id := range m.begun {
		if _, ok := tx.Pool(id); !ok {
			delete(m.begun, id)
		}
	}
	for key := range m.given {
		if _, ok := tx.Lease(key.pool, key.addr); !ok {
			delete(m.given, key)
		}
	}
}
