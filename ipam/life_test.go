package ipam

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/store"
)

// TestOverlapLoop: Docker holds on to pools that it does not like and asks again, then releases them.
func TestOverlapLoop(t *testing.T) {
	for _, row := range []struct {
		name, base string
		v6         bool
		dislikes   []string
		want       string // none: the loop ends with an error
	}{
		{"nothing disliked", "base=10.1.0.0/24,size=27", false, nil, "10.1.0.0/27"},
		{"the first ones", "base=10.1.0.0/24,size=27", false, []string{"10.1.0.0/26"}, "10.1.0.64/27"},
		{"a nameserver", "base=10.1.0.0/24,size=27", false, []string{"10.1.0.2/32"}, "10.1.0.32/27"},
		{"everything", "base=10.1.0.0/24,size=27", false, []string{"10.0.0.0/8"}, ""},
		{"IPv6", "base=fd01::/48,size=64", true, []string{"fd01::/62"}, "fd01:0:0:4::/64"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, row.base)
			liked := func(p string) bool {
				return !slices.ContainsFunc(row.dislikes, func(d string) bool {
					return netip.MustParsePrefix(d).Overlaps(netip.MustParsePrefix(p))
				})
			}
			var held []string
			got := ""
			for got == "" {
				r, err := b.requestPool("", "", row.v6)
				if err != nil {
					checkError(t, err, "address pool is free: 8 are in use")
					break
				}
				if slices.Contains(held, r.PoolID) || len(held) > 8 {
					t.Fatalf("%s after %v", r.PoolID, held)
				}
				if liked(r.Pool) {
					got = r.Pool
				} else {
					held = append(held, r.PoolID)
				}
			}
			for _, id := range held {
				checkError(t, b.releasePool(id), "")
			}
			if got != row.want {
				t.Errorf("chosen: %q, want %q", got, row.want)
			}
			if left := b.store.Snapshot().Pools; len(left) > 1 || len(left) == 0 && got != "" {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestMixedBasePools: bases of both families, given several times.
func TestMixedBasePools(t *testing.T) {
	b := newBench(t, "base=fd00:1::/48,size=64", "base=10.1.0.0/30,size=31", "base=fd00:2::/63,size=64", "base=10.1.0.0/30,size=31", "base=10.2.0.0/22,size=22")
	for _, want := range []string{"10.1.0.0/31", "10.1.0.2/31", "10.2.0.0/22"} {
		if got := b.must(poolOf(b.requestPool("", "", false))); got != want {
			t.Errorf("chosen: %s, want %s", got, want)
		}
		b.reopen()
	}
	_, err := b.requestPool("", "", false)
	checkError(t, err, "no IPv4 address pool is free: 3 are in use")
	b.occupy("fd00:1::/49", "fd00:1:0:8000::/49")
	for _, want := range []string{"fd00:2::/64", "fd00:2:0:1::/64"} {
		if got := b.must(poolOf(b.requestPool("", "", true))); got != want {
			t.Errorf("chosen: %s, want %s", got, want)
		}
	}
	_, err = b.requestPool("", "", true)
	checkError(t, err, "no IPv6 address pool is free: 2 are in use")
}

// TestReplay: all that Docker would ask again after its start, stale endpoints included, changes
// nothing, nor does its rollback when something is refused. Docker logs refusals of a replay
// and goes on.
func TestReplay(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		b := newBench(t)
		v4, v6 := b.pool("10.1.0.0/24", "10.1.0.128/25"), b.pool("fd01::/64", "")
		gw4, gw6 := b.must(b.gateway(v4, "10.1.0.1")), b.must(b.gateway(v6, ""))
		b.must(b.request(v4, "10.1.0.9")) // --aux-address
		b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, gw4, gw6)) })
		addr4, addr6 := b.must(b.request(v4, "")), b.must(b.request(v6, "fd01::7"))
		b.edit(func(tx *store.Tx) { tx.PutEndpoint(endpoint(networkID, endpointID, addr4, addr6)) })
		stale := b.must(b.request(v4, ""))
		if restarted {
			b.reopen()
		}
		before := b.store.Snapshot().Revision
		for range 2 {
			_, err := b.requestPool("10.1.0.0/24", "10.1.0.128/25", false)
			checkError(t, err, "of network 111111111111")
			_, err = b.requestPool("fd01::/64", "", true)
			checkError(t, err, "of network 111111111111")
			if got := b.must(b.gateway(v4, "10.1.0.1")); got != gw4 {
				t.Errorf("gateway %s, want %s", got, gw4)
			}
			if got := b.must(b.gateway(v6, "fd01::1")); got != gw6 {
				t.Errorf("gateway %s, want %s", got, gw6)
			}
			_, err = b.request(v4, "10.1.0.9")
			checkError(t, err, "is reserved by --aux-address")
			for _, a := range []struct{ pool, addr string }{{v4, addr4}, {v6, addr6}} {
				_, err = b.request(a.pool, netip.MustParsePrefix(a.addr).Addr().String())
				checkError(t, err, "is in use by endpoint aaaaaaaaaaaa")
			}
			if got := b.must(b.request(v4, netip.MustParsePrefix(stale).Addr().String())); got != stale {
				t.Errorf("stale address %s, want %s", got, stale)
			}
			for _, p := range []string{v4, v6} {
				checkError(t, b.releasePool(p), "")
			}
		}
		if after := b.store.Snapshot().Revision; after != before {
			t.Errorf("the replay has changed something: %v %v", b.leases(v4), b.leases(v6))
		}
	}
}

