package ipam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// TestSweep: looks are 20 s apart. Step "." looks and frees nothing, "!a" looks and frees a, "+" asks
// for the next address, "+a" for that one, "-a" releases, "e" makes the endpoint of the last
// address given, "x" ends it without a release, "reopen" restarts.
func TestSweep(t *testing.T) {
	for _, row := range []struct{ name, steps string }{
		{"nobody has it", "+ . . . !10.1.0.2 . ."},
		{"named, nobody has it", "+10.1.0.50 . . . !10.1.0.50"},
		{"just in time", "+ . . . e . . . . ."},
		{"in use", "+ e . . . . . ."},
		{"released", "+ . . . -10.1.0.2 . . ."},
		{"the endpoint is lost", "+ e . . . x . . . !10.1.0.2 ."},
		{"asked for again meanwhile", "+10.1.0.2 . . . +10.1.0.2 . . . !10.1.0.2"},
		{"released and given out again", "+10.1.0.2 . . -10.1.0.2 +10.1.0.2 . . . !10.1.0.2"},
		{"in use meanwhile", "+ . . e . x . . . !10.1.0.2"},
		{"the daemon restarts", "+ . . reopen . . . !10.1.0.2"},
		{"a second beside one in use", "+ e + . . . !10.1.0.3 ."},
		{"a second later", "+ . . + . !10.1.0.2 . !10.1.0.3"},
		{"not given out next", "+ . . . !10.1.0.2 + e"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			id := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, ""))
			b.must(b.request(id, "10.1.0.9")) // --aux-address
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/24")) })
			given, freed := "", ""
			for step := range strings.FieldsSeq(row.steps) {
				switch {
				case step == "." || step[0] == '!':
					if diff := cmp.Diff(strings.TrimLeft(step, ".!"), strings.Join(b.sweep(), " ")); diff != "" {
						t.Fatalf("freed (-want +got):\n%s", diff)
					}
					freed = strings.TrimLeft(step, ".!")
					b.pass(20 * time.Second)
				case step[0] == '+':
					given = b.must(b.request(id, step[1:]))
					if freed != "" && strings.HasPrefix(given, freed+"/") {
						t.Errorf("%s was given out right after it was freed", given)
					}
				case step[0] == '-':
					checkError(t, b.release(id, step[1:]), "")
				case step == "e":
					b.edit(func(tx *store.Tx) { tx.PutEndpoint(endpoint(networkID, endpointID, given)) })
				case step == "x":
					b.edit(func(tx *store.Tx) { tx.DeleteEndpoint(endpointID) })
				case step == "reopen":
					b.reopen()
				}
			}
			for _, kept := range []string{"10.1.0.1", "10.1.0.9"} {
				if !strings.Contains(strings.Join(b.leases(id), " ")+" ", kept+" ") {
					t.Errorf("%s is gone: %v", kept, b.leases(id))
				}
			}
		})
	}
}

// TestSweepForgottenFamily is what the sweep is for: there is no IPv6 address left, so that Docker
// forgets the IPv4 address that it got for the container, again and again.
func TestSweepForgottenFamily(t *testing.T) {
	b := newBench(t)
	v4, v6 := b.pool("10.1.0.0/29", ""), b.pool("fd01::/127", "")
	b.must(b.gateway(v4, ""))
	b.must(b.gateway(v6, ""))
	addr4, addr6 := b.must(b.request(v4, "")), b.must(b.request(v6, ""))
	b.edit(func(tx *store.Tx) {
		tx.PutNetwork(network(networkID, "10.1.0.1/29", "fd01::/127"))
		tx.PutEndpoint(endpoint(networkID, endpointID, addr4, addr6))
	})
	for range 3 {
		for range 4 {
			b.must(b.request(v4, ""))
			_, err := b.request(v6, "")
			checkError(t, err, "network 111111111111 has no free address: all 2 of fd01::/127 are in use; remove containers")
		}
		_, err := b.request(v4, "")
		checkError(t, err, "network 111111111111 has no free address: all 6 of 10.1.0.0/29 are in use")
		b.sweep()
		b.pass(59 * time.Second)
		if freed := b.sweep(); freed != nil {
			t.Fatalf("%v were freed too early", freed)
		}
		b.pass(time.Second)
		if freed := b.sweep(); len(freed) != 4 {
			t.Fatalf("%v were freed, want 4", freed)
		}
	}
	if got := b.leases(v6); len(got) != 2 {
		t.Errorf("IPv6 addresses in use: %v", got)
	}
}

// TestSweepLeavesOthersAlone: without a network in the store nothing says who has an address.
func TestSweepLeavesOthersAlone(t *testing.T) {
	b := newBench(t)
	theirs := b.pool("10.1.0.0/24", "")
	b.must(b.gateway(theirs, ""))
	b.must(b.request(theirs, ""))
	b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.2.0.1/24", "fd01::1/64")) })
	for range 10 {
		if freed := b.sweep(); freed != nil {
			t.Fatalf("%v were freed", freed)
		}
		b.pass(time.Minute)
	}
}

// TestSweepStrayGateway: a gateway that the network does not have is nobody's.
func TestSweepStrayGateway(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/24", "")
	b.must(b.gateway(id, ""))
	b.must(b.gateway(id, "10.1.0.254"))
	b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/24")) })
	b.sweep()
	b.pass(time.Minute)
	if diff := cmp.Diff([]string{"10.1.0.254"}, b.sweep()); diff != "" {
		t.Errorf("freed (-want +got):\n%s", diff)
	}
}

// TestSweepFails: what cannot be stored is reported, and tried again.
func TestSweepFails(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/24", "")
	b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/24")) })
	b.must(b.request(id, "10.1.0.7"))
	b.sweep()
	b.pass(time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if freed, err := b.Sweep(ctx, b.clock); !errors.Is(err, context.Canceled) || freed != nil {
		t.Errorf("freed %v, error %v", freed, err)
	}
	if diff := cmp.Diff([]string{"10.1.0.7"}, b.sweep()); diff != "" {
		t.Errorf("freed (-want +got):\n%s", diff)
	}
}

// TestMemoryIsBounded: what is gone from the store is forgotten.
func TestMemoryIsBounded(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		id := b.pool(fmt.Sprintf("10.1.%d.0/24", i), "")
		b.must(b.gateway(id, ""))
		b.must(b.request(id, ""))
		checkError(t, b.releasePool(id), "")
	}
	b.sweep()
	if m := b.memory; len(m.begun)+len(m.given)+len(m.orphans) > 0 {
		t.Errorf("remembered: %+v", m)
	}
}

// BenchmarkSweep is over a thousand networks with an endpoint each.
func BenchmarkSweep(b *testing.B) {
	bench := newBench(b)
	bench.edit(func(tx *store.Tx) {
		for i := range 1000 {
			id := state.NetworkID(numbered(i))
			n := network(id, fmt.Sprintf("10.%d.%d.1/24", i/256, i%256))
			tx.PutNetwork(n)
			pool := newPool(n.V4.Prefix, n.V4.Prefix)
			tx.PutPool(pool)
			tx.PutLease(state.Lease{Pool: pool.ID, Addr: n.V4.Gateway, Gateway: true})
			tx.PutLease(state.Lease{Pool: pool.ID, Addr: n.V4.Gateway.Next()})
			tx.PutEndpoint(endpoint(id, state.EndpointID(numbered(i)), fmt.Sprintf("10.%d.%d.2/24", i/256, i%256)))
		}
	})
	for b.Loop() {
		bench.sweep()
	}
}
