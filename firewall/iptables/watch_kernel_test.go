//go:build kernel

package iptables

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/internal/legacytables"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// compared returns what a look tells that Watch does from time to time.
func (l *lab) compared() (told []string) {
	l.In(func() {
		for _, stray := range l.backend.strays {
			if reason := stray(); reason != "" {
				told = append(told, reason)
			}
		}
	})
	return told
}

// syncInside is sync by a thread of the router's: what is below /proc goes by it.
func (l *lab) syncInside(s state.Snapshot) { l.In(func() { l.sync(s) }) }

// TestForeignChangesAreTold: what others do to sets and to rules of the legacy variant is told, once; it is mended by the next pass; and a
// pass that finds nothing to do tells nothing.
func TestForeignChangesAreTold(t *testing.T) {
	const rules, nets = "rules of legacy iptables were changed", "set DRAWBRIDGE-nets4 has 0 elements instead of 3"
	for _, variant := range []string{"-nft", "-legacy"} {
		t.Run(variant, func(t *testing.T) {
			l := newLab(t, variant)
			l.syncInside(firewalltest.State())
			before := l.save()
			for _, tt := range []struct {
				harm   string
				sets   string // what is told
				tables bool   // of both variants
			}{
				{"ipset flush DRAWBRIDGE-nets4", nets, false},
				{"ipset flush", "elements instead of", false},
				{"ipset del DRAWBRIDGE-nets4 10.1.0.0/24,br-one", "set DRAWBRIDGE-nets4 has 2 elements instead of 3", false},
				{"ipset add DRAWBRIDGE-nets4 10.99.0.0/24,br-one", "set DRAWBRIDGE-nets4 has 4 elements instead of 3", false},
				{"ipset flush DRAWBRIDGE-nets6", "set DRAWBRIDGE-nets6 has 0 elements instead of 3", false},
				{"iptables -F", "", true},
				{"ip6tables -F", "", true},
				{"iptables -t nat -F", "", true},
				{"ip6tables -t nat -F", "", true},
				{"iptables -t mangle -F", "", true},
				{"iptables -D FORWARD 1", "", true},
			} {
				argv := strings.Fields(tt.harm)
				if tt.tables {
					argv[0] += variant
				}
				_, err := l.Run(t.Context(), "", argv...)
				must(t, err)
				want := tt.sets
				if tt.tables && variant == "-legacy" {
					want = rules
				}
				if told := l.compared(); want == "" && len(told) > 0 || want != "" && (len(told) != 1 || !strings.Contains(told[0], want)) {
					t.Errorf("%s: told %q, want %q", tt.harm, told, want)
				}
				if told := l.compared(); len(told) > 0 {
					t.Errorf("%s: told %q again", tt.harm, told)
				}
				for range 2 {
					l.syncInside(firewalltest.State())
					if told := l.compared(); len(told) > 0 {
						t.Errorf("%s: told %q after a pass", tt.harm, told)
					}
				}
				if after := l.save(); counters.ReplaceAllString(after, "") != counters.ReplaceAllString(before, "") {
					t.Errorf("%s: before:\n%s\nafter:\n%s", tt.harm, before, after)
				}
			}
			l.Both("-F")
			l.Both("-t mangle -F")
			l.Both("-t nat -F")
			_, err := l.Run(t.Context(), "", "ipset", "destroy", "DRAWBRIDGE-nets4")
			must(t, err)
			if told := strings.Join(l.compared(), ", "); !strings.Contains(told, "set DRAWBRIDGE-nets4 was removed") {
				t.Errorf("told %q", told)
			}
			l.syncInside(state.Snapshot{})
			if told := l.compared(); len(told) > 0 {
				t.Errorf("told %q with nothing of ours on the host", told)
			}
		})
	}
}