// TestRefusedCreation: nothing stays that keeps the next attempt from succeeding. Docker's rollback sends
// ReleasePool, except where it finds by itself, after the gateway, that an auxiliary address is
// outside (moby 20.10, ipamAllocateVersion: the error is not the one that the deferred function sees).
func TestRefusedCreation(t *testing.T) {
	for _, row := range []struct {
		name     string
		aux      string // leased before the failure
		released bool
	}{
		{"released", "", true},
		{"released, with an auxiliary address", "10.1.0.9", true},
		{"forgotten", "", false},
		{"forgotten, with an auxiliary address", "10.1.0.9", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			id := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, ""))
			if row.aux != "" {
				b.must(b.request(id, row.aux))
			}
			if row.released {
				checkError(t, b.releasePool(id), "")
				if s := b.store.Snapshot(); len(s.Pools) > 0 || b.leases(id) != nil {
					t.Errorf("left: %v %v", s.Pools, b.leases(id))
				}
			} else {
				b.pass(underWay)
			}
			id = b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, "10.1.0.9"))
			if diff := cmp.Diff([]string{"10.1.0.9"}, b.leases(id)); diff != "" {
				t.Errorf("addresses in use (-want +got):\n%s", diff)
			}
		})
	}
}

// TestSameSubnetTwice: of two creations at once one gets the subnet, and what the other sends does not
// take it away.
func TestSameSubnetTwice(t *testing.T) {
	for _, subnet := range []string{"10.1.0.0/24", "fd01::/64"} {
		b := newBench(t)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { _, errs[i] = b.requestPool(subnet, "", strings.Contains(subnet, ":")) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else {
				checkError(t, err, "of a network that is being created at this moment: choose another with --subnet, or try again in 5s")
			}
		}
		if won != 1 {
			t.Errorf("%d have %s", won, subnet)
		}
	}
}

// TestReleasePoolOfNetwork: a ReleasePool takes no pool from a network; DeleteNetwork does.
func TestReleasePoolOfNetwork(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/24", "")
	gateway := b.must(b.gateway(id, ""))
	b.pass(time.Minute) // the engine is stalled, and a second one gets the pool
	checkError(t, func() error { _, err := b.requestPool("10.1.0.0/24", "", false); return err }(), "")
	b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, gateway)) })
	for range 2 {
		checkError(t, b.release(id, "10.1.0.1"), "")
		checkError(t, b.releasePool(id), "")
		b.reopen()
	}
	if got := b.must(b.request(id, "")); got != "10.1.0.2/24" {
		t.Errorf("address %s", got)
	}
	// DeleteNetwork does not come: the subnet stays the network's, whoever asks for it.
	for _, want := range []string{"10.1.0.0/24", "10.1.0.0/16", "10.1.0.7/32"} {
		_, err := b.requestPool(want, "", false)
		checkError(t, err, "overlaps 10.1.0.0/24 of network 111111111111: choose another with --subnet, or remove that network")
	}
	b.removeNetwork(networkID)
	b.pool("10.1.0.0/24", "") // at once
	checkError(t, b.releasePool(id), "")
	if pools := b.store.Snapshot().Pools; len(pools) > 0 {
		t.Errorf("left: %v", pools)
	}
}

// TestForeignNetwork: a network of another driver is not in the store. Its containers' addresses are
// known by their leases alone.
func TestForeignNetwork(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/24", "")
	b.must(b.gateway(id, ""))
	b.pass(time.Second)
	b.must(b.request(id, ""))
	b.must(b.request(id, "10.1.0.7"))
	for _, a := range []string{"10.1.0.2", "10.1.0.7"} {
		_, err := b.request(id, a)
		checkError(t, err, "in use already: choose another")
	}
	// A release may have been lost while there was no daemon.
	b.reopen()
	for _, a := range []string{"10.1.0.2", "10.1.0.7"} {
		b.must(b.request(id, a))
		_, err := b.request(id, a)
		checkError(t, err, "in use already: choose another")
		checkError(t, b.release(id, a), "")
		b.must(b.request(id, a))
	}
	checkError(t, b.releasePool(id), "")
	b.pool("10.1.0.0/24", "")
}
