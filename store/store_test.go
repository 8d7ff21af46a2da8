package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestEmptyStore(t *testing.T) {
	s := newStore(t)
	if d := cmp.Diff(state.Snapshot{}, s.Snapshot()); d != "" {
		t.Errorf("a new store is not empty:\n%s", d)
	}
	view(t, s, func(tx *Tx) {
		if _, ok := tx.ULA(); ok {
			t.Error("a new store has a unique local prefix")
		}
		if n := tx.LeaseCount("none"); n != 0 {
			t.Errorf("LeaseCount of an unknown pool = %d", n)
		}
	})
}

// Each row makes one change; what must hold for every kind of change is checked once.
var changes = []struct {
	name string
	do   func(*Tx)
}{
	{"put network", func(tx *Tx) { n := network(1); n.Internal = true; tx.PutNetwork(n) }},
	{"put network of one family", func(tx *Tx) { n := network(50); n.V4 = state.Subnet{}; tx.PutNetwork(n) }},
	{"delete network", func(tx *Tx) { tx.DeleteNetwork(network(1).ID) }},
	{"put endpoint", func(tx *Tx) { tx.PutEndpoint(endpoint(50, 1)) }},
	{"put endpoint without ports", func(tx *Tx) { e := endpoint(1, 1); e.Ports = []state.Port{}; tx.PutEndpoint(e) }},
	{"put endpoint of one family", func(tx *Tx) { e := endpoint(1, 1); e.Addr6 = pfx("fd00::7/64"); e.Addr4 = e.Addr6; tx.PutEndpoint(e) }},
	{"change one port", func(tx *Tx) { e := endpoint(1, 1); e.Ports[1].HostPort++; tx.PutEndpoint(e) }},
	{"delete endpoint", func(tx *Tx) { tx.DeleteEndpoint(endpoint(1, 1).ID) }},
	{"put pool", func(tx *Tx) { p := pool(1); p.Next = ip("10.1.4.10"); tx.PutPool(p) }},
	{"put IPv6 pool", func(tx *Tx) { tx.PutPool(state.Pool{ID: "six", Prefix: pfx("fd00::/64"), Range: pfx("fd00::/64")}) }},
	{"delete pool", func(tx *Tx) { tx.DeletePool(pool(1).ID) }},
	{"put IPv4 lease", func(tx *Tx) { tx.PutLease(lease(1, "10.1.4.200")) }},
	{"put IPv6 lease", func(tx *Tx) { tx.PutLease(lease(1, "fd00::200")) }},
	{"make a lease the gateway", func(tx *Tx) { l := lease(1, "10.1.4.1"); l.Gateway = true; tx.PutLease(l) }},
	{"delete IPv4 lease", func(tx *Tx) { tx.DeleteLease(pool(1).ID, ip("10.1.4.1")) }},
	{"delete IPv6 lease", func(tx *Tx) { tx.DeleteLease(pool(1).ID, ip("fd00::1")) }},
	{"retire", func(tx *Tx) { tx.Retire("br-new") }},
	{"unretire", func(tx *Tx) { tx.Unretire("br-old01") }},
	{"forwarding", func(tx *Tx) { tx.SetForwarding(state.Forwarding{V6: true, Boot: "b2"}) }},
	{"unique local prefix", func(tx *Tx) { tx.SetULA(pfx("fdff::/48")) }},
	{"several kinds", func(tx *Tx) {
		tx.DeleteNetwork(network(3).ID)
		tx.PutEndpoint(endpoint(60, 4))
		tx.DeletePool(pool(2).ID)
		tx.Retire("br-3")
	}},
}

func TestEveryChangeIsDurable(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			first := update(t, s, fill)
			before := s.Snapshot()
			if rev := update(t, s, c.do); rev != first+1 || s.Snapshot().Revision != rev {
				t.Errorf("revision %d after %d, snapshot %d", rev, first, s.Snapshot().Revision)
			}
			if before.Revision != first {
				t.Error("the earlier snapshot changed")
			}
			sameState(t, crashed(t, s), s)
		})
	}
}

func TestRepeatedChangeIsNoCommit(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			update(t, s, fill)
			rev := update(t, s, c.do)
			commits := countCommits(s)
			if again := update(t, s, c.do); again != rev || *commits != 0 {
				t.Errorf("the same again: revision %d after %d, %d commits", again, rev, *commits)
			}
		})
	}
}

