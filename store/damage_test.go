package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// grown is a file of many pages, as it was before its last commit and after it.
type grown struct {
	bytes        []byte
	before, last *image
}

func grow(t *testing.T) grown {
	t.Helper()
	s := newStore(t)
	s.db.NoSync = true
	update(t, s, func(tx *Tx) {
		fill(tx)
		for i := range 300 {
			tx.PutEndpoint(endpoint(1000+i, i%3))
		}
	})
	update(t, s, func(tx *Tx) {
		for i := range 200 {
			tx.DeleteEndpoint(endpoint(1100+i, 0).ID)
		}
	})
	g := grown{before: s.current.Load()}
	update(t, s, func(tx *Tx) { tx.PutNetwork(network(50)) })
	g.last = s.current.Load()
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	g.bytes = b
	if checkPages(b) != nil || len(b) < 20*4096 {
		t.Fatalf("%d bytes: %v", len(b), checkPages(b))
	}
	return g
}

func same(a, b *image) bool { return cmp.Equal(a, b, byValue, cmp.AllowUnexported(image{})) }

// TestDamageIsNeverRead: wherever bits turn, numbers change or pages are lost, the file is read as it was or is refused, and
// a file that is refused stays as it is. Only where the last meta page is hit, that of the commit before counts, as after a crash.
func TestDamageIsNeverRead(t *testing.T) {
	g := grow(t)
	path := filepath.Join(t.TempDir(), "state.db")
	var read, refused, earlier int
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(g.bytes)
		at := rapid.IntRange(0, len(b)-9).Draw(t, "at")
		if rapid.Bool().Draw(t, "head of a page") { // where the numbers are that bbolt follows
			at = at/4096*4096 + at%100
		}
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			b[at] = rapid.Byte().Draw(t, "byte")
		case 2:
			binary.NativeEndian.PutUint32(b[at:], rapid.Uint32().Draw(t, "number"))
		case 3:
			from := rapid.IntRange(0, len(b)/4096-1).Draw(t, "page")
			copy(b[at/4096*4096:][:4096], b[from*4096:])
		case 4:
			b = b[:at]
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			refused++
			var f *Fault
			if after, _ := os.ReadFile(path); !errors.As(err, &f) || !bytes.Equal(after, b) {
				t.Fatalf("the file was changed, or %v", err)
			}
			return
		}
		defer s.Close()
		switch {
		case same(s.current.Load(), g.last):
			read++
		case at < 2*4096 && same(s.current.Load(), g.before):
			earlier++
		default:
			t.Fatalf("read wrong:\n%s", cmp.Diff(g.last, s.current.Load(), byValue, cmp.AllowUnexported(image{})))
		}
		// What was read can be worked with: nothing that is in use is written over.
		s.db.NoSync = true
		for i := range 20 {
			if _, err := s.Update(context.Background(), func(tx *Tx) error { tx.PutNetwork(network(100 + i)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		want := s.current.Load()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if !same(again.current.Load(), want) {
			t.Fatal("what was written later is read wrong")
		}
	})
	t.Logf("read %d, refused %d, that of the commit before %d", read, refused, earlier)
	if read == 0 || refused == 0 {
		t.Error("the damage is too large or too small to tell anything")
	}
}

// TestValueChanged: a value that is an address like any other is still not the one that was written.
func TestValueChanged(t *testing.T) {
	b := filled(t, nil)
	for old, changed := range map[string]string{"10.1.0.2/24": "10.1.0.3/24", "fd00::2/64": "fd00::3/64", `"mtu":1400`: `"mtv":1400`} {
		damaged := bytes.ReplaceAll(b, []byte(old), []byte(changed))
		if bytes.Equal(damaged, b) {
			t.Fatalf("nothing holds %s", old)
		}
		if _, err := Open(writeFile(t, damaged)); err == nil || !strings.Contains(err.Error(), errSum.Error()) {
			t.Errorf("%s for %s: %v", changed, old, err)
		}
	}
}

// TestDamageWhileOpen: what happens to the file of a running daemon ends in an error, and in no later start that
// reads something else.
func TestDamageWhileOpen(t *testing.T) {
	ruin := map[string]func(*os.File, int64) error{
		"pages overwritten": func(f *os.File, size int64) error {
			_, err := f.WriteAt(bytes.Repeat([]byte{0xee}, int(size)-2*4096), 2*4096)
			return err
		},
		"all overwritten": func(f *os.File, size int64) error {
			_, err := f.WriteAt(bytes.Repeat([]byte{0xee}, int(size)), 0)
			return err
		},
		"cut":     func(f *os.File, _ int64) error { return f.Truncate(2 * 4096) },
		"emptied": func(f *os.File, _ int64) error { return f.Truncate(0) },
	}
	for name, do := range ruin {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			update(t, s, fill)
			want := s.current.Load()
			info, err := os.Stat(s.path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(s.path, os.O_RDWR, 0)
			if err == nil {
				err = errors.Join(do(f, info.Size()), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				_, err := s.Update(context.Background(), func(tx *Tx) error { tx.PutNetwork(network(70)); return nil })
				if err == nil || !strings.Contains(err.Error(), s.path) || !strings.Contains(err.Error(), "is damaged") || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v", err)
				}
			}
			if s.current.Load() != want {
				t.Error("memory changed")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := Open(s.path); err == nil || errors.Is(err, ErrInUse) {
				t.Errorf("opened again: %v", err)
			}
		})
	}
}

// TestNewFileAppearsWhole: a first start that fails leaves nothing behind that the next one would take for a state.
func TestNewFileAppearsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	old := writeFile(t, nil)
	if err := os.Rename(old, path+".new"); err != nil { // of a start that was killed
		t.Fatal(err)
	}
	if err := create(path, nil); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := create(path, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second file: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, content) {
		t.Error("the first file was replaced")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v %v", left, err)
	}
}

