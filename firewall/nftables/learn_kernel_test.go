//go:build kernel

package nftables

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// learnedLab is a router that serves the ports of its state itself, until it has learned who may come.
func learnedLab(t *testing.T, learned time.Duration) *lab {
	l := hostLab(t)
	l.learn(learned)
	return l
}

// hostLab is a router whose ports nobody has published yet.
func hostLab(t *testing.T) *lab {
	l := newLab(t, "")
	l.ServeHost(8080, 8081, 8083)
	l.nft("add", "table", "inet", "host")
	l.nft("add", "chain", "inet", "host", "input", "{ type filter hook input priority 0; }")
	l.nft("add", "rule", "inet", "host", "input", "ct", "state", "established", "accept")
	return l
}

// learn publishes the ports of the lab's state.
func (l *lab) learn(learned time.Duration) {
	l.T.Helper()
	s := firewalltest.Publish(state.PublishLearned)
	s.LearnedTime = learned
	must(l.T, firewall.NewPlane(l.backend, s).Apply(l.T.Context(), firewalltest.State()))
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

// TestLearnedPortChanges: who was let in to a port is not led past the host to whom the port belongs next.
func TestLearnedPortChanges(t *testing.T) {
	l := learnedLab(t, time.Minute)
	eachWay(t, func(t *testing.T, proto string, family int) {
		for _, want := range []string{"router", "c1a"} {
			if got := l.to("out", proto, family, "8080"); !strings.HasPrefix(got, want) {
				t.Fatalf("%q answers, not %s", got, want)
			}
		}
		s := firewalltest.State()
		for i, e := range s.Endpoints {
			if slices.ContainsFunc(e.Ports, func(p state.Port) bool { return p.HostPort == 8080 }) {
				s.Endpoints[i].Exposure.Publish = state.PublishHost
			}
		}
		settings := firewalltest.Publish(state.PublishLearned)
		settings.LearnedTime = time.Minute
		must(t, firewall.NewPlane(l.backend, settings).Apply(t.Context(), s))
		if got := l.to("out", proto, family, "8080"); !strings.HasPrefix(got, "router") {
			t.Errorf("the host's to decide, and %q answers", got)
		}
		l.learn(time.Minute)
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

// refused checks that nobody answers what the host refuses, after somebody spoke on an old connection.
func (l *lab) refused(t *testing.T, talk func() string, proto string, family int) {
	t.Helper()
	if got := talk(); !strings.HasPrefix(got, "router") {
		t.Errorf("the old connection is answered by %q", got)
	}
	if got := l.Answer("out", proto, firewalltest.At(firewalltest.Ext0, "9090")[family], firewalltest.Impatience); got != "" {
		t.Errorf("refused, and %q answers", got)
	}
}

// TestLearnedBefore: a connection that is older than the rules, and so has no room for a label, vouches for nobody.
func TestLearnedBefore(t *testing.T) {
	eachWay(t, func(t *testing.T, proto string, family int) {
		l := hostLab(t)
		l.TalkHost(9090)
		talk := l.Talk("out", proto, firewalltest.At(firewalltest.Ext0, "9090")[family], firewalltest.Patience)
		if got := talk(); !strings.HasPrefix(got, "router") {
			t.Fatalf("%q answers", got)
		}
		l.learn(time.Minute)
		if got := talk(); !strings.HasPrefix(got, "router") {
			t.Fatalf("the old connection is answered by %q", got)
		}
		l.refuse(proto, "9090")
		must(t, l.backend.ForgetLearned(t.Context()))
		l.refused(t, talk, proto, family)
	})
}

// TestLearnedLate: a connection that the host let in, and on which the client speaks for the first time after that was answered when he is
// refused already, vouches for nobody.
func TestLearnedLate(t *testing.T) {
	l := learnedLab(t, time.Minute)
	l.TalkHost(9090)
	for family, name := range []string{"v4", "v6"} {
		for _, told := range []bool{true, false} { // that rules have changed, which those of iptables-legacy tell nobody
			t.Run(fmt.Sprintf("%s told=%v", name, told), func(t *testing.T) {
				talk := l.Talk("out", "udp", firewalltest.At(firewalltest.Ext0, "9090")[family], firewalltest.Patience)
				if got := talk(); !strings.HasPrefix(got, "router") {
					t.Fatalf("%q answers", got)
				}
				handle := l.refuse("udp", "9090")
				if told {
					must(t, l.backend.ForgetLearned(t.Context()))
				} else {
					time.Sleep(freshTime + 500*time.Millisecond)
				}
				l.refused(t, talk, "udp", family)
				l.nft("delete", "rule", "inet", "host", "input", "handle", handle)
			})
		}
	}
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
		asked := time.Now()
		l.to("out", proto, family, "8080")
		translated := 0
		// He pauses between them, or would soon have none but ports of earlier connections, with which he goes on.
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			switch got := l.to("out", proto, family, "8080"); {
			case strings.HasPrefix(got, "c1a"):
				translated++
			case !strings.HasPrefix(got, "router"):
				t.Fatalf("%q answers after %d translated connections", got, translated)
			case translated == 0 && time.Since(asked) < time.Second:
				t.Fatal("was never learned")
			case translated == 0: // a busy machine took so long that it is over
				asked = time.Now()
			default:
				return
			}
		}
		t.Errorf("was not asked about again after %d translated connections", translated)
	})
}

// TestLearnedFull: who finds a set full is served by the host each time.
func TestLearnedFull(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked=%v", asked), func(t *testing.T) {
			l := learnedLab(t, time.Hour)
			l.fill(asked)
			eachWay(t, func(t *testing.T, proto string, family int) {
				for range 3 {
					if got := l.to("out", proto, family, "8080"); !strings.HasPrefix(got, "router") {
						t.Errorf("%q answers", got)
					}
				}
			})
		})
	}
}