func TestUndoneChangeIsNoCommit(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	want := s.current.Load()
	commits := countCommits(s)
	update(t, s, func(tx *Tx) {
		for _, c := range changes {
			c.do(tx)
		}
		for _, id := range []int{50, 60} {
			tx.DeleteNetwork(network(id).ID)
			tx.DeleteEndpoint(endpoint(id, 1).ID)
		}
		tx.DeletePool("six")
		tx.DeletePool(pool(1).ID)
		tx.Unretire("br-new")
		tx.Unretire("br-3")
		fill(tx)
	})
	if *commits != 0 || s.current.Load() != want {
		t.Errorf("%d commits", *commits)
	}
}

func TestFailedUpdateChangesNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			first := update(t, s, fill)
			want := s.current.Load()
			rev, err := s.Update(context.Background(), func(tx *Tx) error { c.do(tx); return boom })
			if !errors.Is(err, boom) || rev != first || s.current.Load() != want {
				t.Errorf("revision %d, error %v", rev, err)
			}
			sameState(t, crashed(t, s), s)
		})
	}
}

func TestPanicInUpdateFreesTheStore(t *testing.T) {
	s := newStore(t)
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Update(context.Background(), func(tx *Tx) error { fill(tx); panic("boom") })
	}()
	if s.Snapshot().Revision != 0 {
		t.Error("a change was kept")
	}
	update(t, s, fill)
}

func TestViewRefusesWrites(t *testing.T) {
	mine := errors.New("mine")
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			update(t, s, fill)
			want := s.current.Load()
			err := s.View(func(tx *Tx) error { c.do(tx); return mine })
			if !errors.Is(err, errReadOnly) || !errors.Is(err, mine) {
				t.Errorf("error %v", err)
			}
			if s.current.Load() != want {
				t.Error("the state changed")
			}
		})
	}
}

func TestViewRefusesWritesWithoutEffect(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	if err := s.View(func(tx *Tx) error { tx.PutNetwork(network(1)); return nil }); !errors.Is(err, errReadOnly) {
		t.Errorf("error %v", err)
	}
}

func TestViewReturnsTheError(t *testing.T) {
	mine := errors.New("mine")
	if err := newStore(t).View(func(*Tx) error { return mine }); err != mine {
		t.Errorf("error %v", err)
	}
}

func TestUpdateHonoursContext(t *testing.T) {
	s := newStore(t)
	t.Run("ended before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := s.Update(ctx, func(*Tx) error { t.Error("fn was called"); return nil })
		wantCanceled(t, err)
	})
	t.Run("ends inside", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		_, err := s.Update(ctx, func(tx *Tx) error { fill(tx); cancel(); return nil })
		wantCanceled(t, err)
	})
	t.Run("ends while waiting", func(t *testing.T) {
		_, err := s.Update(context.Background(), func(*Tx) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, err := s.Update(ctx, func(*Tx) error { t.Error("fn was called"); return nil })
			return err
		})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for another change") {
			t.Errorf("error %v", err)
		}
	})
	if s.Snapshot().Revision != 0 {
		t.Error("something was stored")
	}
}

func wantCanceled(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestClose(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Update(context.Background(), func(tx *Tx) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("Update after Close: %v", err)
	}
	if s.Snapshot().Revision != 1 {
		t.Error("the snapshot is gone")
	}
	sameState(t, reopen(t, s.path), s)
}

func TestConcurrentUpdates(t *testing.T) {
	const workers, each = 8, 25
	s := newStore(t)
	s.db.NoSync = true
	var wg sync.WaitGroup
	revisions := make([][]uint64, workers)
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				rev, err := s.Update(context.Background(), func(tx *Tx) error {
					e, _ := tx.Endpoint(endpoint(0, 0).ID)
					e.ID = endpoint(0, 0).ID
					e.Ports = append(e.Ports, state.Port{Proto: state.TCP, HostPort: uint16(len(e.Ports))})
					tx.PutEndpoint(e)
					tx.PutLease(lease(w, fmt.Sprintf("fd00::%x", i)))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				revisions[w] = append(revisions[w], rev)
			}
		})
		wg.Go(func() { watch(t, s, workers*each) })
	}
	wg.Wait()
	all := slices.Sorted(slices.Values(slices.Concat(revisions...)))
	for i, rev := range all {
		if rev != uint64(i+1) {
			t.Fatalf("revision %d was given %d th", rev, i+1)
		}
	}
	if n := len(s.Snapshot().Endpoints[0].Ports); n != workers*each {
		t.Errorf("%d ports: updates were lost", n)
	}
}

