//go:build kernel

package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// save returns everything that both variants and nft hold, with counters, and the sets.
func (l *lab) save() string {
	l.T.Helper()
	var all strings.Builder
	for _, argv := range [][]string{
		{"iptables" + l.Variant + "-save", "-c"}, {"ip6tables" + l.Variant + "-save", "-c"}, {"ipset", "save"},
	} {
		out, err := l.Run(l.T.Context(), "", argv...)
		must(l.T, err)
		fmt.Fprintf(&all, "# %s\n%s", strings.Join(argv, " "), out)
	}
	return regexp.MustCompile(`(?m)^# (Generated|Completed).*\n|^# Warning.*\n`).ReplaceAllString(all.String(), "")
}

// foreign fills the tables with what other programs might have there.
func (l *lab) foreign() {
	firewalltest.PolicyDrop(l.Lab)
	firewalltest.Docker20(l.Lab, "-A")
	for _, r := range []string{
		"-A FORWARD -i tun0 -m comment --comment vpn -j ACCEPT",
		"-t nat -N DOCKER",
		"-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
		"-t nat -A POSTROUTING -o tun0 -j MASQUERADE",
		"-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
		"-t mangle -A PREROUTING -i tun0 -j MARK --set-mark 7",
		"-t raw -A PREROUTING -i tun1 -j DROP",
		"-N DOCKER-USER",
		"-A DOCKER-USER -i tun2 -j DROP",
		"-A DOCKER-USER -j RETURN",
		"-I FORWARD -j DOCKER-USER",
	} {
		l.Both(r)
	}
	_, err := l.Run(l.T.Context(), "create theirs hash:ip\nadd theirs 203.0.113.1\n", "ipset", "restore")
	must(l.T, err)
}

