package hostfw

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// onTable makes a table of nftables with a chain "in" for packets to the host, and others.
func onTable(in chain, others map[string]chain) table {
	in.input = true
	t := table{label: place{2, "mine"}.label(), chains: map[string]*chain{"in": &in}, verdicts: map[string][]element{}}
	for name, c := range others {
		t.chains[name] = &c
	}
	return t
}

func TestJudge(t *testing.T) {
	refusing, harmless := chain{rules: []rule{{}, {refuses: true}}}, chain{rules: []rule{{}}}
	jumping := func(to ...string) chain {
		var c chain
		for _, name := range to {
			c.rules = append(c.rules, rule{jumps: name})
		}
		return c
	}
	asking := func(byState bool, elements ...element) table {
		t := onTable(chain{rules: []rule{{lookup: lookup{"m", byState}}}}, map[string]chain{"deny": refusing})
		t.verdicts["m"] = elements
		return t
	}
	const direct = "chain in of table ip mine (nftables) has a rule that refuses"
	const deny = "chain in of table ip mine (nftables) leads to deny, which has a rule that refuses"
	for _, tt := range []struct {
		name   string
		tables []table
		why    string
	}{
		{"no tables", nil, ""},
		{"harmless", []table{onTable(harmless, nil)}, ""},
		{"policy", []table{onTable(chain{drops: true}, nil)}, "chain in of table ip mine (nftables) drops"},
		{"rule", []table{onTable(refusing, nil)}, direct},
		{"the second table", []table{onTable(harmless, nil), onTable(refusing, nil)}, direct},
		{"not led to", []table{onTable(harmless, map[string]chain{"deny": refusing})}, ""},
		{"led to", []table{onTable(jumping("a"), map[string]chain{"a": jumping("b", "deny"), "b": harmless, "deny": refusing})}, deny},
		{"in a circle", []table{onTable(jumping("a"), map[string]chain{"a": jumping("b"), "b": jumping("a", "in")})}, ""},
		{"to nowhere", []table{onTable(jumping("gone"), nil)}, ""},
		{"to ours and Docker's", []table{onTable(jumping("DRAWBRIDGE-X", "DOCKER", "DOCKER-FORWARD"), map[string]chain{
			"DRAWBRIDGE-X": refusing, "DOCKER": refusing, "DOCKER-FORWARD": refusing,
		})}, ""},
		{"to users'", []table{onTable(jumping("DRAWBRIDGE-USER"), map[string]chain{"DRAWBRIDGE-USER": refusing})}, "chain in of table ip mine (nftables) leads to DRAWBRIDGE-USER, which has a rule that refuses"},
		{"map", []table{asking(false, element{rule: rule{refuses: true}})}, direct},
		{"map of states", []table{asking(true, element{invalid: true, rule: rule{refuses: true}}, element{})}, ""},
		{"map of states, two refused", []table{asking(true, element{invalid: true, rule: rule{refuses: true}}, element{rule: rule{refuses: true}})}, direct},
		{"map of something else", []table{asking(false, element{invalid: true, rule: rule{refuses: true}})}, direct},
		{"map that leads on", []table{asking(true, element{rule: rule{jumps: "deny"}})}, deny},
		{"ufw, by a rule", []table{onTable(refusing, nil), onTable(jumping("ufw-before-input"), map[string]chain{"ufw-before-input": refusing})}, "ufw is active"},
		{"ufw, by a policy", []table{onTable(chain{drops: true, rules: []rule{{jumps: "ufw6-before-input"}}}, nil)}, "ufw is active"},
		{"ufw, off", []table{onTable(jumping("ufw-before-input"), map[string]chain{"ufw-before-input": {}})}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := judge(tt.tables), (Finding{Active: tt.why != "", Why: tt.why}); got != want {
				t.Errorf("judged %+v, want %+v", got, want)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	for _, tt := range []struct {
		at   place
		want string
	}{
		{place{2, "filter"}, "INPUT of iptables has policy DROP"},
		{place{10, "filter"}, "INPUT of ip6tables has policy DROP"},
		{place{10, "security"}, "INPUT of ip6tables (table security) has policy DROP"},
		{place{1, "filter"}, "chain INPUT of table inet filter (nftables) drops"},
		{place{10, "mine"}, "chain INPUT of table ip6 mine (nftables) drops"},
	} {
		l := tt.at.label()
		if got := l.of("INPUT") + l.policy; got != tt.want {
			t.Errorf("%v: %q, want %q", tt.at, got, tt.want)
		}
	}
}

func TestSplitWords(t *testing.T) {
	for line, want := range map[string][]string{
		"":                           nil,
		" -A  INPUT ":                {"-A", "INPUT"},
		`--comment "a -j DROP" -j X`: {"--comment", "a -j DROP", "-j", "X"},
		`--comment "say \"-j Y\"" x`: {"--comment", `say "-j Y"`, "x"},
		`--log-prefix "" -j X`:       {"--log-prefix", "", "-j", "X"},
		`-A "not closed`:             {"-A"},
	} {
		if diff := cmp.Diff(want, splitWords(line)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}
