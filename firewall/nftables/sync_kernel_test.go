//go:build kernel

package nftables

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

func everything(firewalltest.Packet) bool { return true }

// bridgesUnnamed leaves out the row that needs Docker's rules.
func bridgesUnnamed(p firewalltest.Packet) bool { return p.Name != "to docker0" }

// save returns everything that nft, legacy iptables and ipset hold.
func (l *lab) save() string {
	l.T.Helper()
	all := l.nft("list", "ruleset")
	for _, argv := range [][]string{{"iptables-legacy-save"}, {"ip6tables-legacy-save"}, {"ipset", "save"}} {
		out, err := l.Run(l.T.Context(), "", argv...)
		must(l.T, err)
		all += fmt.Sprintf("# %s\n%s", strings.Join(argv, " "), out)
	}
	return all
}

var (
	volatile = regexp.MustCompile(`(?m)packets \d+ bytes \d+|\[\d+:\d+\]|^# (Generated|Completed|Warning).*\n`)
	// emptyTable is one that iptables made when it was first asked.
	emptyTable  = regexp.MustCompile(`(?m)^\*\w+\n(:[A-Z]+ ACCEPT .*\n)*COMMIT\n`)
	emptyChain  = regexp.MustCompile(`\tchain [A-Z]+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?`)
	emptyNFT    = regexp.MustCompile(`table ip6? (nat|filter|mangle) \{\n\}\n`)
	ourTable    = regexp.MustCompile(`(?ms)^table inet drawbridge \{\n.*?^\}\n`)
	ourChains   = regexp.MustCompile(`(?ms)^\tchain DRAWBRIDGE-[A-Z]+ \{\n.*?^\t\}\n\n?`)
	ourJumps    = regexp.MustCompile(`(?m)^.*(comment "drawbridge |jump DRAWBRIDGE|-j DRAWBRIDGE|:DRAWBRIDGE|# xt_comment|-A DRAWBRIDGE).*\n`)
	betweenBits = regexp.MustCompile(`\n\n+`)
)

// plain removes what may differ between two states of the same foreign rules.
func plain(save string) string {
	for _, r := range []*regexp.Regexp{volatile, emptyTable, emptyChain, emptyNFT} {
		save = r.ReplaceAllString(save, "")
	}
	return betweenBits.ReplaceAllString(save, "\n")
}

// withoutOurs takes our table, chains and jumps out of a saved text.
func withoutOurs(save string) string {
	for _, r := range []*regexp.Regexp{ourTable, ourChains, ourJumps} {
		save = r.ReplaceAllString(save, "")
	}
	return save
}

// foreign fills the host with what other programs might have there.
func (l *lab) foreign() {
	firewalltest.PolicyDrop(l.Lab)
	firewalltest.Docker20(l.Lab, "-A")
	for _, r := range []string{
		"-N DOCKER-USER", "-A DOCKER-USER -i tun2 -j DROP", "-I FORWARD -j DOCKER-USER",
		"-A FORWARD -i tun0 -j ACCEPT", "-t nat -A POSTROUTING -o tun0 -j MASQUERADE", "-t mangle -A PREROUTING -i tun0 -j MARK --set-mark 7",
	} {
		l.Both(r)
	}
	l.load(`table inet theirs {
	set s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
	chain forward { type filter hook forward priority filter + 10; policy accept; ip saddr @s tcp dport 7 counter drop; }
}
table ip drawbridge {
	chain input { type filter hook input priority 0; }
}
table bridge drawbridge {
	chain input { type filter hook input priority 0; }
}
`)
}

// load has nft load a text.
func (l *lab) load(text string) {
	l.T.Helper()
	file := filepath.Join(l.T.TempDir(), "rules")
	must(l.T, os.WriteFile(file, []byte(text), 0o644))
	l.nft("-f", file)
}