// withoutOurs takes our lines out of a saved text: chains, jumps and sets.
func withoutOurs(save string) string {
	var kept []string
	for line := range strings.Lines(save) {
		if !strings.Contains(line, prefix) && !strings.Contains(line, `"`+mark+" ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// emptyTable is a table with neither rule nor chain nor policy: iptables makes them when it is first asked.
var emptyTable = regexp.MustCompile(`(?m)^\*\w+\n(:[A-Z]+ ACCEPT .*\n)*COMMIT\n`)

var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// plain removes what may differ between two states of the same foreign rules: counters of
// built-in chains, and empty tables.
func plain(save string) string {
	return emptyTable.ReplaceAllString(counters.ReplaceAllString(save, "[]"), "")
}

// TestForeignRules: what is not ours is the same before, with and after us.
func TestForeignRules(t *testing.T) {
	removals := map[string]func(*lab){
		"empty state": func(l *lab) { l.sync(state.Snapshot{}) },
		"purge":       func(l *lab) { must(l.T, l.backend.Purge(l.T.Context())) },
		"purge by another program": func(l *lab) {
			var b *Backend
			l.In(func() {
				sets, err := newKernelSets()
				must(l.T, err)
				b = newBackend(l.Run, sets, unlisted)
				l.T.Cleanup(b.Close)
			})
			must(l.T, b.Purge(l.T.Context()))
		},
	}
	for _, variant := range firewalltest.Variants {
		for name, remove := range removals {
			t.Run(variant[1:]+"/"+name, func(t *testing.T) {
				l := newLab(t, variant)
				l.foreign()
				before := l.save()
				s := firewalltest.State()
				s.Forwarding = state.Forwarding{V4: true, V6: true}
				l.sync(s)
				if diff := cmp.Diff(plain(before), plain(withoutOurs(l.save()))); diff != "" {
					t.Errorf("with us (-before +with):\n%s", diff)
				}
				remove(l)
				if diff := cmp.Diff(plain(before), plain(l.save())); diff != "" {
					t.Errorf("after us (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// TestNothingLeft: on a host without Docker nothing at all stays behind.
func TestNothingLeft(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			before := l.save()
			for range 10 { // sets are referred to until the kernel's worker has destroyed the rules
				l.sync(firewalltest.State())
				l.sync(state.Snapshot{})
			}
			if diff := cmp.Diff(plain(before), plain(l.save())); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
		})
	}
}

// TestSecondSyncWritesNothing: neither a program that writes is run, nor is a counter set back.
func TestSecondSyncWritesNothing(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			l.foreign()
			l.sync(firewalltest.State())
			l.Check(t, firewalltest.Packets[:6], func(firewalltest.Packet) bool { return true })
			before := packetCounts(l.save())
			l.wantIdleSync(t)
			after := packetCounts(l.save())
			counted := false
			for rule, n := range before {
				counted = counted || strings.Contains(rule, "-A DRAWBRIDGE-") && n > 0
				if after[rule] < n {
					t.Errorf("the counter fell from %d to %d: %s", n, after[rule], rule)
				}
			}
			if !counted {
				t.Error("no rule of ours counted a packet")
			}
		})
	}
}

// wantIdleSync runs a Sync that must not change rules.
func (l *lab) wantIdleSync(t *testing.T) {
	t.Helper()
	inner := l.backend.run
	l.backend.run = func(ctx context.Context, stdin string, argv ...string) (string, error) {
		if strings.HasSuffix(argv[0], "-restore") {
			t.Errorf("a sync with nothing to do wrote:\n%s", stdin)
		}
		return inner(ctx, stdin, argv...)
	}
	defer func() { l.backend.run = inner }()
	l.sync(firewalltest.State())
}

var countedRule = regexp.MustCompile(`(?m)^\[(\d+):\d+\] (-A .*)$`)

// packetCounts returns the firewalltest.Packets that each rule counted.
func packetCounts(save string) map[string]int {
	out := map[string]int{}
	for i, family := range strings.SplitN(save, "# ip6tables", 2) {
		for _, m := range countedRule.FindAllStringSubmatch(family, -1) {
			n, _ := strconv.Atoi(m[1])
			out[fmt.Sprint(i, " ", m[2])] += n
		}
	}
	return out
}

// TestRepair damages the rules in many ways; one Sync mends them.
func TestRepair(t *testing.T) {
	damages := map[string][]string{
		"filter flushed":        {"-F"},
		"nat flushed":           {"-t nat -F"},
		"mangle flushed":        {"-t mangle -F"},
		"flushed and deleted":   {"-t mangle -F", "-t mangle -X", "-F", "-X", "-t nat -F", "-t nat -X"},
		"rule taken out":        {"-t mangle -D DRAWBRIDGE-FORWARD 2"},
		"foreign rule in ours":  {"-t mangle -I DRAWBRIDGE-FORWARD -j RETURN"},
		"foreign rule ahead":    {"-t mangle -I FORWARD -i tun0 -j ACCEPT"},
		"Docker's rules on top": {"-I FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-D FORWARD -j DOCKER-USER", "-I FORWARD -j DOCKER-USER"},
		"stale chain and set":   {"-t nat -N DRAWBRIDGE-tcp-0-1", "-t nat -A DRAWBRIDGE-tcp-0-1 -j RETURN"},
	}
	for _, variant := range firewalltest.Variants {
		for name, commands := range damages {
			t.Run(variant[1:]+"/"+name, func(t *testing.T) {
				l := newLab(t, variant)
				l.sync(firewalltest.State())
				for _, c := range commands {
					l.Both(c)
				}
				l.sync(firewalltest.State())
				l.wantIdleSync(t)
				l.Check(t, firewalltest.Packets, func(p firewalltest.Packet) bool { return p.Name != "to docker0" })
			})
		}
	}
}

// TestSets: what the kernel lists is what was asked for, and ipset prints it as we do.
func TestSets(t *testing.T) {
	l := newLab(t, "-nft")
	var logged bytes.Buffer
	stderr := log.Writer()
	log.SetOutput(&logged) // the netlink library logs what it does not know
	defer log.SetOutput(stderr)
	k := l.backend.sets.(*kernelSets)
	for _, s := range []Set{
		{Name: "t-nets4", Type: hashNetIface, Elements: []Element{
			{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Iface: "br-one"}, {Prefix: netip.MustParsePrefix("10.2.0.2/32"), Iface: "br-two"},
		}},
		{Name: "t-nets6", Type: hashNetIface, V6: true, Elements: []Element{
			{Prefix: netip.MustParsePrefix("fd00:1::/64"), Iface: "br-one"}, {Prefix: netip.MustParsePrefix("fd00:2::2/128"), Iface: "br-two"},
		}},
		{Name: "t-net4", Type: hashNet, Elements: []Element{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}, {Prefix: netip.MustParsePrefix("10.1.0.0/32")}}},
		{Name: "t-net6", Type: hashNet, V6: true, Elements: []Element{{Prefix: netip.MustParsePrefix("fd00::/8")}}},
		{Name: "t-port4", Type: hashIPPort, Elements: []Element{
			{Prefix: netip.MustParsePrefix("10.1.0.2/32"), Proto: state.TCP, Port: 80},
			{Prefix: netip.MustParsePrefix("10.1.0.2/32"), Proto: state.UDP, Port: 80},
			{Prefix: netip.MustParsePrefix("10.1.0.2/32"), Proto: state.SCTP, Port: 80},
		}},
		{Name: "t-port6", Type: hashIPPort, V6: true, Elements: []Element{{Prefix: netip.MustParsePrefix("fd00:1::2/128"), Proto: state.SCTP, Port: 65535}}},
	} {
		t.Run(s.Name, func(t *testing.T) {
			_, exists, err := k.list(s)
			if exists || err != nil {
				t.Fatalf("before: exists %v, error %v", exists, err)
			}
			must(t, k.destroy(s.Name)) // a set that is not there
			s = sorted(s)
			for range 2 {
				difference, err := k.prepare(s)
				must(t, err)
				if len(difference.surplus) > 0 {
					t.Errorf("too much: %v", difference.surplus)
				}
				must(t, k.add(difference.of(difference.lacks)))
			}
			must(t, k.add(s))
			got, _, err := k.list(s)
			must(t, err)
			if diff := cmp.Diff(s.Elements, got, cmp.Comparer(func(a, b Element) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			printed, err := l.Run(t.Context(), "", "ipset", "save", s.Name)
			must(t, err)
			for _, e := range s.Elements {
				if !strings.Contains(printed, "add "+s.Name+" "+e.String()+"\n") {
					t.Errorf("no %s in\n%s", e, printed)
				}
			}
			s.Elements = s.Elements[:1]
			difference, err := k.prepare(s)
			must(t, err)
			for range 2 {
				must(t, k.remove(difference.of(difference.surplus)))
			}
			got, _, err = k.list(s)
			must(t, err)
			if len(got) != 1 || got[0] != s.Elements[0] {
				t.Errorf("after the removal: %v", got)
			}
			wrong := s
			wrong.Type = "hash:ip"
			if _, err := k.prepare(wrong); err == nil || !strings.Contains(err.Error(), "ipset destroy "+s.Name) {
				t.Errorf("a set of another type: %v", err)
			}
			must(t, k.destroy(s.Name))
		})
	}
	if logged.Len() > 0 {
		t.Errorf("logged: %s", logged.String())
	}
}

// manyPorts is the lab's state with n ports on one more endpoint.
func manyPorts(n int) state.Snapshot {
	s := firewalltest.State()
	for i := range n {
		s.Endpoints[2].Ports = append(s.Endpoints[2].Ports, state.Port{
			Proto: state.TCP, HostPort: uint16(20000 + i), ContainerPort: uint16(20000 + i),
		})
	}
	return s
}

func TestManyPorts(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			for _, n := range []int{0, 2000, 2001, 2001, 10000, 0} {
				began := time.Now()
				l.sync(manyPorts(n))
				t.Logf("%s: %5d ports: sync took %v", variant, n, time.Since(began).Round(time.Millisecond))
			}
			s := manyPorts(2000)
			s.Endpoints[2].Ports[1234+2].ContainerPort = 80
			l.sync(s)
			l.Check(t, []firewalltest.Packet{{Name: "one of many", From: "out", Proto: "tcp", To: firewalltest.At(firewalltest.Ext0, "21234"), Answers: "c2", Sees: firewalltest.Out}},
				func(firewalltest.Packet) bool { return true })
		})
	}
}

// TestManyDockerBridges has more of them than a set could take for one prefix.
func TestManyDockerBridges(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			var b strings.Builder
			b.WriteString("*filter\n:DOCKER-ISOLATION-STAGE-2 - [0:0]\n")
			for i := range 200 {
				fmt.Fprintf(&b, "-A DOCKER-ISOLATION-STAGE-2 -o br-%d -j DROP\n", i)
			}
			b.WriteString("-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\nCOMMIT\n")
			_, err := l.Run(t.Context(), b.String(), "iptables"+variant+"-restore", "--noflush")
			must(t, err)
			l.sync(firewalltest.State())
			l.Check(t, firewalltest.Packets, func(firewalltest.Packet) bool { return true })
		})
	}
}