// TestNewFileElsewhere: file systems that lack a call to give a name that is free get a file all the same, and none is replaced.
func TestNewFileElsewhere(t *testing.T) {
	lacks := func(e syscall.Errno) func(string, string) error {
		return func(string, string) error { return &os.LinkError{Op: "link", Err: e} }
	}
	for what, ways := range map[string][]func(string, string) error{
		"renames and nothing else": {renameFree},
		"hard links":               {lacks(syscall.EINVAL), linkFree},
		"an old kernel":            {lacks(syscall.ENOSYS), linkFree},
		"no hard links either":     {lacks(syscall.EINVAL), lacks(syscall.EPERM)},
		"nor a word for it":        {lacks(syscall.EOPNOTSUPP), lacks(syscall.EOPNOTSUPP)},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			fresh, path := filepath.Join(dir, "fresh"), filepath.Join(dir, "state.db")
			for _, content := range []string{"first", "second"} {
				if err := os.WriteFile(fresh, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := name(fresh, path, ways...); (content == "second") != errors.Is(err, os.ErrExist) || content == "first" && err != nil {
					t.Errorf("the %s: %v", content, err)
				}
				if now, err := os.ReadFile(path); string(now) != "first" {
					t.Errorf("it holds %q, %v", now, err)
				}
				if _, err := os.Stat(fresh); content == "first" && err == nil {
					t.Error("the other name is left")
				}
			}
		})
	}
	broken := errors.New("a broken disk")
	if err := name("fresh", "state.db", func(string, string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a failure of another kind: %v", err)
	}
}

// TestRemove: also what a start that was killed left.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	for _, p := range []string{path, freshName(path), filepath.Join(dir, "other")} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left are %v %v", left, err)
	}
}

// TestFailedUpgradeChangesNothing: a file of an earlier format that turns out damaged stays one of that format.
func TestFailedUpgradeChangesNothing(t *testing.T) {
	b := filled(t, func(tx *bolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte(metaBucket)).Put([]byte(versionKey), []byte("2")),
			tx.Bucket([]byte("pools")).Put([]byte("x"), []byte("{")))
	})
	path := writeFile(t, b)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "of pools") {
		t.Errorf("error %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, b) {
		t.Error("the file was changed")
	}
}

// TestEarlierFormats: a file of each earlier format is read as it was, and gets a checksum.
func TestEarlierFormats(t *testing.T) {
	for version := 1; version <= len(migrations); version++ {
		b := filled(t, func(tx *bolt.Tx) error {
			m := tx.Bucket([]byte(metaBucket))
			return errors.Join(m.Put([]byte(versionKey), fmt.Append(nil, version)), m.Delete([]byte(sumKey)))
		})
		s := reopen(t, writeFile(t, b))
		want := newStore(t)
		update(t, want, fill)
		sameState(t, s, want)
		sameState(t, crashed(t, s), want)
	}
}

// TestDirectoriesAndLinks: what is in the place of the file is told, and stays.
func TestDirectoriesAndLinks(t *testing.T) {
	dir := t.TempDir()
	real := writeFile(t, filled(t, nil))
	for name, to := range map[string]string{"link": real, "dangling": filepath.Join(dir, "nothing")} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := reopen(t, filepath.Join(dir, "link"))
	update(t, s, func(tx *Tx) { tx.PutNetwork(network(70)) })
	for path, want := range map[string]string{
		filepath.Join(dir, "dangling"):             "symbolic link to a file",
		filepath.Join(dir, "dangling", "state.db"): "symbolic link to one",
		dir:         "is a directory",
		"/dev/null": "not a regular file",
	} {
		var f *Fault
		if _, err := Open(path); !errors.As(err, &f) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "nothing")); err == nil {
		t.Error("the link's target was made")
	}
}
