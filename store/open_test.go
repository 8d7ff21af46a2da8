package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func TestOpenCreatesPrivateFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "deep", "state.db")
	reopen(t, path)
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", p, got, want)
		}
	}
}

func TestOpenRefusesAFileInUse(t *testing.T) {
	s := newStore(t)
	_, err := Open(s.path)
	want := "state file " + s.path + " is in use by another drawbridge process"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	update(t, s, fill)
}

// filled returns the bytes of a state file after changing it by raw.
func filled(t *testing.T, raw func(*bolt.Tx) error) []byte {
	t.Helper()
	s := newStore(t)
	update(t, s, fill)
	if raw != nil {
		if err := s.db.Update(raw); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putRaw(bucket, key, value string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }
}

func TestOpenRefusesWhatItCannotRead(t *testing.T) {
	id := fmt.Sprintf("%064d", 1)
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"newer version", filled(t, putRaw("meta", "version", "99")), "written by a newer version"},
		{"version 0", filled(t, putRaw("meta", "version", "0")), "is damaged"},
		{"version is no number", filled(t, putRaw("meta", "version", `"x"`)), "value version of meta"},
		{"no revision", filled(t, func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("revision")) }), "value revision of meta"},
		{"network cut short", filled(t, putRaw("networks", id, `{"id":"`)), `of networks`},
		{"network under another id", filled(t, putRaw("networks", "other", `{"id":"`+id+`"}`)), "holds the value of"},
		{"IPv4 address garbled", filled(t, putRaw("endpoints", id, `{"id":"`+id+`","addr4":"10.1.0.300/24"}`)), "of endpoints"},
		{"IPv6 address garbled", filled(t, putRaw("endpoints", id, `{"id":"`+id+`","addr6":"fd00::g/64"}`)), "of endpoints"},
		{"lease under another pool", filled(t, putRaw("leases", "x\x0010.0.0.1", `{"pool":"y","addr":"10.0.0.1"}`)), "of leases"},
		{"bucket missing", filled(t, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("pools")) }), "no bucket pools"},
		{"another program's database", foreign(t), "not a state file"},
		{"text", bytes.Repeat([]byte("hello "), 3000), "is damaged"},
		{"short text", []byte("hello"), "is damaged"},
		{"cut after one page", filled(t, nil)[:4096], "is damaged"},
		{"cut after four pages", filled(t, nil)[:4*4096], "is damaged"},
		{"no byte", nil, "is damaged"},
		{"zeroes", make([]byte, 32768), "is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := writeFile(t, tt.file)
			s, err := Open(path)
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(after, tt.file) {
				t.Error("the file was changed")
			}
		})
	}
}

func foreign(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("containers")); return err })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenNamesAnUnusablePath(t *testing.T) {
	file := writeFile(t, nil)
	for name, path := range map[string]string{
		"a directory":       t.TempDir(),
		"below a file":      filepath.Join(file, "state.db"),
		"name that is long": filepath.Join(t.TempDir(), strings.Repeat("x", 300)),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Open(path); err == nil || strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "state file") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Whatever page of the file is lost or overwritten, and wherever the file is cut, Open
// returns: with an error, or with a state that can be worked with.
func TestOpenSurvivesDamageAnywhere(t *testing.T) {
	good := filled(t, nil)
	const page = 4096
	ruin := map[string]func(b []byte, at int) []byte{
		"zeroed": func(b []byte, at int) []byte { clear(b[at : at+page]); return b },
		"filled": func(b []byte, at int) []byte { copy(b[at:at+page], bytes.Repeat([]byte{0xff}, page)); return b },
		"cut":    func(b []byte, at int) []byte { return b[:at+100] },
		"swapped": func(b []byte, at int) []byte {
			copy(b[at:at+page], good[2*page:3*page])
			return b
		},
	}
	for name, do := range ruin {
		for at := 0; at < len(good); at += page {
			t.Run(fmt.Sprintf("%s page %d", name, at/page), func(t *testing.T) {
				s, err := Open(writeFile(t, do(bytes.Clone(good), at)))
				if err != nil {
					if !strings.Contains(err.Error(), "state file") {
						t.Errorf("error %v", err)
					}
					return
				}
				view(t, s, func(tx *Tx) { tx.Leases(pool(1).ID) })
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
