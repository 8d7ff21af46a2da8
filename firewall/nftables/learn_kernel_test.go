//go:build kernel

package nftables

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// learnedLab is a router that serves the ports of its state itself, until it has learned who may come.
func learnedLab(t *testing.T, learned time.Duration) *lab {
	l := newLab(t, "")
	l.ServeHost(8080, 8081, 8083)
	l.nft("add", "table", "inet", "host")
	l.nft("add", "chain", "inet", "host", "input", "{ type filter hook input priority 0; }")
	l.nft("add", "rule", "inet", "host", "input", "ct", "state", "established", "accept")
	s := firewalltest.Publish(state.PublishLearned)
	s.LearnedTime = learned
	must(t, firewall.NewPlane(l.backend, s).Apply(t.Context(), firewalltest.State()))
	return l
}

// to says who answers somebody at a port of the host's first address.
func (l *lab) to(from, proto string, family int, port string) string {
	return l.Answer(from, proto, firewalltest.At(firewalltest.Ext0, port)[family], firewalltest.Patience)
}

// eachWay calls f for each protocol and family.
func eachWay(t *testing.T, f func(t *testing.T, proto string, family int)) {
	for _, proto := range []string{"tcp", "udp"} {
		for family, name := range []string{"v4", "v6"} {
			t.Run(proto+" "+name, func(t *testing.T) { f(t, proto, family) })
		}
	}
}

// TestLearned: who was let in is translated the next time; nobody else is, and he to no other port or address.
func TestLearned(t *testing.T) {
	l := learnedLab(t, time.Minute)
	expect := func(t *testing.T, want, got string) {
		t.Helper()
		if name, _, _ := strings.Cut(got, " "); name != want {
			t.Errorf("answered by %q, not by %q", got, want)
		}
	}
	eachWay(t, func(t *testing.T, proto string, family int) {
		expect(t, "router", l.to("out", proto, family, "8080"))
		if got, want := l.to("out", proto, family, "8080"), "c1a "+firewalltest.Out[family]; got != want {
			t.Errorf("learned, and %q answers, not %q", got, want)
		}
		expect(t, "router", l.to("out", proto, family, "8083"))
		expect(t, "router", l.to("far", proto, family, "8080"))
		expect(t, "router", l.Answer("out", proto, firewalltest.At(firewalltest.Ext1, "8080")[family], firewalltest.Patience))
		expect(t, "c1a", l.to("c2", proto, family, "8080"))

		must(t, l.backend.ForgetLearned(t.Context()))
		expect(t, "router", l.to("out", proto, family, "8080"))
	})
}

// TestLearnedVerdict: what the host refuses is refused as soon as it was forgotten, though an old connection goes on.
func TestLearnedVerdict(t *testing.T) {
	l := learnedLab(t, time.Minute)
	l.TalkHost(9090)
	eachWay(t, func(t *testing.T, proto string, family int) {
		talk := l.Talk("out", proto, firewalltest.At(firewalltest.Ext0, "9090")[family], firewalltest.Patience)
		if got := talk(); !strings.HasPrefix(got, "router") {
			t.Fatalf("%q answers", got)
		}
		talk() // with datagrams the second one is that of an answered connection
		if got := l.to("out", proto, family, "9090"); !strings.HasPrefix(got, "c2") {
			t.Fatalf("learned, and %q answers", got)
		}
		handle := l.refuse(proto, "9090")
		must(t, l.backend.ForgetLearned(t.Context()))
		if got := talk(); !strings.HasPrefix(got, "router") {
			t.Errorf("the old connection is answered by %q", got)
		}
		if got := l.Answer("out", proto, firewalltest.At(firewalltest.Ext0, "9090")[family], firewalltest.Impatience); got != "" {
			t.Errorf("refused, and %q answers", got)
		}
		l.nft("delete", "rule", "inet", "host", "input", "handle", handle)
	})
}

// refuse has the host refuse new connections to a port, and returns the rule's handle.
func (l *lab) refuse(proto, port string) string {
	l.T.Helper()
	out := l.nft("-e", "-a", "add", "rule", "inet", "host", "input", proto, "dport", port, "drop")
	_, handle, ok := strings.Cut(strings.TrimSpace(out), "# handle ")
	if !ok {
		l.T.Fatalf("nft says %q", out)
	}
	return handle
}

// TestLearnedTime: whoever goes on coming is asked about anew all the same.
func TestLearnedTime(t *testing.T) {
	l := learnedLab(t, time.Second)
	eachWay(t, func(t *testing.T, proto string, family int) {
		l.to("out", proto, family, "8080")
		translated := 0
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			if got := l.to("out", proto, family, "8080"); strings.HasPrefix(got, "router") {
				if translated == 0 {
					t.Error("was never learned")
				}
				return
			}
			translated++
		}
		t.Errorf("was not asked about again after %d translated connections", translated)
	})
}

// TestLearnedFull: who finds the set full is served by the host each time.
func TestLearnedFull(t *testing.T) {
	l := learnedLab(t, time.Hour)
	for _, v6 := range []bool{false, true} {
		source, to := "10.9.%d.%d", "192.0.2.1"
		if v6 {
			source, to = "fd09::%x:%x", "2001:db8:1::1"
		}
		var b strings.Builder
		fmt.Fprintf(&b, "add element inet drawbridge %s {\n", namesOf(v6).learned)
		for i := range maxLearned {
			fmt.Fprintf(&b, source+` . "ext0" . %s . tcp . 1,`+"\n", i/256, i%256, to)
		}
		file := filepath.Join(t.TempDir(), "elements.nft")
		must(t, os.WriteFile(file, []byte(b.String()+"}\n"), 0o644))
		l.nft("-f", file)
	}
	eachWay(t, func(t *testing.T, proto string, family int) {
		for range 3 {
			if got := l.to("out", proto, family, "8080"); !strings.HasPrefix(got, "router") {
				t.Errorf("%q answers", got)
			}
		}
	})
}

// TestForgetLearnedIsQuiet: where nobody was learned nobody hears of a change, and what was written stays known.
func TestForgetLearnedIsQuiet(t *testing.T) {
	l := learnedLab(t, time.Minute)
	generation := func() uint32 {
		t.Helper()
		gen, err := l.backend.Generation()
		must(t, err)
		return gen
	}
	before := generation()
	must(t, l.backend.ForgetLearned(t.Context()))
	if now := generation(); now != before {
		t.Errorf("generation %d became %d though there was nothing to forget", before, now)
	}
	l.to("out", "tcp", 0, "8080")
	must(t, l.backend.ForgetLearned(t.Context()))
	if now := generation(); now == before || now != l.backend.gen || !l.backend.known {
		t.Errorf("generation %d is not known: %d, %v", now, l.backend.gen, l.backend.known)
	}
}
