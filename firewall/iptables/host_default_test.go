package iptables

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHostDefault(t *testing.T) {
	for name, c := range map[string]struct {
		links map[string]string // by path on the host
		want  string
	}{
		"Debian, nft":       {map[string]string{"usr/sbin/iptables": "/etc/alternatives/iptables", "etc/alternatives/iptables": "/usr/sbin/iptables-nft", "usr/sbin/iptables-nft": "xtables-nft-multi"}, "-nft"},
		"Debian, legacy":    {map[string]string{"usr/sbin/iptables": "/etc/alternatives/iptables", "etc/alternatives/iptables": "/usr/sbin/iptables-legacy", "usr/sbin/iptables-legacy": "xtables-legacy-multi"}, "-legacy"},
		"relative":          {map[string]string{"usr/sbin/iptables": "../lib/xtables-legacy-multi"}, "-legacy"},
		"in /usr/bin":       {map[string]string{"usr/bin/iptables": "xtables-nft-multi"}, "-nft"},
		"dangling":          {map[string]string{"usr/sbin/iptables": "/nix/store/iptables"}, ""},
		"a loop":            {map[string]string{"usr/sbin/iptables": "iptables"}, ""},
		"none is installed": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, to := range c.links {
				path = filepath.Join(root, path)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
					t.Fatal(err)
				}
			}
			if got := HostDefault(root); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestDefaultOfTheHost: where DOCKER-USER says nothing, the host's default counts, if its programs are here.
func TestDefaultOfTheHost(t *testing.T) {
	const with, without = "*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n", "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
	for name, c := range map[string]struct{ nft, legacy, set, want string }{
		"in none":               {without, without, "-legacy", "iptables-legacy"},
		"in both":               {with, with, "-legacy", "iptables-legacy"},
		"Docker's is the other": {with, without, "-legacy", "iptables-nft"},
		"not installed here":    {without, without, "-other", "iptables"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(func(_ context.Context, _ string, argv ...string) (string, error) {
				if filepath.Base(argv[0]) == "iptables-nft-save" {
					return c.nft, nil
				}
				return c.legacy, nil
			}, newFakeHost(), unlisted)
			b.lookPath = programs("iptables-save", "iptables-nft-save", "iptables-legacy-save")
			b.SetDefault(c.set)
			if _, err := b.choose(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := b.Variant(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
