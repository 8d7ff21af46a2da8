package store

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// byValue compares addresses by what they say and everything else field by field.
var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "state.db"))
}

func reopen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// crashed returns what a process would find if the machine stopped now: the file as it
// is, without a Close.
func crashed(t testing.TB, s *Store) *Store {
	t.Helper()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return reopen(t, writeFile(t, b))
}

func writeFile(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func update(t testing.TB, s *Store, fn func(*Tx)) uint64 {
	t.Helper()
	rev, err := s.Update(context.Background(), func(tx *Tx) error { fn(tx); return nil })
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	return rev
}

func view(t testing.TB, s *Store, fn func(*Tx)) {
	t.Helper()
	if err := s.View(func(tx *Tx) error { fn(tx); return nil }); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func network(i int) state.Network {
	return state.Network{
		ID:     state.NetworkID(fmt.Sprintf("%064d", i)),
		Bridge: fmt.Sprintf("br-%d", i),
		V4:     state.Subnet{Prefix: pfx("10.1.0.0/24"), Gateway: ip("10.1.0.1")},
		V6:     state.Subnet{Prefix: pfx("fd00::/64"), Gateway: ip("fd00::1")},
		MTU:    1400,
	}
}

func endpoint(i, net int) state.Endpoint {
	return state.Endpoint{
		ID:      state.EndpointID(fmt.Sprintf("%064d", i)),
		Network: network(net).ID,
		Addr4:   pfx("10.1.0.2/24"),
		Addr6:   pfx("fd00::2/64"),
		MAC:     state.GenerateMAC(fmt.Sprint(i)),
		Sandbox: "/var/run/docker/netns/0123",
		Ports: []state.Port{
			{Proto: state.TCP, HostPort: 8080, ContainerPort: 80},
			{Proto: state.UDP, HostIP: ip("2001:db8::1"), HostPort: 53, ContainerPort: 53},
			{Proto: state.SCTP, HostPort: 3868, ContainerPort: 3868},
		},
		Closed: []state.Port{{Proto: state.TCP, HostIP: ip("0.0.0.0"), HostPort: 8081, ContainerPort: 81}},
	}
}

func pool(i int) state.Pool {
	return state.Pool{
		ID:     state.PoolID(fmt.Sprintf("pool %d", i)),
		Prefix: pfx("10.1.0.0/16"),
		Range:  pfx("10.1.4.0/24"),
		Next:   ip("10.1.4.9"),
	}
}

func lease(i int, addr string) state.Lease {
	return state.Lease{Pool: pool(i).ID, Addr: ip(addr)}
}

// fill puts some of everything.
func fill(tx *Tx) {
	for i := range 20 {
		tx.PutNetwork(network(i))
		tx.PutEndpoint(endpoint(i, i%3))
		tx.PutPool(pool(i))
		tx.PutLease(lease(i%4, fmt.Sprintf("10.1.4.%d", i)))
		tx.PutLease(lease(i%4, fmt.Sprintf("fd00::%x", i)))
		tx.Retire(fmt.Sprintf("br-old%02d", i))
	}
	tx.SetForwarding(state.Forwarding{V4: true, Boot: "b1"})
	tx.SetULA(pfx("fd12:3456:789a::/48"))
}

func sameState(t testing.TB, got, want *Store) {
	t.Helper()
	g, w := got.current.Load(), want.current.Load()
	if d := cmp.Diff(w, g, byValue, cmp.AllowUnexported(image{})); d != "" {
		t.Errorf("state differs (-want +got):\n%s", d)
	}
}
