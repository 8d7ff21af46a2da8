package iptables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// ours returns the chains of ours that a family has.
func ours(m *model) []string {
	var out []string
	for name, table := range m.tables {
		for chain := range table {
			if isOurs(chain) {
				out = append(out, name+" "+chain)
			}
		}
	}
	slices.Sort(out)
	return out
}

func TestPurge(t *testing.T) {
	h := newFakeHost()
	b := h.backend()
	foreign := "*filter\n:DOCKER-USER - [0:0]\n:DOCKER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n"
	for _, m := range []*model{&h.v4, &h.v6} {
		if err := m.restore(foreign); err != nil {
			t.Fatal(err)
		}
	}
	before := []dump{h.v4.foreign(), h.v6.foreign()}
	if err := b.Sync(t.Context(), always(policy("br-one"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range []*model{&h.v4, &h.v6} {
		for name, table := range m.tables {
			for chain := range table {
				if isOurs(chain) {
					t.Errorf("chain %s is left in %s", chain, name)
				}
			}
		}
		if diff := cmp.Diff(before[i]["filter"], m.foreign()["filter"]); diff != "" {
			t.Errorf("foreign rules (-before +after):\n%s", diff)
		}
	}
	if len(h.sets) != 0 {
		t.Errorf("sets are left: %v", h.sets)
	}
}

// TestPurgeGoesOn: what fails in one variant or family does not spare the others.
func TestPurgeGoesOn(t *testing.T) {
	no := errors.New("no")
	// The variants of the fake host look at the same rules, each in its turn.
	fails := func(programs ...string) map[string][]error {
		out := map[string][]error{}
		for _, p := range programs {
			out[p] = []error{no}
		}
		return out
	}
	all4 := []string{"iptables-save", "iptables-nft-save", "iptables-legacy-save"}
	all6 := []string{"ip6tables-save", "ip6tables-nft-save", "ip6tables-legacy-save"}
	tests := []struct {
		name         string
		failures     map[string][]error
		clean4       bool // there was nothing of ours in IPv4
		clean6       bool
		left4, left6 bool
		wantErr      []string // parts of the error
	}{
		{name: "nothing fails"},
		{name: "the kernel lacks legacy", failures: fails(all4[2], all6[2])},
		{name: "the kernel lacks the default", failures: fails(all4[0], all6[0])},
		{name: "the kernel lacks all but one", failures: fails(all4[0], all4[1], all6[0], all6[1])},
		{
			name: "one cannot be written: the next is", failures: fails("iptables-restore --noflush --wait 5"),
			wantErr: []string{"changing the firewall: no"},
		},
		{
			name: "IPv4 cannot be written at all: IPv6 is", left4: true,
			failures: fails("iptables-restore --noflush --wait 5", restore4, "iptables-legacy-restore --noflush --wait 5"),
			wantErr:  []string{"changing the firewall: no", "busy"},
		},
		{name: "IPv4 cannot be read: IPv6 goes", left4: true, failures: fails(all4...), wantErr: []string{"reading the firewall: no", "busy"}},
		{name: "IPv6 cannot be read: IPv4 goes", left6: true, failures: fails(all6...), wantErr: []string{"reading the firewall: no", "busy"}},
		{name: "nothing is known of IPv4", clean4: true, failures: fails(all4...), wantErr: []string{"reading the firewall: no"}},
		{name: "a host without IPv6", clean6: true, failures: fails(all6...)},
		{name: "a set cannot go: the others do", failures: fails("destroy DRAWBRIDGE-nets4"), wantErr: []string{"no"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHost()
			b := h.backend()
			p := policy("br-one")
			if test.clean4 {
				p.V4 = nothing.V4
			}
			if test.clean6 {
				p.V6 = nothing.V6
			}
			if err := b.Sync(t.Context(), always(p)); err != nil {
				t.Fatal(err)
			}
			if test.failures != nil {
				h.failures = test.failures
			}
			err := b.Purge(t.Context())
			if (err != nil) != (test.wantErr != nil) {
				t.Errorf("error %v", err)
			}
			for _, part := range test.wantErr {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in the error %v", part, err)
				}
			}
			if got := ours(&h.v4); (len(got) > 0) != test.left4 {
				t.Errorf("left in IPv4: %q", got)
			}
			if got := ours(&h.v6); (len(got) > 0) != test.left6 {
				t.Errorf("left in IPv6: %q", got)
			}
		})
	}
}

// TestCloseForward: FORWARD takes over from a guard of ours, in its family, and from nothing else.
func TestCloseForward(t *testing.T) {
	const in4, in6 = "iptables --wait 5 -P FORWARD DROP", "ip6tables --wait 5 -P FORWARD DROP"
	for _, c := range []struct {
		v4, v6 bool // guarded
		failed string
		want   []string
	}{
		{},
		{v4: true, want: []string{in4}},
		{v6: true, want: []string{in6}},
		{v4: true, v6: true, want: []string{in4, in6}},
		{v4: true, v6: true, failed: in4, want: []string{in4, in6}},
	} {
		h := newFakeHost()
		b := h.backend()
		b.lookPath = programs("iptables-save")
		p := policy("br-one")
		p.V4.Guard, p.V6.Guard = c.v4, c.v6
		if err := b.Sync(t.Context(), always(p)); err != nil {
			t.Fatal(err)
		}
		if h.journal = nil; c.failed != "" {
			h.failures[c.failed] = []error{errors.New("no")}
		}
		closed, err := b.CloseForward(t.Context())
		if (err != nil) != (c.failed != "") || closed != (len(c.want) > 0) {
			t.Errorf("%+v: closed %v, %v", c, closed, err)
		}
		got := slices.DeleteFunc(h.journal, func(step string) bool { return !strings.Contains(step, "FORWARD") })
		if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c, diff)
		}
	}
}

