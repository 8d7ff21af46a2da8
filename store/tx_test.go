package store

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestTxSeesItsOwnChanges(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	update(t, s, func(tx *Tx) {
		for _, c := range changes {
			c.do(tx)
		}
		_, deleted := tx.Network(network(1).ID)
		_, added := tx.Endpoint(endpoint(50, 1).ID)
		_, dropped := tx.Lease(pool(2).ID, ip("fd00::2"))
		if deleted || !added || dropped {
			t.Errorf("deleted network %v, added endpoint %v, lease of deleted pool %v", deleted, added, dropped)
		}
		if f := tx.Forwarding(); f != (state.Forwarding{V6: true, Boot: "b2"}) {
			t.Errorf("forwarding %v", f)
		}
		if p, ok := tx.ULA(); !ok || p != pfx("fdff::/48") {
			t.Errorf("unique local prefix %v %v", p, ok)
		}
		if r := tx.Retired(); !slices.Contains(r, "br-3") || slices.Contains(r, "br-old01") || !slices.IsSorted(r) {
			t.Errorf("retired %v", r)
		}
	})
}

func TestEndpointsOf(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	view(t, s, func(tx *Tx) {
		for i, want := range []int{7, 7, 6, 0} {
			got := tx.EndpointsOf(network(i).ID)
			if len(got) != want {
				t.Errorf("network %d has %d endpoints, want %d", i, len(got), want)
			}
			for _, e := range got {
				if e.Network != network(i).ID {
					t.Errorf("endpoint of %s in network %d", e.Network, i)
				}
			}
		}
	})
}

// Leases are filed by text, where 10.0.0.10 comes before 10.0.0.9, and pools whose id
// begins with another's must stay apart.
func TestLeasesOfOnePool(t *testing.T) {
	want := []string{"10.0.0.9", "10.0.0.10", "10.0.0.100", "fd00::9", "fd00::10", "fd00::a0"}
	s := newStore(t)
	update(t, s, func(tx *Tx) {
		for _, p := range []state.PoolID{"a", "ab", "b", "aa"} {
			for _, a := range slices.Backward(want) {
				tx.PutLease(state.Lease{Pool: p, Addr: ip(a)})
			}
		}
		tx.PutLease(state.Lease{Pool: "ab", Addr: ip("10.0.0.1")})
	})
	check := func(tx *Tx) {
		t.Helper()
		var got []string
		for _, l := range tx.Leases("a") {
			got = append(got, l.Addr.String())
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("leases of a:\n%s", d)
		}
		if n := tx.LeaseCount("ab"); n != 7 {
			t.Errorf("LeaseCount(ab) = %d", n)
		}
		if n := tx.LeaseCount("c"); n != 0 {
			t.Errorf("LeaseCount(c) = %d", n)
		}
	}
	view(t, s, check)
	view(t, crashed(t, s), check)
}

func TestDeletePoolDropsItsLeasesOnly(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	update(t, s, func(tx *Tx) {
		tx.PutLease(lease(1, "10.1.4.99")) // of this very transaction
		tx.DeletePool(pool(1).ID)
		if n := tx.LeaseCount(pool(1).ID); n != 0 {
			t.Errorf("%d leases are left", n)
		}
		if n := tx.LeaseCount(pool(2).ID); n != 10 {
			t.Errorf("the other pool has %d leases, want 10", n)
		}
		tx.PutPool(pool(1))
		tx.PutLease(lease(1, "10.1.4.1"))
	})
	view(t, crashed(t, s), func(tx *Tx) {
		if got := tx.Leases(pool(1).ID); len(got) != 1 {
			t.Errorf("leases of the new pool: %v", got)
		}
	})
}

// None of the values that go in or come out may share memory with the store.
func TestNoAliases(t *testing.T) {
	s := newStore(t)
	in := endpoint(1, 1)
	want := endpoint(1, 1).Ports
	spoil := func(e state.Endpoint) { e.Ports[0].HostPort = 1 }
	check := func(where string) {
		t.Helper()
		if d := cmp.Diff(want, s.Snapshot().Endpoints[0].Ports, byValue); d != "" {
			t.Errorf("changed through %s:\n%s", where, d)
		}
	}
	update(t, s, func(tx *Tx) {
		tx.PutEndpoint(in)
		spoil(in)
		e, _ := tx.Endpoint(in.ID)
		spoil(e)
		spoil(tx.Endpoints()[0])
	})
	check("a transaction")
	view(t, s, func(tx *Tx) {
		e, _ := tx.Endpoint(in.ID)
		spoil(e)
		spoil(tx.Endpoints()[0])
		spoil(tx.EndpointsOf(in.Network)[0])
		tx.Endpoints()[0] = state.Endpoint{}
	})
	check("a view")
	held := s.Snapshot()
	update(t, s, func(tx *Tx) {
		e, _ := tx.Endpoint(in.ID)
		e.Ports[0].HostPort = 9
		tx.PutEndpoint(e)
		tx.PutEndpoint(endpoint(0, 1))
	})
	if d := cmp.Diff(want, held.Endpoints[0].Ports, byValue); d != "" {
		t.Errorf("an old snapshot changed:\n%s", d)
	}
}
