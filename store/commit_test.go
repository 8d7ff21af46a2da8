package store

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/state"
)

// countCommits counts the commits from now on.
func countCommits(s *Store) *int {
	n := new(int)
	commit := s.commit
	s.commit = func(fn func(*bolt.Tx) error) error {
		*n++
		return commit(fn)
	}
	return n
}

// failures are the ways in which a commit can fail, seen from outside.
var failures = []struct {
	name   string
	commit func(*Store) func(func(*bolt.Tx) error) error
}{
	{"nothing is written", func(*Store) func(func(*bolt.Tx) error) error {
		return func(func(*bolt.Tx) error) error { return syscall.ENOSPC }
	}},
	{"rolled back", func(s *Store) func(func(*bolt.Tx) error) error {
		return func(fn func(*bolt.Tx) error) error {
			return s.db.Update(func(tx *bolt.Tx) error { return errors.Join(fn(tx), syscall.ENOSPC) })
		}
	}},
	{"written, but the last sync fails", func(s *Store) func(func(*bolt.Tx) error) error {
		return func(fn func(*bolt.Tx) error) error { return errors.Join(s.db.Update(fn), syscall.ENOSPC) }
	}},
}

func TestFailedCommitChangesNothing(t *testing.T) {
	for _, f := range failures {
		for _, c := range changes {
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				s := newStore(t)
				s.db.NoSync = true
				update(t, s, fill)
				want := s.current.Load()
				works := s.commit
				s.commit = f.commit(s)
				rev, err := s.Update(context.Background(), func(tx *Tx) error { c.do(tx); return nil })
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.path) {
					t.Errorf("error %v", err)
				}
				if rev != want.snapshot.Revision || s.current.Load() != want {
					t.Errorf("memory changed, revision %d", rev)
				}
				if err := s.Unwritable(context.Background()); !errors.Is(err, syscall.ENOSPC) || s.current.Load() != want {
					t.Errorf("while it cannot be written: %v", err)
				}
				s.commit = works
				if err := s.Unwritable(context.Background()); err != nil {
					t.Errorf("when it can be again: %v", err)
				}
				sameState(t, crashed(t, s), s)
				commits := countCommits(s)
				if err := s.Unwritable(context.Background()); err != nil || *commits != 0 {
					t.Errorf("without a reason it is tried %d times: %v", *commits, err)
				}
				// Of the failed change nothing may come back with the next one.
				update(t, s, func(tx *Tx) { tx.Retire("br-after") })
				sameState(t, crashed(t, s), s)
				update(t, s, func(tx *Tx) { tx.Unretire("br-after") })
				sameState(t, crashed(t, s), s)
			})
		}
	}
}

func TestPanicInCommit(t *testing.T) {
	s := newStore(t)
	works := s.commit
	s.commit = func(fn func(*bolt.Tx) error) error {
		if err := s.db.Update(fn); err != nil {
			return err
		}
		panic("boom")
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Update(context.Background(), func(tx *Tx) error { fill(tx); return nil })
	}()
	s.commit = works
	update(t, s, func(tx *Tx) { tx.Retire("br-after") })
	sameState(t, crashed(t, s), s)
}

func TestOnlyChangedRecordsAreWritten(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	view(t, s, func(*Tx) {})
	tx := newTx(s.current.Load())
	fill(tx) // equal values
	tx.PutNetwork(network(70))
	tx.DeleteEndpoint(endpoint(3, 0).ID)
	records, err := tx.records()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		if r.bucket != metaBucket {
			got = append(got, r.bucket+" "+strings.TrimLeft(string(r.key), "0"))
		}
	}
	if text := strings.Join(got, ", "); text != "networks 70, endpoints 3" {
		t.Errorf("written: %s", text)
	}
}

// A value that could not be read back must not get into the file.
func TestUnstorableValues(t *testing.T) {
	tests := []struct {
		name string
		do   func(*Tx)
		want string
	}{
		{"network without id", func(tx *Tx) { tx.PutNetwork(state.Network{}) }, "empty id"},
		{"retired without name", func(tx *Tx) { tx.Retire("") }, "empty id"},
		{"protocol without name", func(tx *Tx) { e := endpoint(1, 1); e.Ports[0].Proto = 47; tx.PutEndpoint(e) }, "tcp, udp or sctp"},
		{"name that is not UTF-8", func(tx *Tx) { e := endpoint(1, 1); e.Sandbox = "/\xff"; tx.PutEndpoint(e) }, "without loss"},
		{"impossible IPv4 prefix", func(tx *Tx) { p := pool(1); p.Range = netip.PrefixFrom(ip("10.0.0.0"), 33); tx.PutPool(p) }, "Prefix"},
		{"impossible IPv6 prefix", func(tx *Tx) { p := pool(1); p.Range = netip.PrefixFrom(ip("fd00::"), 129); tx.PutPool(p) }, "Prefix"},
		{"impossible ULA", func(tx *Tx) { tx.SetULA(netip.PrefixFrom(ip("fd00::"), 129)) }, "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Update(context.Background(), func(tx *Tx) error { tt.do(tx); return nil })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if s.Snapshot().Revision != 0 {
				t.Error("it was stored")
			}
			sameState(t, crashed(t, s), s)
		})
	}
}

func TestValuesAreJSON(t *testing.T) {
	s := newStore(t)
	update(t, s, fill)
	_ = s.db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if !bytes.HasPrefix(v, []byte("{")) && !bytes.HasPrefix(v, []byte(`"`)) && string(name) != metaBucket {
					t.Errorf("%s %q = %s", name, k, v)
				}
				return nil
			})
		})
	})
}