// TestPurgeNotInstalled: no program is started, and the sets go all the same.
func TestPurgeNotInstalled(t *testing.T) {
	h := newFakeHost()
	h.sets["DRAWBRIDGE-nets4"] = nil
	b := newBackend(h.run, h, unlisted)
	b.lookPath = programs()
	if err := b.Purge(t.Context()); err != nil || b.Installed() {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"destroy DRAWBRIDGE-nets4"}, h.journal); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestPurgeWithoutTheDefault: programs of one variant are enough.
func TestPurgeWithoutTheDefault(t *testing.T) {
	h := newFakeHost()
	b := newBackend(h.run, h, unlisted)
	b.lookPath = programs("iptables-legacy-save")
	if err := b.Purge(t.Context()); err != nil {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff([]string{"iptables-legacy-save", "ip6tables-legacy-save"}, h.journal); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestPurgeStopsWithItsContext: what could not be read in time is not taken for absent.
func TestPurgeStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := newFakeHost().backend()
	inner := b.run
	b.run = func(c context.Context, stdin string, argv ...string) (string, error) {
		if argv[0] == "ip6tables-legacy-save" {
			cancel()
			return "", c.Err()
		}
		return inner(c, stdin, argv...)
	}
	if err := b.Purge(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestLeftover: rules of ours are seen in either family and variant, nobody else's are.
func TestLeftover(t *testing.T) {
	const ours = "*mangle\n:DRAWBRIDGE-FORWARD - [0:0]\nCOMMIT\n"
	const theirs = "*filter\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\nCOMMIT\n"
	for name, c := range map[string]struct {
		printed map[string]string // by program; others fail
		want    bool
	}{
		"nothing can be read":   {nil, false},
		"only others' rules":    {map[string]string{"iptables-save": theirs, "ip6tables-save": theirs}, false},
		"IPv4":                  {map[string]string{"iptables-save": ours, "ip6tables-save": ""}, true},
		"IPv6":                  {map[string]string{"iptables-save": theirs, "ip6tables-save": ours}, true},
		"another variant, IPv6": {map[string]string{"iptables-save": "", "ip6tables-legacy-save": ours}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(func(_ context.Context, _ string, argv ...string) (string, error) {
				out, ok := c.printed[argv[0]]
				if !ok {
					return "", errors.New("exit status 1")
				}
				return out, nil
			}, newFakeHost(), unlisted)
			b.lookPath = programs("iptables-save", "iptables-nft-save", "iptables-legacy-save")
			if got := b.Leftover(t.Context()); got != c.want {
				t.Errorf("%t", got)
			}
		})
	}
}
