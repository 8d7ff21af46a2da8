package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzOpen opens a file with damage at one place: it is read as a whole, or refused in one sentence, and no
// damage ends the daemon.
func FuzzOpen(f *testing.F) {
	for _, at := range []int{0, 16, 24, 4096, 8192 + 16, 3 * 4096, 5*4096 + 20} {
		f.Add(at, []byte{0xff, 0xff, 0xff, 0xff}, 1<<20)
	}
	f.Add(0, []byte(nil), 4096)
	path := filepath.Join(f.TempDir(), "whole.db")
	whole, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	if _, err = whole.Update(f.Context(), func(tx *Tx) error { fill(tx); return nil }); err != nil {
		f.Fatal(err)
	}
	if err := whole.Close(); err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, at int, damage []byte, length int) {
		damaged := append([]byte(nil), file...)
		copy(damaged[min(max(at, 0), len(file)):], damage)
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, damaged[:min(max(length, 0), len(file))], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error is not one sentence: %q", err)
			}
			return
		}
		s.Snapshot()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
