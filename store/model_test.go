package store

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
)

// model is the store as one would write it without a disk.
type model struct {
	revision  uint64
	networks  map[state.NetworkID]state.Network
	endpoints map[state.EndpointID]state.Endpoint
	pools     map[state.PoolID]state.Pool
	leases    map[leaseKey]state.Lease
	retired   map[string]string
	host      host
}

func (m model) clone() model {
	m.networks, m.endpoints, m.pools = maps.Clone(m.networks), maps.Clone(m.endpoints), maps.Clone(m.pools)
	m.leases, m.retired = maps.Clone(m.leases), maps.Clone(m.retired)
	return m
}

func newModel() model {
	return model{
		networks:  map[state.NetworkID]state.Network{},
		endpoints: map[state.EndpointID]state.Endpoint{},
		pools:     map[state.PoolID]state.Pool{},
		leases:    map[leaseKey]state.Lease{},
		retired:   map[string]string{},
	}
}

func sorted[K comparable, V any](m map[K]V, order func(a, b V) int) []V {
	return slices.SortedFunc(maps.Values(m), order)
}

func (m model) snapshot() state.Snapshot {
	s := state.Snapshot{Revision: m.revision, Forwarding: m.host.forwarding}
	s.Networks = slices.Collect(maps.Values(m.networks))
	s.Endpoints = slices.Collect(maps.Values(m.endpoints))
	s.Pools = slices.Collect(maps.Values(m.pools))
	s.Retired = slices.Collect(maps.Keys(m.retired))
	s.Sort()
	return s
}

func (m model) leasesOf(p state.PoolID) []state.Lease {
	of := maps.Clone(m.leases)
	maps.DeleteFunc(of, func(k leaseKey, _ state.Lease) bool { return k.pool != p })
	return sorted(of, func(a, b state.Lease) int { return a.Addr.Compare(b.Addr) })
}

func (m model) endpointsOf(n state.NetworkID) []state.Endpoint {
	of := maps.Clone(m.endpoints)
	maps.DeleteFunc(of, func(_ state.EndpointID, e state.Endpoint) bool { return e.Network != n })
	return sorted(of, func(a, b state.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
}

// step draws one operation and does it to both.
func (m *model) step(t *rapid.T, tx *Tx) {
	i := rapid.IntRange(0, 6).Draw(t, "i")
	j := rapid.IntRange(0, 2).Draw(t, "j")
	if rapid.Bool().Draw(t, "addresses") {
		m.stepAddresses(t, tx, i, j)
		return
	}
	switch rapid.SampledFrom([]string{"put network", "delete network", "put endpoint", "delete endpoint", "retire", "unretire"}).Draw(t, "op") {
	case "put network":
		n := network(i)
		n.MTU = 1400 + j
		tx.PutNetwork(n)
		m.networks[n.ID] = n
	case "delete network":
		tx.DeleteNetwork(network(i).ID)
		delete(m.networks, network(i).ID)
	case "put endpoint":
		e := endpoint(i, j)
		e.Ports = slices.Clone(e.Ports[:j])
		tx.PutEndpoint(e)
		if j == 0 {
			e.Ports = nil
		}
		m.endpoints[e.ID] = e
	case "delete endpoint":
		tx.DeleteEndpoint(endpoint(i, j).ID)
		delete(m.endpoints, endpoint(i, j).ID)
	case "retire":
		tx.Retire(network(i).Bridge)
		m.retired[network(i).Bridge] = network(i).Bridge
	case "unretire":
		tx.Unretire(network(i).Bridge)
		delete(m.retired, network(i).Bridge)
	}
}

func (m *model) stepAddresses(t *rapid.T, tx *Tx, i, j int) {
	addr := rapid.SampledFrom([]netip.Addr{ip("10.0.0.9"), ip("10.0.0.10"), ip("fd00::9"), ip("fd00::10")}).Draw(t, "addr")
	p := pool(i % 3)
	switch rapid.SampledFrom([]string{"put pool", "delete pool", "put lease", "put lease", "delete lease", "host"}).Draw(t, "op") {
	case "put pool":
		p.Next = addr
		tx.PutPool(p)
		m.pools[p.ID] = p
	case "delete pool":
		tx.DeletePool(p.ID)
		delete(m.pools, p.ID)
		maps.DeleteFunc(m.leases, func(k leaseKey, _ state.Lease) bool { return k.pool == p.ID })
	case "put lease":
		l := state.Lease{Pool: p.ID, Addr: addr, Gateway: j == 0}
		tx.PutLease(l)
		m.leases[leaseKey{p.ID, addr}] = l
	case "delete lease":
		tx.DeleteLease(p.ID, addr)
		delete(m.leases, leaseKey{p.ID, addr})
	case "host":
		m.host = host{state.Forwarding{V4: j == 0, V6: j == 1}, netip.PrefixFrom(addr, 24)}
		tx.SetForwarding(m.host.forwarding)
		tx.SetULA(m.host.ula)
	}
}

func (m model) equals(o model) bool {
	m.revision = o.revision
	opt := gocmp.AllowUnexported(model{}, host{}, leaseKey{})
	return gocmp.Equal(m, o, opt, byValue)
}

func (m model) check(t *rapid.T, tx *Tx) {
	diff := func(what string, want, got any) {
		if d := gocmp.Diff(want, got, byValue); d != "" {
			t.Fatalf("%s (-want +got):\n%s", what, d)
		}
	}
	want := m.snapshot()
	diff("networks", want.Networks, tx.Networks())
	diff("endpoints", want.Endpoints, tx.Endpoints())
	diff("pools", want.Pools, tx.Pools())
	diff("retired", want.Retired, tx.Retired())
	diff("forwarding", want.Forwarding, tx.Forwarding())
	for i := range 3 {
		id := pool(i).ID
		diff("leases", m.leasesOf(id), tx.Leases(id))
		diff("lease count", len(m.leasesOf(id)), tx.LeaseCount(id))
		diff("endpoints of network", m.endpointsOf(network(i).ID), tx.EndpointsOf(network(i).ID))
	}
	for i := range 7 {
		n, okN := tx.Network(network(i).ID)
		e, okE := tx.Endpoint(endpoint(i, 0).ID)
		diff("network", m.networks[network(i).ID], n)
		diff("endpoint", m.endpoints[endpoint(i, 0).ID], e)
		diff("found", okN == (n.ID != "") && okE == (e.ID != ""), true)
	}
}

// One run of the model: updates that succeed, fail in the function, fail in the commit
// (with and without a trace on disk), views, and reopenings with and without a Close.
func TestStoreEqualsModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "state.db")
		_ = os.Remove(path)
		r := &modelRun{path: path, model: newModel()}
		r.open(t)
		defer func() { _ = r.store.Close() }()
		for range rapid.IntRange(1, 25).Draw(t, "calls") {
			r.call(t)
			r.checkSnapshot(t)
		}
	})
}

