package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// fakeHost occupies what it is told to.
type fakeHost struct {
	occupied []netip.Prefix
	err      error
}

func (h *fakeHost) OccupiedPrefixes(context.Context, bool) ([]netip.Prefix, error) {
	return h.occupied, h.err
}

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

// bench is a driver on a store in a directory of its own.
type bench struct {
	*Driver
	t     tb
	store *store.Store
	host  *fakeHost
	path  string
	clock time.Time
}

func newBench(t testing.TB, bases ...string) *bench {
	t.Helper()
	b := &bench{t: t, host: &fakeHost{}, path: filepath.Join(t.TempDir(), "state.db"), clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	b.open(bases...)
	t.Cleanup(func() { b.store.Close() })
	return b
}

func (b *bench) open(bases ...string) {
	b.t.Helper()
	s, err := store.Open(b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	var pools []BasePool
	for _, base := range bases {
		p, err := ParseBasePool(base)
		if err != nil {
			b.t.Fatal(err)
		}
		pools = append(pools, p)
	}
	b.store, b.Driver = s, New(s, b.host, pools)
	b.now = func() time.Time { return b.clock }
}

// pass lets time go by.
func (b *bench) pass(d time.Duration) { b.clock = b.clock.Add(d) }

// sweep returns the addresses that were freed.
func (b *bench) sweep() []string {
	b.t.Helper()
	freed, err := b.Sweep(context.Background(), b.clock)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, l := range freed {
		out = append(out, l.Addr.String())
	}
	return out
}

// removeNetwork does what DeleteNetwork does in the store.
func (b *bench) removeNetwork(id state.NetworkID) {
	b.t.Helper()
	b.edit(func(tx *store.Tx) {
		n, _ := tx.Network(id)
		for _, p := range tx.Pools() {
			if p.Prefix == n.V4.Prefix || p.Prefix == n.V6.Prefix {
				tx.DeletePool(p.ID)
			}
		}
		for _, e := range tx.EndpointsOf(id) {
			tx.DeleteEndpoint(e.ID)
		}
		tx.DeleteNetwork(id)
	})
}

// reopen is what a restart of the daemon does.
func (b *bench) reopen() {
	b.t.Helper()
	if err := b.store.Close(); err != nil {
		b.t.Fatal(err)
	}
	bases := b.bases
	b.open()
	b.bases = bases
}

func (b *bench) occupy(prefixes ...string) {
	for _, p := range prefixes {
		b.host.occupied = append(b.host.occupied, netip.MustParsePrefix(p))
	}
}

// edit changes the store as the network driver would.
func (b *bench) edit(fn func(tx *store.Tx)) {
	b.t.Helper()
	_, err := b.store.Update(context.Background(), func(tx *store.Tx) error {
		fn(tx)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) requestPool(pool, sub string, v6 bool) (*api.RequestPoolResponse, error) {
	return b.RequestPool(context.Background(), &api.RequestPoolRequest{AddressSpace: localSpace, Pool: pool, SubPool: sub, V6: v6})
}

// pool requests a subnet that must be given; its family is that of the subnet.
func (b *bench) pool(subnet, ipRange string) string {
	b.t.Helper()
	r, err := b.requestPool(subnet, ipRange, strings.Contains(subnet, ":"))
	if err != nil {
		b.t.Fatal(err)
	}
	return r.PoolID
}

func (b *bench) request(pool, addr string) (string, error) {
	r, err := b.RequestAddress(context.Background(), &api.RequestAddressRequest{PoolID: pool, Address: addr})
	if err != nil {
		return "", err
	}
	return r.Address, nil
}

func (b *bench) gateway(pool, addr string) (string, error) {
	r, err := b.RequestAddress(context.Background(), &api.RequestAddressRequest{
		PoolID: pool, Address: addr, Options: map[string]string{typeOption: gatewayType},
	})
	if err != nil {
		return "", err
	}
	return r.Address, nil
}

func (b *bench) release(pool, addr string) error {
	return b.ReleaseAddress(context.Background(), &api.ReleaseAddressRequest{PoolID: pool, Address: addr})
}

func (b *bench) releasePool(pool string) error {
	return b.ReleasePool(context.Background(), &api.ReleasePoolRequest{PoolID: pool})
}

// must is for answers that are the test's preparation, or plainly expected.
func (b *bench) must(addr string, err error) string {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	return addr
}

func (b *bench) leases(pool string) []string {
	var out []string
	b.store.View(func(tx *store.Tx) error {
		for _, l := range tx.Leases(state.PoolID(pool)) {
			out = append(out, l.Addr.String())
		}
		return nil
	})
	return out
}

const (
	networkID  = state.NetworkID("1111111111112222222222223333333333334444444444445555555555556666")
	endpointID = state.EndpointID("aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff")
)

// network is one whose subnets have the gateways given as 10.1.0.1/24.
func network(id state.NetworkID, gateways ...string) state.Network {
	n := state.Network{ID: id, Bridge: state.DefaultBridgeName(id)}
	for _, g := range gateways {
		p := netip.MustParsePrefix(g)
		s := state.Subnet{Prefix: p.Masked(), Gateway: p.Addr()}
		if p.Addr().Is6() {
			n.V6 = s
		} else {
			n.V4 = s
		}
	}
	return n
}

// endpoint is one with the addresses given as 10.1.0.2/24.
func endpoint(network state.NetworkID, id state.EndpointID, addrs ...string) state.Endpoint {
	e := state.Endpoint{ID: id, Network: network, MAC: state.GenerateMAC(string(id))}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		if p.Addr().Is6() {
			e.Addr6 = p
		} else {
			e.Addr4 = p
		}
	}
	return e
}

// checkError compares an error with a part of its text; no part means no error.
func checkError(t tb, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("error %v, want none", err)
	case want != "" && err == nil:
		t.Fatalf("no error, want one with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Fatalf("error %q does not say %q", err, want)
	}
	if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 400) {
		t.Errorf("error is not one sentence: %s", err)
	}
}

// numbered makes distinct ids of Docker's form.
func numbered(i int) string { return fmt.Sprintf("%064x", i+1) }
