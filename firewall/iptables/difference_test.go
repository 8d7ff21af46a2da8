package iptables

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// TestDifferences: what somebody did to rules and sets is told by a look, which changes nothing, and by the Sync that mends it; a
// change of the policy is nobody's doing.
func TestDifferences(t *testing.T) {
	rows := []struct {
		name   string
		damage func(*fakeHost)
		want   string
	}{
		{"nothing", func(*fakeHost) {}, ""},
		{"chain gone", func(h *fakeHost) {
			delete(h.v4.tables["mangle"], chainForward)
		}, "iptables: table mangle: chain " + chainForward + " is missing"},
		{"chain flushed", func(h *fakeHost) { h.v6.tables["mangle"][chainForward] = nil }, "ip6tables: table mangle: chain " + chainForward + " lacks "},
		{"rule more", func(h *fakeHost) {
			h.v4.tables["mangle"][chainForward] = append(h.v4.tables["mangle"][chainForward], "-j ACCEPT")
		}, "chain " + chainForward + " has too much: the rule -j ACCEPT"},
		{"rules in another order", func(h *fakeHost) {
			slices.Reverse(h.v4.tables["mangle"][chainForward])
		}, "chain " + chainForward + " has its rules in another order"},
		{"jump gone", func(h *fakeHost) { h.v4.tables["mangle"]["FORWARD"] = nil }, "table mangle: chain FORWARD lacks the jump to " + chainForward},
		{"jump behind another rule", func(h *fakeHost) {
			h.v4.tables["mangle"]["FORWARD"] = append([]string{"-j ACCEPT"}, h.v4.tables["mangle"]["FORWARD"]...)
		}, "chain FORWARD has the jump to " + chainForward + " out of place"},
		{"user jump three times", func(h *fakeHost) {
			rules := h.v4.tables["filter"]["FORWARD"]
			h.v4.tables["filter"]["FORWARD"] = append([]string{"-j DOCKER-USER", "-i eth7 -j ACCEPT", "-j DOCKER-USER"}, rules...)
		}, "iptables: table filter: chain FORWARD has the jump to DOCKER-USER 3 times"},
		{"user chain gone", func(h *fakeHost) { delete(h.v4.tables["filter"], chainDockerUser) }, "chain " + chainDockerUser + " is missing"},
		{"set flushed", func(h *fakeHost) { h.sets["DRAWBRIDGE-ports4"] = nil }, "set DRAWBRIDGE-ports4 lacks the element 10.1.0.2,tcp:80"},
		{"set gone", func(h *fakeHost) { delete(h.sets, "DRAWBRIDGE-ports4") }, "set DRAWBRIDGE-ports4 is missing"},
		{"element more", func(h *fakeHost) {
			h.sets["DRAWBRIDGE-ports4"] = append(h.sets["DRAWBRIDGE-ports4"], h.sets["DRAWBRIDGE-ports6"]...)
		}, "set DRAWBRIDGE-ports4 has too much: the element fd00:1::2,tcp:80"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h, p := newFakeHost(), policy("br-one")
			b := h.backend()
			if err := b.Sync(t.Context(), always(p)); err != nil {
				t.Fatal(err)
			}
			row.damage(h)
			h.generation++
			h.journal = nil
			looked, err := b.Inspect(t.Context(), always(p))
			if joined := strings.Join(looked, "; "); err != nil || (row.want == "") != (joined == "") || !strings.Contains(joined, row.want) {
				t.Errorf("a look: %q, %v", joined, err)
			}
			if slices.Sort(h.journal); !slices.Equal(h.journal, []string{save6, save4}) { // both are started at once
				t.Errorf("a look did %q", h.journal)
			}
			next := policy("br-one")
			next.V4.Ports = append(slices.Clone(p.V4.Ports), firewall.Port{Proto: 6, HostPort: 8081, Target: p.V4.Ports[0].Target})
			var found []string
			w := always(next)
			w.Last = func() (firewall.Policy, bool) { return p, true }
			w.Found = func(differences []string) { found = differences }
			if err := b.Sync(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(found, looked) {
				t.Errorf("mended %q, looked at %q", found, looked)
			}
			if forward := strings.Join(h.v4.tables["filter"]["FORWARD"], "; "); strings.Count(forward, "-j DOCKER-USER") != 1 || !strings.HasPrefix(forward, "-j DOCKER-USER") {
				t.Errorf("FORWARD is %s", forward)
			}
			if left, err := b.Inspect(t.Context(), always(next)); err != nil || len(left) > 0 {
				t.Errorf("afterwards: %q, %v", left, err)
			}
		})
	}
}
