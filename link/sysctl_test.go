package link

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// newSysctl writes a tree of settings.
func newSysctl(t *testing.T, settings map[string]string) Sysctl {
	t.Helper()
	s := Sysctl{Root: t.TempDir()}
	for key, value := range settings {
		file := filepath.Join(s.Root, key)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		long := time.Unix(1, 0)
		if err := os.Chtimes(file, long, long); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSysctlSet(t *testing.T) {
	tests := []struct {
		name, key, value string
		written          bool
	}{
		{"another value", "a/b", "0", true},
		{"same value", "a/b", "1", false},
		{"no such key", "a/c", "1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSysctl(t, map[string]string{"a/b": "1"})
			if err := (&Links{sysctl: s}).set("", tt.key, tt.value); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(s.Root, "a/b"))
			if err != nil {
				t.Fatal(err)
			}
			if written := info.ModTime().Unix() != 1; written != tt.written {
				t.Errorf("written %t, want %t", written, tt.written)
			}
			if _, err := os.Stat(filepath.Join(s.Root, "a/c")); !errors.Is(err, fs.ErrNotExist) {
				t.Error("a key was made up")
			}
		})
	}
	t.Run("not a setting", func(t *testing.T) {
		s := newSysctl(t, map[string]string{"a/b": "1"})
		if err := (&Links{sysctl: s}).set("", "a", "1"); err == nil || err.Error() == "" {
			t.Errorf("error %v", err)
		}
	})
}

func TestSysctlForwarding(t *testing.T) {
	tests := []struct {
		name     string
		settings map[string]string
		v4, v6   bool
		fails    bool
	}{
		{"off", map[string]string{forwardV4: "0", forwardV6: "0"}, false, false, false},
		{"IPv4", map[string]string{forwardV4: "1", forwardV6: "0"}, true, false, false},
		{"IPv6", map[string]string{forwardV4: "0", forwardV6: "1"}, false, true, false},
		{"kernel without IPv6", map[string]string{forwardV4: "1"}, true, false, false},
		{"unreadable", nil, false, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v4, v6, err := newSysctl(t, tt.settings).forwarding()
			if v4 != tt.v4 || v6 != tt.v6 || (err != nil) != tt.fails {
				t.Errorf("%t, %t, %v", v4, v6, err)
			}
		})
	}
}

func TestSysctlBoot(t *testing.T) {
	boot, err := newSysctl(t, map[string]string{"kernel/random/boot_id": "e0a1"}).Boot()
	if boot != "e0a1" || err != nil {
		t.Errorf("%q, %v", boot, err)
	}
	if _, err := newSysctl(t, nil).Boot(); err == nil {
		t.Error("no error without a boot id")
	}
}