// watch reads snapshots until the last revision and fails if one is inconsistent.
func watch(t *testing.T, s *Store, last uint64) {
	for seen := uint64(0); seen < last; {
		snap := s.Snapshot()
		if snap.Revision < seen {
			t.Errorf("revision %d after %d", snap.Revision, seen)
			return
		}
		seen = snap.Revision
		if seen > 0 && uint64(len(snap.Endpoints[0].Ports)) != seen {
			t.Errorf("%d ports at revision %d", len(snap.Endpoints[0].Ports), seen)
			return
		}
		view(t, s, func(tx *Tx) { tx.LeaseCount(pool(0).ID) })
		time.Sleep(100 * time.Microsecond) // leaves the processor to the writers
	}
}

func BenchmarkUpdateAmongTenThousandEndpoints(b *testing.B) {
	s := newStore(b)
	s.db.NoSync = true
	update(b, s, func(tx *Tx) {
		for i := range 10_000 {
			tx.PutEndpoint(endpoint(i, i%50))
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		update(b, s, func(tx *Tx) {
			e, _ := tx.Endpoint(endpoint(5000, 0).ID)
			e.Ports[0].HostPort++
			tx.PutEndpoint(e)
		})
	}
}

// TestUpdatesShareACommit: those that wait are written together, each with a revision of its own, and one that fails keeps
// the others from nothing.
func TestUpdatesShareACommit(t *testing.T) {
	s := newStore(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	works := s.commit
	commits := 0
	s.commit = func(fn func(*bolt.Tx) error) error {
		commits++
		if commits == 1 {
			close(begun)
			<-goOn
		}
		return works(fn)
	}
	var calls sync.WaitGroup
	revisions := make(chan uint64, 12)
	do := func(fn func(*Tx) error) {
		calls.Go(func() {
			rev, err := s.Update(context.Background(), fn)
			if err == nil {
				revisions <- rev
			}
		})
	}
	do(func(tx *Tx) error { tx.Retire("first"); return nil })
	<-begun
	for i := range 10 {
		do(func(tx *Tx) error {
			tx.Retire(fmt.Sprint("br-", i))
			if i == 5 {
				return errors.New("no")
			}
			return nil
		})
	}
	for waiting := 0; waiting < 10; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	close(goOn)
	calls.Wait()
	close(revisions)
	seen := map[uint64]bool{}
	for rev := range revisions {
		seen[rev] = true
	}
	if commits != 2 || len(seen) != 10 || s.Snapshot().Revision != 10 || len(s.Snapshot().Retired) != 10 {
		t.Errorf("%d commits, %d revisions, snapshot %+v", commits, len(seen), s.Snapshot())
	}
	sameState(t, crashed(t, s), s)
}

// TestSharedCommitFails: nobody's change is there, and everybody is told.
func TestSharedCommitFails(t *testing.T) {
	s := newStore(t)
	for _, c := range []*call{
		{fn: func(tx *Tx) error { tx.Retire("one"); return nil }},
		{fn: func(tx *Tx) error { tx.Retire("two"); return nil }},
		{fn: func(tx *Tx) error { tx.Retire("one"); return nil }}, // there already, as it seems
	} {
		c.ctx, c.done = t.Context(), make(chan struct{})
		s.enqueue(c)
	}
	works := s.commit
	s.commit = func(func(*bolt.Tx) error) error { panic("boom") }
	calls := slices.Clone(s.waiting)
	s.group()
	for i, c := range calls {
		<-c.done
		if c.err == nil || !strings.Contains(c.err.Error(), "boom") || c.revision != 0 {
			t.Errorf("call %d: revision %d, error %v", i, c.revision, c.err)
		}
	}
	s.commit = works
	update(t, s, func(tx *Tx) { tx.Retire("after") })
	if got := s.Snapshot().Retired; !slices.Equal(got, []string{"after"}) {
		t.Errorf("retired %q", got)
	}
	sameState(t, crashed(t, s), s)
}

// TestReplacedWhileOpen: what is written to a file that nobody will find again is refused, and what is there stays.
func TestReplacedWhileOpen(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"deleted": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.WriteFile(path, []byte("x"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			update(t, s, fill)
			if err := s.Broken(); err != nil {
				t.Fatal(err)
			}
			if err := lose(s.path); err != nil {
				t.Fatal(err)
			}
			before := s.Snapshot().Revision
			_, err := s.Update(context.Background(), func(tx *Tx) error { tx.Retire("br-more"); return nil })
			if err == nil || !strings.Contains(err.Error(), "deleted or replaced") || s.Snapshot().Revision != before {
				t.Errorf("error %v, revision %d after %d", err, s.Snapshot().Revision, before)
			}
			if err := s.Broken(); err == nil {
				t.Error("nothing is told of it")
			}
		})
	}
}