// TestForeignRules: what is not ours is the same before, with and after us.
func TestForeignRules(t *testing.T) {
	removals := map[string]func(*lab){
		"empty state": func(l *lab) { l.sync(state.Snapshot{}) },
		"purge":       func(l *lab) { must(l.T, l.backend.Purge(l.T.Context())) },
		"purge by another program": func(l *lab) {
			must(l.T, withBackend(l.Lab).backend.Purge(l.T.Context()))
		},
	}
	for _, variant := range firewalltest.Variants {
		for name, remove := range removals {
			t.Run(variant[1:]+"/"+name, func(t *testing.T) {
				l := newLab(t, variant)
				l.Latch = nil // is not the backend's to remove
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
	for _, variant := range append(firewalltest.Variants, "") {
		t.Run("iptables"+variant, func(t *testing.T) {
			l := newLab(t, variant)
			before := l.save()
			for range 5 {
				l.sync(firewalltest.State())
				l.sync(state.Snapshot{})
			}
			if diff := cmp.Diff(plain(before), plain(l.save())); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
			if l.backend.Leftover(t.Context()) {
				t.Error("something is said to be left")
			}
		})
	}
}

// counting is the kernel with its commits counted; before runs ahead of the next.
type counting struct {
	*kernel
	commits int
	edits   []edit
	before  func()
}

func (c *counting) commit(generation uint32, edits []edit) (time.Duration, error) {
	c.commits++
	c.edits = edits
	if before := c.before; before != nil {
		c.before = nil
		before()
	}
	return c.kernel.commit(generation, edits)
}

func (l *lab) count() *counting {
	c := &counting{kernel: l.backend.kernel.(*kernel)}
	l.backend.kernel = c
	return c
}

// wantIdle runs a Sync that must not write; quiet that must not start a program either.
func (l *lab) wantIdle(t *testing.T, s state.Snapshot, quiet bool) {
	t.Helper()
	c := l.count()
	inner := l.run
	l.run = func(ctx context.Context, in string, argv ...string) (string, error) {
		if quiet || strings.HasSuffix(argv[0], "-restore") {
			t.Errorf("a sync with nothing to do ran %q: %s", argv, in)
		}
		return inner(ctx, in, argv...)
	}
	l.sync(s)
	l.run, l.backend.kernel = inner, c.kernel
	if c.commits > 0 {
		t.Errorf("a sync with nothing to do made %v", c.edits)
	}
}

// TestSecondSyncWritesNothing: nothing is written, no counter is set back, and without anybody's change no program is started.
func TestSecondSyncWritesNothing(t *testing.T) {
	l := newLab(t, "-nft")
	l.foreign()
	s := firewalltest.State()
	l.sync(s)
	l.wantIdle(t, s, false) // reads once more: iptables-nft made a generation of its own
	l.wantIdle(t, s, true)
	l.Check(t, firewalltest.Packets, func(p firewalltest.Packet) bool { return strings.HasPrefix(p.Name, "direct routing") })
	counted := regexp.MustCompile(`counter packets [1-9]\d* bytes \d+ drop`)
	before := counted.FindAllString(l.nft("list", "table", "inet", "drawbridge"), -1)
	s = manyPorts(3)
	l.run = func(_ context.Context, _ string, argv ...string) (string, error) {
		t.Errorf("a change of ports ran %q", argv)
		return "", nil
	}
	l.sync(s)
	after := counted.FindAllString(l.nft("list", "table", "inet", "drawbridge"), -1)
	if len(before) == 0 || !cmp.Equal(before, after) {
		t.Errorf("counters %q became %q", before, after)
	}
	if fresh := withBackend(l.Lab); fresh != nil {
		fresh.wantIdle(t, s, false) // a process without memory
	}
}

var elementLists = regexp.MustCompile(`elements = \{[^}]*\}`)

// skeleton returns the table as nft lists it, without elements, whose order is not ours, and counters.
func (l *lab) skeleton() string {
	l.T.Helper()
	return elementLists.ReplaceAllString(volatile.ReplaceAllString(l.nft("list", "table", "inet", "drawbridge"), ""), "")
}

// TestRepair damages the rules in many ways; one Sync mends them.
func TestRepair(t *testing.T) {
	damages := map[string]string{
		"ruleset flushed":         "flush ruleset",
		"table deleted":           "delete table inet drawbridge",
		"table flushed":           "flush table inet drawbridge",
		"chain flushed":           "flush chain inet drawbridge forward4",
		"rule ahead":              "insert rule inet drawbridge forward4 accept",
		"rule behind":             "add rule inet drawbridge forward accept",
		"rule of ours twice":      "add rule inet drawbridge forward meta nfproto ipv4 jump forward4",
		"set flushed":             "flush set inet drawbridge nets4",
		"map flushed":             "flush map inet drawbridge published_any6",
		"element gone":            `delete element inet drawbridge nets6 { fd00:1::/64 . "br-one" }`,
		"element added":           "add element inet drawbridge subnets4 { 192.0.2.0/24 }",
		"port elsewhere":          "delete element inet drawbridge published_any4 { tcp . 8080 }\nadd element inet drawbridge published_any4 { tcp . 8080 : 10.2.0.2 . 80 }",
		"policy":                  "add chain inet drawbridge forward { policy drop; }",
		"dormant":                 "add table inet drawbridge { flags dormant; }",
		"base chain elsewhere":    "delete chain inet drawbridge srcnat\nadd chain inet drawbridge srcnat { type nat hook postrouting priority 50; }",
		"set of another type":     "flush chain inet drawbridge forward4\nflush chain inet drawbridge sources4\nflush chain inet drawbridge output\ndelete set inet drawbridge unprotected4\nadd set inet drawbridge unprotected4 { type ipv6_addr; }",
		"stale chain and set":     "add chain inet drawbridge old4 { type filter hook forward priority 5; policy drop; }\nadd set inet drawbridge older { type mark; }\nadd rule inet drawbridge old4 meta mark @older accept",
		"iptables filter flushed": "flush table ip filter",
		"iptables chain flushed":  "flush chain ip6 filter DRAWBRIDGE-FORWARD",
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "-nft")
			firewalltest.PolicyDrop(l.Lab)
			l.sync(firewalltest.State())
			want := l.skeleton()
			l.load(damage)
			if name == "ruleset flushed" {
				firewalltest.PolicyDrop(l.Lab)
			}
			l.sync(firewalltest.State())
			if diff := cmp.Diff(want, l.skeleton()); diff != "" {
				t.Errorf("mended (-before +after):\n%s", diff)
			}
			withBackend(l.Lab).wantIdle(t, firewalltest.State(), false)
			l.Check(t, firewalltest.Packets[:20], bridgesUnnamed)
		})
	}
}

// TestRace changes rules between our reading and our writing.
func TestRace(t *testing.T) {
	l := newLab(t, "-nft")
	l.sync(firewalltest.State())
	c := l.count()
	c.before = func() { l.nft("delete", "table", "inet", "drawbridge") }
	l.sync(manyPorts(2))
	if c.commits != 2 {
		t.Errorf("%d commits", c.commits)
	}
	l.Check(t, firewalltest.Packets, bridgesUnnamed)
}

// TestForeignTable: the name of our table may be taken.
func TestForeignTable(t *testing.T) {
	l := newLab(t, "-nft")
	l.nft("add", "table", "inet", "drawbridge")
	err := firewall.NewPlane(l.backend, firewall.Settings{}).Apply(t.Context(), firewalltest.State())
	if err == nil || !strings.Contains(err.Error(), "nft delete table inet drawbridge") {
		t.Errorf("got %v", err)
	}
	must(t, l.backend.Purge(t.Context()))
	if l.backend.Leftover(t.Context()) || !strings.Contains(l.nft("list", "tables"), "table inet drawbridge") {
		t.Error("somebody's table was taken for ours")
	}
	l.nft("delete", "table", "inet", "drawbridge")
	l.sync(firewalltest.State())
}

// TestUsable: asking changes nothing.
func TestUsable(t *testing.T) {
	l := newLab(t, "-nft")
	before, err := l.backend.kernel.generation()
	must(t, err)
	must(t, l.backend.Usable())
	after, err := l.backend.kernel.generation()
	must(t, err)
	if before != after {
		t.Errorf("generation %d became %d", before, after)
	}
	if got := l.nft("list", "ruleset"); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

// TestUsableAfterOlder: the table of an older program, whose chains and sets had other places and types, keeps nobody from writing today's.
func TestUsableAfterOlder(t *testing.T) {
	l := newLab(t, "-nft")
	l.sync(firewalltest.State())
	want := l.skeleton()
	for name, older := range map[string]string{
		"chain": "delete chain inet drawbridge forward\nadd chain inet drawbridge forward { type filter hook forward priority -1; }",
		"set":   "flush chain inet drawbridge forward4\nflush chain inet drawbridge sources4\nflush chain inet drawbridge output\ndelete set inet drawbridge unprotected4\nadd set inet drawbridge unprotected4 { type ipv6_addr; }",
	} {
		l.load(older)
		after := withBackend(l.Lab)
		if err := after.backend.Usable(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		after.sync(firewalltest.State())
		if diff := cmp.Diff(want, l.skeleton()); diff != "" {
			t.Errorf("%s: made anew (-before +after):\n%s", name, diff)
		}
	}
}

// TestText: what Rules prints is nft's language, and loaded by nft gives what the kernel got from us.
func TestText(t *testing.T) {
	s := manyPorts(20)
	s.Forwarding = state.Forwarding{V4: true, V6: true}
	policies := map[string]firewall.Policy{
		"all there is": sample(),
		"lab":          firewall.Render(s, firewall.Host{DockerBridges: []string{"docker0", "web-0"}, BridgeNetfilter: true}),
	}
	for name, p := range policies {
		t.Run(name, func(t *testing.T) {
			l := withBackend(firewalltest.NewBare(t, ""))
			must(t, l.backend.Sync(t.Context(), always(p)))
			want := l.nft("list", "ruleset")
			other := withBackend(firewalltest.NewBare(t, ""))
			other.backend.alone.Store(true)
			other.load(other.backend.Rules(p))
			if diff := cmp.Diff(want, other.nft("list", "ruleset")); diff != "" {
				t.Errorf("(-ours +nft's):\n%s", diff)
			}
		})
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

// apart gives each port another number in the container, so that no range can hold them.
func apartPorts(s state.Snapshot) state.Snapshot {
	for i := range s.Endpoints[2].Ports {
		if p := &s.Endpoints[2].Ports[i]; p.HostPort >= 20000 {
			p.ContainerPort = p.HostPort + 10000
		}
	}
	return s
}

// moved returns the state with one of the many ports leading elsewhere.
func moved(s state.Snapshot, i int, to uint16) state.Snapshot {
	s.Endpoints = slices.Clone(s.Endpoints)
	e := &s.Endpoints[2]
	e.Ports = slices.Clone(e.Ports)
	e.Ports[i].ContainerPort = to
	return s
}

func TestManyPorts(t *testing.T) {
	kinds := map[string]func(state.Snapshot) state.Snapshot{
		"ranges": func(s state.Snapshot) state.Snapshot { return s }, "elements": apartPorts,
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "-nft")
			for _, n := range []int{0, 0, 2000, 2001, 2001, 10000, 10000, 9999, 10000} {
				began := time.Now()
				l.sync(kind(manyPorts(n)))
				t.Logf("%5d ports: sync took %v", n, time.Since(began).Round(10*time.Microsecond))
			}
			s := kind(manyPorts(10000))
			l.nft("flush", "ruleset")
			began := time.Now()
			l.sync(s)
			t.Logf("restored in %v", time.Since(began).Round(10*time.Microsecond))
			s = moved(s, 1234+2, 80)
			began = time.Now()
			l.sync(s)
			t.Logf("one moved, iptables read: %v", time.Since(began).Round(10*time.Microsecond))
			s = moved(s, 1233+2, 81)
			began = time.Now()
			l.sync(s)
			t.Logf("one moved: %v", time.Since(began).Round(10*time.Microsecond))
			ext0, out := firewalltest.Ext0, firewalltest.Out
			l.Check(t, []firewalltest.Packet{
				{Name: "one of many", From: "out", Proto: "tcp", To: firewalltest.At(ext0, "21234"), Answers: "c2", Sees: out},
				{Name: "another", From: "out", Proto: "tcp", To: firewalltest.At(ext0, "21233"), Answers: "c2", Sees: out},
			}, everything)
			l.sync(firewalltest.State())
			fresh := withBackend(l.Lab)
			fresh.wantIdle(t, firewalltest.State(), false)
		})
	}
}

// TestRange: a range of published ports is open, its neighbours are not.
func TestRange(t *testing.T) {
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint("on one address ", on), func(t *testing.T) {
			l := newLab(t, "-nft")
			s := firewalltest.State()
			for port := uint16(6990); port <= 7000; port++ {
				p := state.Port{Proto: state.TCP, HostPort: port, ContainerPort: port}
				if on {
					s.Endpoints[2].Ports = append(s.Endpoints[2].Ports, at(p, "192.0.2.1"), at(p, "2001:db8:1::1"))
					continue
				}
				s.Endpoints[2].Ports = append(s.Endpoints[2].Ports, p)
			}
			l.sync(s)
			if got := l.nft("list", "table", "inet", "drawbridge"); !strings.Contains(got, "tcp . 6990-7000") {
				t.Errorf("no range in\n%s", got)
			}
			ext0, ext1, out, c2 := firewalltest.Ext0, firewalltest.Ext1, firewalltest.Out, firewalltest.C2
			rows := []firewalltest.Packet{
				{Name: "last of a range", From: "out", Proto: "tcp", To: firewalltest.At(ext0, "7000"), Answers: "c2", Sees: out},
				{Name: "direct routing, in the range", From: "out", Proto: "tcp", To: firewalltest.At(c2, "7000")},
				{Name: "by udp", From: "out", Proto: "udp", To: firewalltest.At(ext0, "7000")},
				{Name: "from another network", From: "c1a", Proto: "tcp", To: firewalltest.At(ext0, "7000"), Answers: "c2", Sees: firewalltest.C1a},
				{Name: "hairpin", From: "c2", Proto: "tcp", To: firewalltest.At(ext0, "7000"), Answers: "c2", Sees: [2]string{"10.2.0.1", "fd00:2::1"}},
			}
			if on {
				rows = append(rows, firewalltest.Packet{Name: "by another address", From: "out", Proto: "tcp", To: firewalltest.At(ext1, "7000")})
			}
			l.Check(t, rows, everything)
		})
	}
}