// TestChangesBesideOursAreTold: what others change while we write is told behind it, in whichever table it is.
func TestChangesBesideOursAreTold(t *testing.T) {
	l := newLab(t, "-legacy")
	whole := firewalltest.State()
	part := whole
	part.Endpoints = nil
	for i, foreign := range []string{
		"ip6tables-legacy -A FORWARD -i tun0 -j ACCEPT",
		"iptables-legacy -A FORWARD -i tun0 -j ACCEPT",
		"iptables-legacy -t nat -A POSTROUTING -o tun0 -j MASQUERADE",
		"ip6tables-legacy -t raw -A PREROUTING -i tun0 -j ACCEPT", // no table of ours
		"ip6tables-legacy -t mangle -A PREROUTING -i tun0 -j ACCEPT",
	} {
		l.syncInside(part)
		if told := l.compared(); len(told) > 0 {
			t.Fatalf("told %q with nothing changed", told)
		}
		var once sync.Once
		l.backend.run = func(ctx context.Context, stdin string, argv ...string) (string, error) {
			if strings.HasSuffix(argv[0], "-restore") {
				once.Do(func() {
					_, err := l.Run(ctx, "", strings.Fields(foreign)...)
					must(t, err)
				})
			}
			return l.Run(ctx, stdin, argv...)
		}
		l.syncInside(whole)
		l.backend.run = l.Run
		if told := l.compared(); (len(told) == 1) == strings.Contains(foreign, "raw") {
			t.Errorf("%d: %s beside a write: told %q", i, foreign, told)
		}
		l.syncInside(whole)
		if told := l.compared(); len(told) > 0 {
			t.Errorf("%s: told %q behind a pass", foreign, told)
		}
	}
}

// TestOwnWritesAreSilent: Watch looks all the time while we write, and tells nothing.
func TestOwnWritesAreSilent(t *testing.T) {
	for _, variant := range []string{"-nft", "-legacy"} {
		t.Run(variant, func(t *testing.T) {
			l := newLab(t, variant)
			ctx, stop := context.WithCancel(t.Context())
			told, ended := make(chan string, 1000), make(chan struct{})
			go func() {
				defer close(ended)
				for ctx.Err() == nil {
					for _, reason := range l.compared() {
						told <- reason
					}
				}
			}()
			whole := firewalltest.State()
			for i := range 12 {
				s := whole
				s.Endpoints = s.Endpoints[:i%(len(whole.Endpoints)+1)]
				if i%5 == 4 {
					s = state.Snapshot{}
				}
				l.syncInside(s)
			}
			stop()
			<-ended
			close(told)
			for reason := range told {
				t.Errorf("told %q", reason)
			}
		})
	}
}

// TestWatchInTime: a flush is told without a pass, and to watch makes no table.
func TestWatchInTime(t *testing.T) {
	l := newLab(t, "-nft")
	l.syncInside(firewalltest.State())
	ctx, stop := context.WithCancel(t.Context())
	told, ended := make(chan string, 100), make(chan error)
	go l.In(func() { ended <- l.backend.Watch(ctx, func(reason string) { told <- reason }) })
	_, err := l.Run(t.Context(), "", "ipset", "flush", "DRAWBRIDGE-nets4")
	must(t, err)
	select {
	case reason := <-told:
		if reason != "set DRAWBRIDGE-nets4 has 0 elements instead of 3" {
			t.Errorf("told %q", reason)
		}
	case <-time.After(10 * time.Second): // it is looked two and a half times a second, on a machine that has nothing else to do
		t.Error("nothing was told")
	}
	stop()
	must(t, <-ended)
	l.In(func() {
		for _, v6 := range []bool{false, true} {
			if names := legacytables.Present(v6); len(names) > 0 {
				t.Errorf("legacy tables, IPv6 %v: %v", v6, names)
			}
		}
	})
}

// BenchmarkCompare is what Watch does two and a half times a second.
func BenchmarkCompare(b *testing.B) {
	sets, err := newKernelSets()
	must(b, err)
	defer sets.close()
	rules := newLegacy()
	defer rules.close()
	for _, s := range allSets() {
		_, err := sets.prepare(s)
		must(b, err)
		must(b, sets.add(s))
		defer func() { must(b, sets.destroy(s.Name)) }()
	}
	b.Run("sets", func(b *testing.B) {
		for b.Loop() {
			if reason := sets.stray(); reason != "" {
				b.Fatal(reason)
			}
		}
	})
	b.Run("tables", func(b *testing.B) {
		for b.Loop() {
			rules.look()
		}
	})
}

// allSets are all sets of both families.
func allSets() []Set {
	p := firewall.Render(firewalltest.State(), firewall.Host{})
	return append(Render(p.V4).Sets, Render(p.V6).Sets...)
}
