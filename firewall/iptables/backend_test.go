package iptables

import (
	stdcmp "cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

// fakeHost is both families' iptables and ipset, and a journal of what was done.
type fakeHost struct {
	mu      sync.Mutex // both families are written at once
	v4, v6  model
	sets    map[string][]Element
	journal []string
	// generation is that of nf_tables, to which legacy rules do not count.
	generation uint32
	legacy     bool
	// failures are returned, and used up, by the step that they are named for.
	failures map[string][]error
}

func newFakeHost() *fakeHost {
	return &fakeHost{v4: model{tables: dump{}}, v6: model{tables: dump{}}, sets: map[string][]Element{}, failures: map[string][]error{}}
}

// backend has all variants installed, and has chosen one.
func (h *fakeHost) backend() *Backend {
	b := newBackend(h.run, h, unlisted)
	b.lookPath = programs("iptables-save", "iptables-nft-save", "iptables-legacy-save")
	b.host.BridgeSysctls = ""
	b.generation = func() (uint32, error) { return h.generation, nil }
	variant := "-nft"
	b.variant.Store(&variant)
	return b
}

// programs is a lookPath that finds just these.
func programs(names ...string) func(string) (string, error) {
	return func(name string) (string, error) {
		if slices.Contains(names, name) {
			return "/usr/sbin/" + name, nil
		}
		return "", exec.ErrNotFound
	}
}

// do notes a step and returns its failure.
func (h *fakeHost) do(step string) error {
	h.journal = append(h.journal, step)
	if rest := h.failures[step]; len(rest) > 0 {
		h.failures[step] = rest[1:]
		return rest[0]
	}
	return nil
}

func (h *fakeHost) run(_ context.Context, stdin string, argv ...string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.do(strings.Join(argv, " ")); err != nil {
		return "", err
	}
	m := &h.v4
	if strings.HasPrefix(argv[0], "ip6") {
		m = &h.v6
	}
	if slices.Contains(argv, "--test") {
		return "", nil
	}
	if strings.HasSuffix(argv[0], "-restore") {
		if !h.legacy {
			h.generation += uint32(strings.Count(stdin, "COMMIT\n"))
		}
		return "", m.restore(stdin)
	}
	var b strings.Builder
	for name, table := range m.tables {
		fmt.Fprintf(&b, "*%s\n", name)
		for _, chain := range sortedNames(table) {
			fmt.Fprintf(&b, ":%s - [0:0]\n", chain)
		}
		for _, chain := range sortedNames(table) {
			for _, r := range table[chain] {
				fmt.Fprintf(&b, "-A %s %s\n", chain, r)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String(), nil
}

func (h *fakeHost) look(s Set) (setDifference, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.compare(s), nil
}

func (h *fakeHost) compare(s Set) setDifference {
	have, ok := h.sets[s.Name]
	without := func(all, some []Element) []Element {
		return slices.DeleteFunc(slices.Clone(all), func(e Element) bool { return slices.Contains(some, e) })
	}
	return setDifference{Set: s, absent: !ok, lacks: without(s.Elements, have), surplus: without(have, s.Elements)}
}

func (h *fakeHost) prepare(s Set) (setDifference, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.compare(s)
	if d.absent {
		h.sets[s.Name] = nil
	}
	return d, nil
}

func (h *fakeHost) add(s Set) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range s.Elements {
		if !slices.Contains(h.sets[s.Name], e) {
			if err := h.do("add " + s.Name + " " + e.String()); err != nil {
				return err
			}
			h.sets[s.Name] = append(h.sets[s.Name], e)
		}
	}
	return nil
}

func (h *fakeHost) remove(s Set) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range s.Elements {
		if err := h.do("del " + s.Name + " " + e.String()); err != nil {
			return err
		}
		h.sets[s.Name] = slices.DeleteFunc(h.sets[s.Name], func(o Element) bool { return o == e })
	}
	return nil
}

// destroy refuses, as the kernel does, while a rule refers to the set.
func (h *fakeHost) destroy(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.sets[name]; !ok {
		return nil
	}
	for _, m := range []model{h.v4, h.v6} {
		for _, table := range m.tables {
			for _, rules := range table {
				if slices.ContainsFunc(rules, func(r string) bool { return strings.Contains(r, "--match-set "+name+" ") }) {
					return errors.New("busy")
				}
			}
		}
	}
	delete(h.sets, name)
	return h.do("destroy " + name)
}

func (h *fakeHost) close() { h.journal = append(h.journal, "close") }

// policy is one network with one port per family.
func policy(bridge string) firewall.Policy {
	family := func(v6 bool, prefix, target string) firewall.Family {
		return firewall.Family{
			V6:       v6,
			Networks: []firewall.Network{{Prefix: netip.MustParsePrefix(prefix), Bridge: bridge, Masquerade: true}},
			Ports:    []firewall.Port{{Proto: 6, HostPort: 8080, Target: netip.MustParseAddrPort(target)}},
		}
	}
	return firewall.Policy{V4: family(false, "10.1.0.0/24", "10.1.0.2:80"), V6: family(true, "fd00:1::/64", "[fd00:1::2]:80")}
}

var nothing = firewall.Policy{V6: firewall.Family{V6: true}}

// always wants a policy on any host.
func always(p firewall.Policy) firewall.Wanted {
	return wants(func(firewall.Host) firewall.Policy { return p })
}

func wants(render func(firewall.Host) firewall.Policy) firewall.Wanted {
	return firewall.Wanted{Policy: render}
}

const (
	save4, save6       = "iptables-nft-save", "ip6tables-nft-save"
	restore4, restore6 = "iptables-nft-restore --noflush --wait 5", "ip6tables-nft-restore --noflush --wait 5"
)

// syncTest is what a Sync does on a host where others came before.
type syncTest struct {
	name     string
	before   []firewall.Policy
	failures map[string][]error
	policy   firewall.Policy
	want     []string
	wantErr  error
}

// destroyed is what becomes of the sets of a family.
func destroyed(family string) []string {
	var out []string
	for _, name := range []string{
		"nets", "subnets", "masq", "ports", "open", "routed", "unprotected", "trusted", "apart", "links",
		"inside-on", "inside",
	} {
		out = append(out, "destroy DRAWBRIDGE-"+name+family)
	}
	return append(out, unused(family)...)
}

// unused are those of destroyed that no rule names while nothing is limited.
func unused(family string) []string {
	var out []string
	for _, name := range []string{"comers-on", "sourced-on", "comers", "sourced", "ways", "linked-on"} {
		out = append(out, "destroy DRAWBRIDGE-"+name+family)
	}
	return out
}

func TestSyncOrder(t *testing.T) {
	first := []string{
		save4, save6,
		"add DRAWBRIDGE-nets4 10.1.0.0/24,br-one", "add DRAWBRIDGE-subnets4 10.1.0.0/24", "add DRAWBRIDGE-masq4 10.1.0.0/24",
		restore4, "add DRAWBRIDGE-ports4 10.1.0.2,tcp:80",
		"add DRAWBRIDGE-nets6 fd00:1::/64,br-one", "add DRAWBRIDGE-subnets6 fd00:1::/64", "add DRAWBRIDGE-masq6 fd00:1::/64",
		restore6, "add DRAWBRIDGE-ports6 fd00:1::2,tcp:80",
	}
	idle := []string{save4, save6}
	busy, no := errors.New("Resource temporarily unavailable"), errors.New("no")
	tests := []syncTest{
		{name: "nothing at all", policy: nothing, want: idle},
		{name: "from nothing", policy: policy("br-one"), want: first},
		{name: "nothing to do", before: []firewall.Policy{policy("br-one")}, policy: policy("br-one"), want: idle},
		{
			name: "elements only: old ones go after new ones came", before: []firewall.Policy{policy("br-one")}, policy: policy("br-two"),
			want: []string{
				save4, save6,
				"add DRAWBRIDGE-nets4 10.1.0.0/24,br-two", "del DRAWBRIDGE-nets4 10.1.0.0/24,br-one",
				"add DRAWBRIDGE-nets6 fd00:1::/64,br-two", "del DRAWBRIDGE-nets6 fd00:1::/64,br-one",
			},
		},
		{
			name: "a port goes: its element before its rule", before: []firewall.Policy{policy("br-one")},
			policy: func() firewall.Policy { p := policy("br-one"); p.V4.Ports = nil; return p }(),
			want:   []string{save4, save6, "del DRAWBRIDGE-ports4 10.1.0.2,tcp:80", restore4},
		},
		{
			name: "everything goes: rules before sets", before: []firewall.Policy{policy("br-one")}, policy: nothing,
			want: slices.Concat(idle, []string{restore4}, destroyed("4"), []string{restore6}, destroyed("6")),
		},
		{
			name: "one family cannot be written at first: both are read again, and the way in comes last", policy: policy("br-one"),
			failures: map[string][]error{restore4: {busy}},
			want:     slices.Concat(first[:6], first[7:], []string{save4, save6, restore4, first[6]}),
		},
		{
			name: "one family can never be written: the other is", policy: policy("br-one"),
			failures: map[string][]error{restore4: {busy, busy, no}},
			want:     slices.Concat(first[:6], first[7:], []string{save4, save6, restore4, save4, save6, restore4}),
			wantErr:  no,
		},
		{
			name: "a set cannot grow: no rule of the family is written", policy: policy("br-one"),
			failures: map[string][]error{"add DRAWBRIDGE-nets4 10.1.0.0/24,br-one": {no, no, no}},
			want: slices.Concat(
				[]string{save4, save6, first[2]}, first[7:],
				[]string{save4, save6, first[2], save4, save6, first[2]},
			),
			wantErr: no,
		},
		{
			name: "cannot be read", policy: policy("br-one"), failures: map[string][]error{save6: {no, no, no}},
			want: []string{save4, save6, save4, save6, save4, save6}, wantErr: no,
		},
	}
	v4only := func(p firewall.Policy) firewall.Policy { p.V6 = nothing.V6; return p }
	tests = append(tests, []syncTest{
		{
			name: "IPv6 cannot be read, and nothing is wanted there", policy: v4only(policy("br-one")),
			failures: map[string][]error{save6: {no}}, want: first[:7],
		},
		{
			name: "IPv6 cannot be read, nothing is wanted there, and rules of ours are", before: []firewall.Policy{policy("br-one")},
			policy: v4only(policy("br-one")), failures: map[string][]error{save6: {no, no, no}},
			want: slices.Concat(idle, unused("6"), idle, idle), wantErr: no,
		},
		{
			name: "IPv6 cannot be read at first", before: []firewall.Policy{policy("br-one")},
			policy: v4only(policy("br-one")), failures: map[string][]error{save6: {no}},
			want: slices.Concat(idle, unused("6"), idle, []string{restore6}, slices.DeleteFunc(destroyed("6"), func(s string) bool { return slices.Contains(unused("6"), s) })),
		},
		{
			name: "IPv4 cannot be read, and nothing is wanted there", policy: nothing,
			failures: map[string][]error{save4: {no, no, no}}, want: []string{save4, save6, save4, save6, save4, save6}, wantErr: no,
		},
	}...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHost()
			b := h.backend()
			for _, p := range test.before {
				if err := b.Sync(t.Context(), always(p)); err != nil {
					t.Fatal(err)
				}
			}
			h.journal = nil
			if test.failures != nil {
				h.failures = test.failures
			}
			if err := b.Sync(t.Context(), always(test.policy)); !errors.Is(err, test.wantErr) {
				t.Errorf("error %v, want %v", err, test.wantErr)
			}
			for _, v6 := range []bool{false, true} {
				if diff := cmp.Diff(stepsOf(v6, test.want), stepsOf(v6, h.journal)); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// stepsOf returns those of one family, which has its own order.
func stepsOf(v6 bool, steps []string) []string {
	return slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return ofIPv6.MatchString(s) != v6 })
}

var ofIPv6 = regexp.MustCompile(`^ip6tables|^\w+ DRAWBRIDGE-[a-z-]+6\b`)

// TestSyncReadsAnew: what somebody changed between two attempts is seen by the second.
func TestSyncReadsAnew(t *testing.T) {
	h := newFakeHost()
	b := h.backend()
	raced := false
	b.run = func(ctx context.Context, stdin string, argv ...string) (string, error) {
		if argv[0] == "iptables-nft-restore" && !raced {
			raced = true // dockerd makes its chain: our -N fails
			if err := h.v4.restore("*filter\n-N DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n"); err != nil {
				t.Fatal(err)
			}
		}
		return h.run(ctx, stdin, argv...)
	}
	if err := b.Sync(t.Context(), always(policy("br-one"))); err != nil {
		t.Fatal(err)
	}
	if got := h.v4.tables["filter"]["DOCKER-USER"]; !slices.Equal(got, []string{"-j RETURN"}) {
		t.Errorf("DOCKER-USER has %q", got)
	}
}

// TestSyncStopsWithItsContext: also where a family in which nothing is wanted was being read.
func TestSyncStopsWithItsContext(t *testing.T) {
	for _, last := range []string{save4, save6} {
		t.Run(last, func(t *testing.T) {
			h := newFakeHost()
			b := h.backend()
			ctx, cancel := context.WithCancel(t.Context())
			inner := b.run
			b.run = func(c context.Context, stdin string, argv ...string) (string, error) {
				out, err := inner(c, stdin, argv...)
				if argv[0] == last {
					cancel()
					return "", c.Err()
				}
				return out, err
			}
			if err := b.Sync(ctx, always(nothing)); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if len(h.journal) != 2 { // both are read at the same time
				t.Errorf("steps after the end: %q", h.journal)
			}
		})
	}
}

// TestSyncTellsTheHost: Docker's bridges of both families are told to render.
func TestSyncTellsTheHost(t *testing.T) {
	h := newFakeHost()
	h.v4.tables = parse("*filter\n-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n")
	h.v6.tables = parse("*filter\n-A DOCKER-ISOLATION-STAGE-2 -o br-six -j DROP\n")
	var got []string
	err := h.backend().Sync(t.Context(), wants(func(host firewall.Host) firewall.Policy {
		got = host.DockerBridges
		return nothing
	}))
	if err != nil || !slices.Equal(got, []string{"br-six", "docker0"}) {
		t.Errorf("bridges %q, error %v", got, err)
	}
}

// TestSyncTellsBridgeNetfilter: as its sysctls are there or not, at each Sync.
func TestSyncTellsBridgeNetfilter(t *testing.T) {
	b := newFakeHost().backend()
	b.host.BridgeSysctls = filepath.Join(t.TempDir(), "bridge")
	for _, want := range []bool{false, true, false} {
		if want {
			if err := os.Mkdir(b.host.BridgeSysctls, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := b.Sync(t.Context(), wants(func(host firewall.Host) firewall.Policy {
			if host.BridgeNetfilter != want {
				t.Errorf("got %v, want %v", host.BridgeNetfilter, want)
			}
			return nothing
		}))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(b.host.BridgeSysctls); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFollow: nothing is read while the generation is the one that was left, and no program started for elements.
func TestFollow(t *testing.T) {
	h := newFakeHost()
	b := h.backend()
	one, two := policy("br-one"), policy("br-two")
	more := policy("br-two")
	more.V4.Ports = append(slices.Clone(more.V4.Ports), firewall.Port{Proto: state.TCP, HostPort: 9999, Target: netip.MustParseAddrPort("10.1.0.2:99")})
	follow := func(name string, changed bool, p firewall.Policy, want ...string) {
		t.Helper()
		h.journal = nil
		w := always(p)
		w.Change = func(firewall.Host) (firewall.Change, bool) { return firewall.Change{}, !changed }
		if err := b.Follow(t.Context(), w); err != nil {
			t.Fatal(name, err)
		}
		programs := slices.DeleteFunc(h.journal, func(s string) bool { return !strings.HasPrefix(s, "ip") })
		slices.Sort(programs)
		if !slices.Equal(programs, want) {
			t.Errorf("%s: %q, want %q", name, programs, want)
		}
		h.journal = nil
		if err := h.backend().Sync(t.Context(), always(p)); err != nil || slices.Contains(h.journal, restore4) || slices.Contains(h.journal, restore6) {
			t.Errorf("%s: not all was done: %q %v", name, h.journal, err)
		}
	}
	everything := []string{restore6, save6, restore4, save4}
	follow("the first", true, one, everything...)
	follow("jumps were written: what came of it is read", true, one, save6, save4)
	follow("no change", false, one)
	follow("elements", true, two)
	follow("a port", true, more, restore4)
	follow("another", true, two, restore4)
	follow("none", false, two)
	if err := h.v4.restore("*filter\n-F DRAWBRIDGE-FORWARD\nCOMMIT\n"); err != nil {
		t.Fatal(err)
	}
	h.generation++
	follow("somebody changed rules", false, two, save6, restore4, save4)
	h.failures = map[string][]error{restore4: {errors.New("no")}}
	follow("a failure", true, more, save6, restore4, restore4, save4)
	h.legacy = true
	b = h.backend()
	follow("legacy", true, two, save6, restore4, save4)
	follow("legacy, no change", false, two, save6, save4)
}

// TestFollowIsWhole: whatever is followed, rules and sets are those of the state.
func TestFollowIsWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newFakeHost()
		b := h.backend()
		loopback := statetest.Loopback(t)
		modes := statetest.Modes(t)
		plane := firewall.NewPlane(b, firewall.Settings{Loopback: loopback, Publish: func() state.Modes { return modes }})
		s := statetest.Draw(t)
		do := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if b.seen != nil {
				for i, held := range []dump{b.seen.tables.d4, b.seen.tables.d6} {
					if diff := cmp.Diff(idsOf([]dump{h.v4.tables, h.v6.tables}[i]), idsOf(held), cmpopts.EquateEmpty()); diff != "" {
						t.Fatalf("%s: rules are taken for others (-is +held):\n%s", what, diff)
					}
				}
			}
			host := firewall.Host{Loopback: true, Proxied: statetest.Proxied(s, loopback), Modes: modes, NoLearning: noLearning} // as the backend has it
			for _, f := range firewall.Render(s, host).Families() {
				want, tables := Render(f), h.v4.tables
				if f.V6 {
					tables = h.v6.tables
				}
				if text := script(tables, want); text != "" {
					t.Fatalf("%s: the rules are not as wanted:\n%s", what, text)
				}
				for _, set := range want.Sets {
					got := sorted(Set{Elements: slices.Clone(h.sets[set.Name])})
					if !slices.Equal(got.Elements, set.Elements) {
						t.Fatalf("%s: set %s is %v, not %v", what, set.Name, got.Elements, set.Elements)
					}
				}
			}
		}
		do("first", plane.Apply(t.Context(), s))
		for range 6 {
			last := s
			s = statetest.Next(t, s)
			follow := func() error { return plane.Follow(t.Context(), state.Compare(last, s)) }
			switch rapid.IntRange(0, 6).Draw(t, "how") {
			case 0:
				do("whole", plane.Apply(t.Context(), s))
			case 6:
				modes = statetest.Modes(t) // a firewall of the host came or went
				do("with other modes", follow())
			case 1:
				h.generation++ // somebody changed something
				do("elsewhere", follow())
			case 2:
				h.failures = map[string][]error{restore4: {errors.New("no")}}
				do("after a failure", follow())
				h.failures = nil
			default:
				do("followed", follow())
			}
		}
	})
}

// idsOf returns a dump in which rules of ours are their ids.
func idsOf(d dump) dump {
	out := dump{}
	for name, table := range d {
		out[name] = map[string][]string{}
		for chain, rules := range table {
			for _, r := range rules {
				out[name][chain] = append(out[name][chain], stdcmp.Or(idOf(r), r))
			}
		}
	}
	return out
}

func TestClose(t *testing.T) {
	h := newFakeHost()
	h.backend().Close()
	if !slices.Equal(h.journal, []string{"close"}) {
		t.Errorf("steps %q", h.journal)
	}
}

func TestRules(t *testing.T) {
	b := newFakeHost().backend()
	if got := b.Rules(nothing); got != "" {
		t.Errorf("rules for nothing: %s", got)
	}
	got := b.Rules(policy("br-one"))
	for _, want := range []string{"# iptables\n", "# ip6tables\n", "add DRAWBRIDGE-nets4 10.1.0.0/24,br-one\n", "add DRAWBRIDGE-ports6 fd00:1::2,tcp:80\n", "*nat\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