func at(p state.Port, addr string) state.Port {
	p.HostIP = address(addr)
	return p
}

// TestMark: what others do with marks does not matter, and nobody sees ours behind the forward hook.
func TestMark(t *testing.T) {
	worlds := map[string]func(*lab){
		"mark set in mangle FORWARD": func(l *lab) { l.Both("-t mangle -A FORWARD -j MARK --set-mark 1") },
		"mark set in PREROUTING":     func(l *lab) { l.Both("-t mangle -A PREROUTING -j MARK --set-mark 0xffffffff") },
		"or-mark in DOCKER-USER":     func(l *lab) { l.Both("-A DOCKER-USER -j MARK --or-mark 1") },
		"bit seen on the way out": func(l *lab) {
			l.Both(fmt.Sprintf("-t mangle -A POSTROUTING -m mark --mark %#x/%#x -j DROP", MarkPermitted, MarkPermitted))
		},
	}
	for name, change := range worlds {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, "-nft")
			firewalltest.PolicyDrop(l.Lab)
			l.sync(firewalltest.State())
			change(l)
			l.sync(firewalltest.State())
			rows := append(firewalltest.Packets[:0:0], firewalltest.Packets...)
			// The bit of others opens nothing of others.
			rows = append(rows, firewalltest.Packet{Name: "through the host", From: "far", Proto: "tcp", To: firewalltest.At(firewalltest.Out, "80")})
			l.Check(t, rows, bridgesUnnamed)
		})
	}
}

