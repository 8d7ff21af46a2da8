package store

import (
	"net/netip"

	"github.com/drawbridge-net/drawbridge/state"
)

// image is the whole state at one revision. It is never changed once it is built.
type image struct {
	snapshot state.Snapshot
	leases   []state.Lease // sorted by pool and address
	ula      netip.Prefix
}

// host is the values that exist once.
type host struct {
	forwarding state.Forwarding
	ula        netip.Prefix
}

func (i *image) host() host { return host{i.snapshot.Forwarding, i.ula} }

// next returns the image that the transaction leads to. Slices of kinds that it did
// not change are those of its base.
func (tx *Tx) next() *image {
	return &image{
		snapshot: state.Snapshot{
			Revision:   tx.base.snapshot.Revision + 1,
			Networks:   tx.networks.rows(),
			Endpoints:  tx.endpoints.rows(),
			Pools:      tx.pools.rows(),
			Retired:    tx.retired.rows(),
			Forwarding: tx.host.forwarding,
		},
		leases: tx.leases.rows(),
		ula:    tx.host.ula,
	}
}

// records returns what the transaction has to write to reach next.
func (tx *Tx) records() ([]record, error) {
	out, err := metaRecords(tx.base.snapshot.Revision+1, tx.host)
	for _, more := range []func() ([]record, error){
		tx.networks.records, tx.endpoints.records, tx.pools.records, tx.leases.records, tx.retired.records,
	} {
		if err != nil {
			return nil, err
		}
		var part []record
		part, err = more()
		out = append(out, part...)
	}
	return out, err
}

// rebuild returns a transaction that writes all of i as if nothing were on disk.
func (i *image) rebuild() *Tx {
	tx := newTx(&image{snapshot: state.Snapshot{Revision: i.snapshot.Revision - 1}})
	putAll(&tx.networks, i.snapshot.Networks)
	putAll(&tx.endpoints, i.snapshot.Endpoints)
	putAll(&tx.pools, i.snapshot.Pools)
	putAll(&tx.leases, i.leases)
	putAll(&tx.retired, i.snapshot.Retired)
	tx.host = i.host()
	return tx
}

func putAll[K comparable, V any](e *edit[K, V], rows []V) {
	for _, v := range rows {
		e.put(v)
	}
}