// fill fills the sets of those who were let in, or of those who are being asked about.
func (l *lab) fill(asked bool) {
	l.T.Helper()
	for _, v6 := range []bool{false, true} {
		name, source, to := namesOf(v6).learned, "10.9.%d.%d", "192.0.2.1"
		if v6 {
			source, to = "fd09::%x:%x", "2001:db8:1::1"
		}
		if asked {
			name = namesOf(v6).asked
		}
		var b strings.Builder
		fmt.Fprintf(&b, "add element inet drawbridge %s {\n", name)
		for i := range maxLearned {
			fmt.Fprintf(&b, source+` . "ext0" . %s . tcp . 1 timeout 1h,`+"\n", i/256, i%256, to)
		}
		file := filepath.Join(l.T.TempDir(), "elements.nft")
		must(l.T, os.WriteFile(file, []byte(b.String()+"}\n"), 0o644))
		l.nft("-f", file)
	}
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

// TestLearnedEmptied: whichever of our sets and maps somebody empties, who is refused by the host stays out until it is filled again.
func TestLearnedEmptied(t *testing.T) {
	l := learnedLab(t, time.Minute)
	l.refuse("tcp", "8080")
	sets := regexp.MustCompile(`(?m)^\t(set|map) (\w+4) \{`).FindAllStringSubmatch(l.nft("-t", "list", "table", "inet", "drawbridge"), -1)
	if len(sets) < 20 {
		t.Fatalf("only these sets are found: %v", sets)
	}
	for _, s := range sets {
		kind, name := s[1], s[2]
		l.nft("flush", kind, "inet", "drawbridge", name)
		if got := l.Answer("out", "tcp", firewalltest.At(firewalltest.Ext0, "8080")[0], firewalltest.Impatience); got != "" {
			t.Errorf("%s is empty, and %q answers who is refused", name, got)
		}
		l.learn(time.Minute)
	}
}