// TestChangeOfBackend: the rules of one are replaced by the other's, and what was open stays open all the while.
func TestChangeOfBackend(t *testing.T) {
	for _, variant := range firewalltest.Variants {
		t.Run(variant[1:], func(t *testing.T) {
			l := newLab(t, variant)
			firewalltest.PolicyDrop(l.Lab)
			var other *iptables.Backend
			l.In(func() {
				var err error
				other, err = iptables.NewVariant(l.Run, unlisted, variant)
				must(t, err)
				t.Cleanup(other.Close)
			})
			l.Sync(other, firewalltest.State())
			// As iptables prints it: nft's order of chains is that in which they were made.
			saved := func() string {
				text := l.nft("list", "tables", "inet")
				for _, program := range []string{"iptables", "ip6tables"} {
					out, err := l.Run(t.Context(), "", program+variant+"-save")
					must(t, err)
					text += out
				}
				return plain(text)
			}
			onlyIPTables := saved()
			stop := l.keepKnocking(t)
			defer stop()
			for range 2 {
				l.sync(firewalltest.State())
				text := l.save()
				if strings.Contains(text, "DRAWBRIDGE-DNAT") || strings.Contains(text, "create DRAWBRIDGE") || !strings.Contains(text, "table inet drawbridge") {
					t.Errorf("nftables has taken over:\n%s", text)
				}
				l.Check(t, firewalltest.Packets, bridgesUnnamed)
				l.Sync(other, firewalltest.State())
				must(t, l.backend.RemoveTable(t.Context()))
				if diff := cmp.Diff(onlyIPTables, saved()); diff != "" {
					t.Errorf("iptables has taken over:\n%s", diff)
				}
				l.Check(t, firewalltest.Packets, bridgesUnnamed)
			}
		})
	}
}