// TestNew: it starts no program, and Close gives back all it opened.
func TestNew(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	r, w, err := os.Pipe() // the first makes the runtime open files of its own
	must(t, err)
	must(t, errors.Join(r.Close(), w.Close()))
	before := descriptors()
	b, err := New(func(_ context.Context, _ string, argv ...string) (string, error) {
		t.Errorf("started %q", argv)
		return "", nil
	}, unlisted, untold)
	must(t, err)
	if got := b.Variant(); got != "iptables" {
		t.Errorf("variant %s", got)
	}
	const opened = 4 // one to edit sets, one to ask for them, and one for each family's legacy tables
	if got := descriptors(); got != before+opened {
		t.Errorf("%d files are open, %d were", got, before)
	}
	b.Close()
	if got := descriptors(); got != before {
		t.Errorf("%d files are open after Close, %d were", got, before)
	}
}

// TestDetect: the variant is the one that DOCKER-USER is in, and looking changes nothing.
func TestDetect(t *testing.T) {
	for _, test := range []struct{ in, want string }{{"-nft", "-nft"}, {"-legacy", "-legacy"}, {"", ""}} {
		t.Run("DOCKER-USER in "+test.in, func(t *testing.T) {
			l := newLab(t, "-legacy")
			if test.in != "" {
				_, err := l.Run(t.Context(), "", "iptables"+test.in, "-N", "DOCKER-USER")
				must(t, err)
			}
			// Without counters: the namespace sends a packet of its own now and then. Tables stay in the comparison,
			// since looking at one by name would make it.
			before := counters.ReplaceAllString(l.save(), "")
			got, err := l.backend.detect(t.Context())
			must(t, err)
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if diff := cmp.Diff(before, counters.ReplaceAllString(l.save(), "")); diff != "" {
				t.Errorf("looking changed the host (-before +after):\n%s", diff)
			}
		})
	}
}
