package ipam

import (
	"context"
	"slices"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// loosePools returns the pools of no network.
func (b *bench) loosePools() []state.Pool {
	b.t.Helper()
	loose, err := b.Loose(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return loose
}

func TestLoose(t *testing.T) {
	b := newBench(t)
	theirs := b.pool("10.1.0.0/24", "")
	if loose := b.loosePools(); len(loose) > 0 {
		t.Errorf("while its network is created: %v", loose)
	}
	b.pass(underWay)
	b.pool("10.2.0.0/24", "")
	if loose := b.loosePools(); len(loose) != 1 || string(loose[0].ID) != theirs {
		t.Errorf("afterwards: %v", loose)
	}
	b.pass(underWay)
	b.edit(func(tx *store.Tx) { tx.PutNetwork(network("web", "10.2.0.1/24")) })
	if loose := b.loosePools(); len(loose) != 1 || string(loose[0].ID) != theirs {
		t.Errorf("beside a network of ours: %v", loose)
	}
}

func TestForgetPool(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(b *bench, pool string)
		gone      bool
	}{
		"nothing":           {func(*bench, string) {}, true},
		"an address":        {func(b *bench, pool string) { b.must(b.request(pool, "")) }, false},
		"its network":       {func(b *bench, _ string) { b.edit(func(tx *store.Tx) { tx.PutNetwork(network("web", "10.1.0.1/24")) }) }, false},
		"created once more": {func(b *bench, _ string) { b.pool("10.1.0.0/24", "") }, false},
		"released":          {func(b *bench, pool string) { _ = b.releasePool(pool) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			pool := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(pool, ""))
			other := b.pool("10.2.0.0/24", "")
			b.pass(underWay)
			loose := b.loosePools()
			i := slices.IndexFunc(loose, func(p state.Pool) bool { return string(p.ID) == pool })
			c.meanwhile(b, pool)
			_, before := b.stored(pool)
			gone, err := b.ForgetPool(t.Context(), loose[i])
			if err != nil {
				t.Fatal(err)
			}
			if _, there := b.stored(pool); gone != c.gone || (before && !there) != c.gone || c.gone && len(b.leases(pool)) > 0 {
				t.Errorf("gone %t, still there %t", gone, there)
			}
			if _, there := b.stored(other); !there {
				t.Error("another pool is gone too")
			}
		})
	}
}

func (b *bench) stored(pool string) (p state.Pool, ok bool) {
	_ = b.store.View(func(tx *store.Tx) error {
		p, ok = tx.Pool(state.PoolID(pool))
		return nil
	})
	return p, ok
}