// keepKnocking sends what must not pass until it is stopped.
func (l *lab) keepKnocking(t *testing.T) (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			default:
				l.Check(t, firewalltest.Packets, func(p firewalltest.Packet) bool { return p.Control && bridgesUnnamed(p) })
			}
		}
	}()
	return func() { close(stopped); <-done }
}

// TestKernelTakesAll goes from policy to policy, as TestDifference does with a fake. What the kernel then has, and what is
// known of it, is what was wanted.
func TestKernelTakesAll(t *testing.T) {
	l := withBackend(firewalltest.NewBare(t, ""))
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPolicy(rt)
		if err := l.backend.Sync(t.Context(), always(p)); err != nil {
			rt.Fatal(err)
		}
		have, err := l.backend.kernel.read()
		if err != nil {
			rt.Fatal(err)
		}
		if edits := difference(have, Render(p, true)); len(edits) > 0 {
			rt.Fatalf("still to do: %v", edits)
		}
		if gen, err := l.backend.kernel.generation(); err != nil || gen != l.backend.gen {
			rt.Fatalf("generation %d, error %v; known is %d", gen, err, l.backend.gen)
		}
	})
}

// TestDockerTable: bridges that Docker's nftables rules name are Docker's.
func TestDockerTable(t *testing.T) {
	l := newLab(t, "-nft")
	if on, err := l.backend.Docker(); on || err != nil {
		t.Errorf("Docker on a bare host: %v, %v", on, err)
	}
	l.load(`table ip docker-bridges {
	map filter-forward-in-jumps { type ifname : verdict; elements = { "docker0" : jump filter-forward-in__docker0 } }
	chain filter-forward-in__docker0 { }
}
`)
	if on, err := l.backend.Docker(); !on || err != nil {
		t.Errorf("Docker's table: %v, %v", on, err)
	}
	l.sync(firewalltest.State())
	l.Check(t, firewalltest.Packets, everything)
}
