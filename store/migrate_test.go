package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/state"
)

// mark is a migration that leaves a name in meta and wants the names before it.
func mark(name, before string) migration {
	return func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		if got := string(meta.Get([]byte("marks"))); got != before {
			return errors.New("marks are " + got)
		}
		return meta.Put([]byte("marks"), []byte(before+name))
	}
}

func marks(t *testing.T, s *Store) (marks, version string) {
	t.Helper()
	_ = s.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		marks, version = string(meta.Get([]byte("marks"))), string(meta.Get([]byte(versionKey)))
		return nil
	})
	return marks, version
}

func TestMigrations(t *testing.T) {
	first, second := mark("a", ""), mark("b", "a")
	tests := []struct {
		name           string
		has, knows     []migration
		marks, version string
		fails          string
	}{
		{name: "new file starts at the current version", knows: []migration{first, second}, has: []migration{first, second}, version: "3"},
		{name: "same version", version: "1"},
		{name: "one step", knows: []migration{first}, marks: "a", version: "2"},
		{name: "two steps in order", knows: []migration{first, second}, marks: "ab", version: "3"},
		{name: "older program", has: []migration{first}, fails: "newer version", version: "2"},
		{name: "second step fails", knows: []migration{first, second, second}, fails: "from format 3 to 4", version: "1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			s, err := open(path, tt.has)
			if err != nil {
				t.Fatal(err)
			}
			update(t, s, fill)
			want := s
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, err = open(path, tt.knows)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("error %v, want one with %q", err, tt.fails)
				}
				// Nothing of it stays: the program that wrote the file opens it.
				s, err = open(path, tt.has)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if m, v := marks(t, s); m != tt.marks || v != tt.version {
				t.Errorf("marks %q version %s, want %q %s", m, v, tt.marks, tt.version)
			}
			sameState(t, s, want)
		})
	}
}

// TestFormat2: a file of the format before networks and pools were seen opens whole, and nothing of it was seen.
func TestFormat2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	old, err := open(path, migrations[:1])
	if err != nil {
		t.Fatal(err)
	}
	update(t, old, fill)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, version := marks(t, s); version != "5" {
		t.Errorf("version %s", version)
	}
	sameState(t, s, old)
	update(t, s, func(tx *Tx) {
		for _, n := range tx.Networks() {
			if n.Seen {
				t.Errorf("network %s was seen", n.ID)
			}
			n.Seen = true
			tx.PutNetwork(n)
		}
		for _, p := range tx.Pools() {
			if p.Seen {
				t.Errorf("pool %s was seen", p.ID)
			}
			p.Seen = true
			tx.PutPool(p)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path, migrations[:1]); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("the older program opens it: %v", err)
	}
	s, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range s.Snapshot().Networks {
		if !n.Seen {
			t.Errorf("network %s is forgotten to be seen", n.ID)
		}
	}
}

// TestFormat4: a file of the format before exposures opens whole and keeps them from then on; the program that wrote it, which would
// open to all what they close, is refused.
func TestFormat4(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	old, err := open(path, migrations[:3])
	if err != nil {
		t.Fatal(err)
	}
	update(t, old, fill)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, s, old)
	exposure := state.Exposure{Publish: state.PublishLocalhost, From: "192.0.2.0/24,2001:db8::/32", Links: "eth0:wg0"}
	update(t, s, func(tx *Tx) {
		for _, n := range tx.Networks() {
			n.Exposure = exposure
			tx.PutNetwork(n)
		}
		for _, e := range tx.EndpointsOf(tx.Networks()[0].ID) {
			e.Exposure = state.Exposure{From: exposure.From}
			tx.PutEndpoint(e)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(path, migrations[:3]); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("the older program opens it: %v", err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	sameState(t, again, s)
	if got := again.Snapshot().Networks[0].Exposure; got != exposure {
		t.Errorf("exposure %+v", got)
	}
}
