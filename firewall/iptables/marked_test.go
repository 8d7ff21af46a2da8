package iptables

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

const testBit = 1 << 27

// marked is a Marked on the fake host.
func (h *fakeHost) marked() *Marked {
	b := h.backend()
	b.render = func(f firewall.Family) Ruleset { return renderMarked(f, testBit) }
	return &Marked{backend: b}
}

func policyOf(ports int, guard bool) firewall.Policy {
	family := func(v6 bool, prefix, target string) firewall.Family {
		f := firewall.Family{V6: v6, Guard: guard, Networks: []firewall.Network{
			{Prefix: netip.MustParsePrefix(prefix), Bridge: "br-one", Masquerade: true},
		}}
		for i := range ports {
			f.Ports = append(f.Ports, firewall.Port{
				Proto: state.TCP, HostPort: uint16(1000 + i), Target: netip.AddrPortFrom(netip.MustParseAddr(target), 80),
			})
		}
		return f
	}
	return firewall.Policy{V4: family(false, "10.1.0.0/24", "10.1.0.2"), V6: family(true, "fd00:1::/64", "fd00:1::2")}
}

func (h *fakeHost) writes() int {
	return len(slices.DeleteFunc(slices.Clone(h.journal), func(s string) bool { return !strings.Contains(s, "-restore") }))
}

// TestMarkedIsConstant: ports change nothing, and nothing is started for them; the guard does.
func TestMarkedIsConstant(t *testing.T) {
	h := newFakeHost()
	m := h.marked()
	if _, installed, err := m.Read(t.Context()); !installed || err != nil {
		t.Fatal(installed, err)
	}
	must := func(p firewall.Policy) {
		t.Helper()
		if _, err := m.Write(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	must(policyOf(1, false))
	h.journal = nil
	must(policyOf(5, false))
	if len(h.journal) > 0 {
		t.Errorf("for other ports: %q", h.journal)
	}
	must(policyOf(5, true))
	if h.writes() != 2 || !strings.Contains(strings.Join(h.v4.tables["filter"][chainGuard], ""), "DROP") {
		t.Errorf("for the guard: %q, %q", h.journal, h.v4.tables)
	}
	must(firewall.Policy{V6: firewall.Family{V6: true}})
	for _, model := range []model{h.v4, h.v6} {
		for table, chains := range model.tables {
			for chain := range chains {
				if isOurs(chain) || chain == chainDockerUser {
					t.Errorf("left in %s: %s", table, chain)
				}
			}
		}
	}
}

// TestMarkedReplaces: rules and sets of a Backend go, but for the users' chains, and come back.
func TestMarkedReplaces(t *testing.T) {
	h := newFakeHost()
	b, m := h.backend(), h.marked()
	p := policyOf(3, true)
	sync := func() {
		t.Helper()
		if err := b.Sync(t.Context(), always(p)); err != nil {
			t.Fatal(err)
		}
	}
	sync()
	rules := "-i tun0 -j DROP"
	h.v4.tables["filter"][chainDockerUser] = []string{rules}
	h.v4.tables["mangle"][chainUser] = []string{rules}
	before := maps.Clone(h.v4.save())
	if _, _, err := m.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Write(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if len(h.sets) > 0 {
		t.Errorf("sets %q are left", slices.Collect(maps.Keys(h.sets)))
	}
	ours := map[string][]string{}
	for table, chains := range h.v4.tables {
		for chain := range chains {
			if isOurs(chain) {
				ours[table] = append(ours[table], chain)
			}
		}
		if len(ours[table]) > 0 {
			slices.Sort(ours[table])
		}
	}
	want := map[string][]string{"mangle": {chainUser}, "filter": {chainForward, chainGuard}}
	if diff := cmp.Diff(want, ours); diff != "" {
		t.Errorf("chains of ours (-want +got):\n%s", diff)
	}
	if got := h.v4.tables["filter"][chainDockerUser]; !slices.Equal(got, []string{rules}) {
		t.Errorf("DOCKER-USER became %q", got)
	}
	sync()
	if diff := cmp.Diff(before, h.v4.save()); diff != "" {
		t.Errorf("there and back (-before +after):\n%s", diff)
	}
}

// TestMarkedFails: a Write that failed reads and writes again.
func TestMarkedFails(t *testing.T) {
	h := newFakeHost()
	m := h.marked()
	step := "iptables-nft-restore --noflush --wait " + lockWait
	h.failures[step] = []error{errors.New("locked"), errors.New("locked")}
	if _, err := m.Write(t.Context(), policyOf(1, false)); err != nil {
		t.Errorf("got %v, journal %q", err, h.journal)
	}
	h.failures[step] = slices.Repeat([]error{errors.New("locked")}, attempts)
	if _, err := m.Write(t.Context(), policyOf(1, true)); err == nil {
		t.Error("no error")
	}
	if _, err := m.Write(t.Context(), policyOf(1, true)); err != nil || h.v4.tables["filter"][chainGuard] == nil {
		t.Errorf("after it: %v, %q", err, h.v4.tables["filter"])
	}
}

// TestMarkedWithout: a host without iptables is no error.
func TestMarkedWithout(t *testing.T) {
	h := newFakeHost()
	m := h.marked()
	m.backend.variant.Store(nil)
	m.backend.lookPath = programs()
	if others, installed, err := m.Read(t.Context()); installed || err != nil || others.Bridges != nil {
		t.Errorf("read: %+v, %v, %v", others, installed, err)
	}
	if err := m.Purge(t.Context()); err != nil {
		t.Errorf("purge: %v", err)
	}
	if docker, err := m.backend.Docker(t.Context()); docker != NoDocker || err != nil {
		t.Errorf("Docker: %v, %v", docker, err)
	}
}

// TestDocker: what dockerd made is told from what we make.
func TestDocker(t *testing.T) {
	tests := map[string]struct {
		chains []string
		want   Docker
	}{
		"nothing":          {nil, NoDocker},
		"the user's alone": {[]string{chainDockerUser}, DockerUser},
		"made by us":       {[]string{chainDockerUser, chainForward}, NoDocker},
		"dockerd":          {[]string{chainDockerUser, "DOCKER"}, DockerRules},
		"dockerd 28":       {[]string{"DOCKER-FORWARD"}, DockerRules},
		"dockerd and we":   {[]string{chainDockerUser, "DOCKER", chainForward}, DockerRules},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost()
			h.v4.tables["filter"] = map[string][]string{}
			for _, c := range test.chains {
				h.v4.tables["filter"][c] = nil
			}
			if got, err := h.backend().Docker(t.Context()); got != test.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