type modelRun struct {
	path  string
	store *Store
	model model
	// trace: the last commit failed after it was written, so that only the next one
	// makes the file equal to the memory again.
	trace bool
}

func (r *modelRun) open(t *rapid.T) {
	s, err := Open(r.path)
	if err != nil {
		t.Fatal(err)
	}
	s.db.NoSync = true
	r.store = s
}

func (r *modelRun) call(t *rapid.T) {
	what := rapid.SampledFrom([]string{"update", "update", "update", "fn fails", "commit fails", "commit leaves a trace", "reopen"}).Draw(t, "call")
	switch {
	case what != "reopen":
		r.update(t, what)
	case !r.trace:
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		r.open(t)
	}
}

func (r *modelRun) update(t *rapid.T, what string) {
	boom := errors.New("boom")
	before, after := r.model, r.model.clone()
	switch what {
	case "commit fails":
		r.store.commit = func(func(*bolt.Tx) error) error { return boom }
	case "commit leaves a trace":
		r.store.commit = func(fn func(*bolt.Tx) error) error { return errors.Join(r.store.db.Update(fn), boom) }
	}
	rev, err := r.store.Update(context.Background(), func(tx *Tx) error {
		for range rapid.IntRange(0, 5).Draw(t, "steps") {
			after.step(t, tx)
		}
		after.check(t, tx)
		if what == "fn fails" {
			return boom
		}
		return nil
	})
	r.store.commit = r.store.db.Update
	changed := !after.equals(before)
	if wantErr := what == "fn fails" || what != "update" && changed; (err != nil) != wantErr {
		t.Fatalf("%s: error %v", what, err)
	}
	if err == nil && changed {
		after.revision++
		r.model, r.trace = after, false
	}
	r.trace = r.trace || what == "commit leaves a trace" && err != nil
	if rev != r.model.revision {
		t.Fatalf("%s: revision %d, want %d", what, rev, r.model.revision)
	}
}

func (r *modelRun) checkSnapshot(t *rapid.T) {
	if d := gocmp.Diff(r.model.snapshot(), r.store.Snapshot(), byValue); d != "" {
		t.Fatalf("snapshot (-want +got):\n%s", d)
	}
	if err := r.store.View(func(tx *Tx) error { r.model.check(t, tx); return nil }); err != nil {
		t.Fatal(err)
	}
}
