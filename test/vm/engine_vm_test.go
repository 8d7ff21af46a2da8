//go:build vm

package vm

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// selected are tests of test/engine in which most of what the kernel does has a part, or those that VM_RUN names.
const selected = "^Test(PublishedPorts|UserRulesOfSockets)$"

// TestEngine runs them on the kernel, with each backend.
func TestEngine(t *testing.T) {
	run := selected
	if text := os.Getenv("VM_RUN"); text != "" {
		run = text
	}
	folder, err := filepath.Abs("../engine")
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	m.command("go", "test", "-c", "-tags", "engine", "-o", filepath.Join(m.share, "engine.test"), "../engine")
	m.command("go", "build", "-o", os.DevNull, "../lab/probe") // which the lab builds, so that it is in the cache
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			m.t = t
			out := m.boot("modprobe -a br_netfilter tun nf_tables && cd '"+folder+"' && DRAWBRIDGE_BIN=/vm/drawbridge DRAWBRIDGE_BACKEND="+backend+
				" /vm/engine.test -test.v -test.parallel 1 -test.run '"+run+"'", 30*time.Minute)
			m.logTests(out)
		})
	}
}
