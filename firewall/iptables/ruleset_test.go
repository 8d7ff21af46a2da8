package iptables

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

var ruleGen = rapid.Custom(func(t *rapid.T) Rule {
	word := rapid.SampledFrom([]string{"", "a", "b", "a|b", "-p tcp"})
	return Rule{Match: word.Draw(t, "match"), Why: word.Draw(t, "why"), Target: rapid.SampledFrom([]string{"DROP", "RETURN"}).Draw(t, "target")}
})

// TestIDs: equal chains have equal ids, no two rules of a chain have the same, and a rule keeps its own wherever other
// rules come and go.
func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(ruleGen, 1, 8).Draw(t, "rules")
		before := ids("C", rules)
		if !slices.Equal(before, ids("C", slices.Clone(rules))) {
			t.Fatal("ids are not a function of the rules")
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(before))); len(unique) != len(rules) {
			t.Fatalf("two rules have the same id: %v", before)
		}
		at := rapid.IntRange(0, len(rules)-1).Draw(t, "at")
		added := Rule{Why: "new", Target: "ACCEPT"}
		want := slices.Insert(slices.Clone(before), at, ids("C", []Rule{added})[0])
		if got := ids("C", slices.Insert(slices.Clone(rules), at, added)); !slices.Equal(got, want) {
			t.Fatalf("with another rule the ids are %v, not %v", got, want)
		}
		changed := slices.Clone(rules)
		changed[at].Why += " changed"
		if got := ids("C", changed); got[at] == before[at] {
			t.Fatalf("changed rule %d kept its id", at)
		}
	})
}

func TestIDsDependOnChain(t *testing.T) {
	r := []Rule{{Target: "DROP"}}
	if ids("A", r)[0] == ids("B", r)[0] {
		t.Error("two chains give the same id")
	}
}

// TestEveryRuleIsRecognised: each rule and jump is found again as ours in iptables-save, DOCKER-USER's jump excepted.
func TestEveryRuleIsRecognised(t *testing.T) {
	f := firewall.Family{
		Networks: []firewall.Network{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Bridge: "br-one", Masquerade: true, SNAT: netip.MustParseAddr("192.0.2.7")}},
		Guard:    true, BridgeNetfilter: true, Ports: randomPorts(1, 100, false), DockerBridges: []string{"docker0"},
		Limited: true,
	}
	for port := range uint16(20) {
		f.Limits = append(f.Limits, firewall.Limit{Proto: state.TCP, Port: 1000 + port, Links: "eth0:eth1"})
	}
	comment := regexp.MustCompile(`^[A-Za-z0-9 ,:'-]{1,200}$`)
	for _, v6 := range []bool{false, true} {
		f.V6 = v6
		seen := map[string]string{}
		check := func(where, spec, id, why string) {
			if got := idOf(spec); got != id {
				t.Errorf("%s: id %q is read from %s", where, got, spec)
			}
			table, _, _ := strings.Cut(where, " ")
			if other, ok := seen[table+id]; ok {
				t.Errorf("%s and %s have the same id %s", where, other, id)
			}
			if !comment.MatchString(why) { // iptables quotes and escapes others, and cuts at 256
				t.Errorf("%s: the comment %q may come back changed", where, why)
			}
			seen[table+id] = where
		}
		for _, table := range Render(f).Tables {
			for _, j := range table.Jumps {
				if j.Plain {
					continue
				}
				check(table.Name+" "+j.From, j.spec(), j.id(), j.Rule.Why)
			}
			for _, c := range table.Chains {
				for i, id := range ids(c.Name, c.Rules) {
					check(table.Name+" "+c.Name, c.Rules[i].spec(id), id, c.Rules[i].Why)
				}
			}
		}
		if len(seen) < 100 {
			t.Errorf("only %d rules were looked at", len(seen))
		}
	}
}

// TestNumberOfRules: networks do not add rules, nor do ports that are limited to sources or left to the host.
func TestNumberOfRules(t *testing.T) {
	count := func(networks int) int {
		f := firewall.Family{Networks: make([]firewall.Network, networks), Ports: randomPorts(1, 10, false), Limited: true}
		for i := range f.Ports {
			f.Ports[i].Inside = i < networks
			if i < networks {
				p := f.Ports[i]
				f.Limits = append(f.Limits, firewall.Limit{Proto: p.Proto, Host: p.Host, Port: p.HostPort, BySource: true, From: "192.0.2.0/24"})
			}
		}
		n := 0
		for _, table := range Render(f).Tables {
			n += len(table.Jumps)
			for _, c := range table.Chains {
				n += len(c.Rules)
			}
		}
		return n
	}
	if one, many := count(1), count(1000); one != many {
		t.Errorf("%d rules for one network, %d for a thousand", one, many)
	}
}
