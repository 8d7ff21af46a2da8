//go:build engine

package engine

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestEngineStartIsNotHeldUp: with many networks, dockerd starts as fast on a plugin whose firewall programs hang, or whose state
// file is damaged, as on a healthy one. An absent plugin would cost it 15 seconds per network.
func TestEngineStartIsNotHeldUp(t *testing.T) {
	const networks, slack = 20, 5 * time.Second
	b := up(t, options{alone: true})
	for i := range networks {
		b.network(fmt.Sprint("n", i))
	}
	start := func() time.Duration {
		t.Helper()
		if err := b.docker.Stop(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := b.docker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	healthy := start()
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.hangingPrograms("/run/hanging")
	for name, how := range map[string]struct{ argv, env []string }{
		"programs that hang": {nil, []string{"PATH=/run/hanging:/usr/sbin:/usr/bin:/sbin:/bin"}},
		"a damaged state":    {[]string{"--state", "/run/bad.db"}, nil},
	} {
		if err := os.WriteFile(b.Path("/run/bad.db"), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := b.Start("hanging", append([]string{binary(t), "serve", "--firewall-backend", "iptables"}, how.argv...), how.env)
		if err != nil {
			t.Fatal(err)
		}
		took := start()
		t.Logf("dockerd starts with %d networks in %v, on %s in %v", networks, healthy, name, took)
		if took > healthy+slack {
			t.Errorf("%s hold up dockerd's start: %v instead of %v", name, took, healthy)
		}
		if out := b.do("network", "ls", "-q", "-f", "driver=drawbridge"); len(strings.Fields(out)) != networks {
			t.Errorf("on %s there are the networks %s", name, out)
		}
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// hangingPrograms puts programs that never end, whatever signal they get, into a folder of the host.
func (b *bed) hangingPrograms(dir string) {
	b.t.Helper()
	if err := os.MkdirAll(b.Path(dir), 0o755); err != nil {
		b.t.Fatal(err)
	}
	for _, program := range []string{"iptables", "ip6tables"} {
		for _, variant := range []string{"", "-nft", "-legacy"} {
			for _, end := range []string{"-save", "-restore"} {
				path := b.Path(dir + "/" + program + variant + end)
				if err := os.WriteFile(path, []byte("#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 100; done\n"), 0o755); err != nil {
					b.t.Fatal(err)
				}
			}
		}
	}
}
