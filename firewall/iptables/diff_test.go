package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// drawFamily returns a policy of one family, empty in one of five.
func drawFamily(t *rapid.T, label string, v6 bool) firewall.Family {
	f := firewall.Family{V6: v6}
	if rapid.IntRange(0, 4).Draw(t, label+" empty") == 0 {
		return f
	}
	for i := range rapid.IntRange(0, 3).Draw(t, label+" networks") {
		prefix := netip.MustParsePrefix(fmt.Sprintf(byFamily(v6, "10.%d.0.0/24", "fd00:%d::/64"), i))
		n := firewall.Network{
			Prefix: prefix, Bridge: fmt.Sprint("br-", i), Masquerade: i != 1,
			NoICC: rapid.Bool().Draw(t, label+" noICC"), Routed: i == 1, Unprotected: rapid.Bool().Draw(t, label+" unprotected"),
			Trusted: rapid.SampledFrom([][]string{nil, {"eth0"}, {"eth0", "eth1"}}).Draw(t, label+" trusted"),
		}
		if n.Masquerade && rapid.Bool().Draw(t, label+" snat") {
			n.SNAT = hostAddrs[v6][1]
		}
		f.Networks = append(f.Networks, n)
		for _, p := range randomPorts(uint64(i), rapid.SampledFrom([]int{0, 1, 5}).Draw(t, label+" open"), v6) {
			to := firewall.Target{Proto: p.Proto, Addr: p.Target}
			f.Open = append(f.Open, to)
			f.Links = append(f.Links, firewall.Link{From: container(v6, i), To: to})
		}
	}
	f.Strangers = rapid.Bool().Draw(t, label+" strangers")
	f.Guard = rapid.Bool().Draw(t, label+" guard")
	f.BridgeNetfilter = rapid.Bool().Draw(t, label+" br_netfilter")
	f.Ports = randomPorts(rapid.Uint64().Draw(t, label+" seed"), rapid.SampledFrom([]int{0, 1, 10, 40, 200}).Draw(t, label+" ports"), v6)
	for i := range f.Ports {
		f.Ports[i].Inside = rapid.IntRange(0, 2).Draw(t, label+" inside") == 0
	}
	if f.Limited = rapid.Bool().Draw(t, label+" limited"); f.Limited {
		for i, p := range randomPorts(rapid.Uint64().Draw(t, label+" limits"), rapid.SampledFrom([]int{1, 5, 40}).Draw(t, label+" how many"), v6) {
			f.Limits = append(f.Limits, firewall.Limit{
				Proto: p.Proto, Host: p.Host, Port: p.HostPort, Direct: p.Host.IsValid() && i%3 == 0, BySource: i%2 == 0,
				From:  state.JoinPrefixes([]netip.Prefix{allAddrs(v6), single(container(v6, i))}),
				Links: rapid.SampledFrom([]state.LinkNames{"", "eth0", "eth1:eth0"}).Draw(t, label+" links"),
			})
		}
	}
	f.DockerBridges = rapid.SampledFrom([][]string{nil, {"docker0"}, {"br-a", "docker0"}}).Draw(t, label+" docker")
	return f
}

// foreignRules are rules that other programs and users have, by table and chain.
var foreignRules = map[string]map[string][]string{
	"filter": {
		"FORWARD": {
			"-i docker0 ! -o docker0 -j ACCEPT", "-i tun0 -j ACCEPT", "-j DROP", "-j " + chainDockerUser,
			`-m comment --comment "a drawbridge" -j ACCEPT`, "-j KUBE-FORWARD", "-i x -j " + chainForward,
		},
		"INPUT":         {"-j ACCEPT"},
		"KUBE-FORWARD":  {"-j ACCEPT", "-j RETURN"},
		chainDockerUser: {"-s 203.0.113.0/24 -j DROP", "-j RETURN"},
		chainForward:    {"-j ACCEPT"},
	},
	"mangle": {
		"FORWARD":    {"-p tcp -j MARK --set-xmark 0x7/0xffffffff", "-j ACCEPT"},
		"PREROUTING": {"-i tun0 -j ACCEPT", "-j " + chainUser},
		chainUser:    {"-p tcp -m tcp --dport 8080 -j DROP", "-j RETURN", "-j KUBE"},
		"KUBE":       {"-j ACCEPT"},
		chainForward: {"-j RETURN"},
	},
	"nat": {
		"PREROUTING":     {"-j DOCKER", "-j ACCEPT"},
		"OUTPUT":         {"-j DOCKER"},
		"DOCKER":         {"-i docker0 -j RETURN"},
		"POSTROUTING":    {"-o tun0 -j MASQUERADE"},
		chainDNAT:        {"-j ACCEPT"},
		"DRAWBRIDGE-OLD": {"-j RETURN"},
	},
	"raw": {"PREROUTING": {"-j ACCEPT"}},
}

// drawHost returns a host on which an earlier policy was in force and of which others have
// changed much since.
func drawHost(t *rapid.T, v6 bool) *model {
	m := &model{tables: dump{}}
	if err := m.restore(script(dump{}, Render(drawFamily(t, "old", v6)))); err != nil {
		t.Fatalf("the first script: %v", err)
	}
	for range rapid.IntRange(0, 12).Draw(t, "damages") {
		name := rapid.SampledFrom([]string{"filter", "mangle", "nat", "raw"}).Draw(t, "table")
		table := m.open(name)
		damage(t, name, table)
		if checkJumps(table) == nil {
			m.tables[name] = table
		}
	}
	return m
}

// damage does one thing to a table that we might find there.
func damage(t *rapid.T, name string, table map[string][]string) {
	theirs := foreignRules[name]
	chain := rapid.SampledFrom(sortedNames(theirs)).Draw(t, "chain")
	anywhere := func(rules []string, rule string) []string {
		return slices.Insert(rules, rapid.IntRange(0, len(rules)).Draw(t, "at"), rule)
	}
	switch rapid.IntRange(0, 5).Draw(t, "damage") {
	case 0, 1: // a foreign rule, in a chain of ours too
		rule := rapid.SampledFrom(theirs[chain]).Draw(t, "rule")
		if to := target(rule); len(theirs[to]) > 0 && !isOurs(to) && table[to] == nil {
			table[to] = nil
		}
		table[chain] = anywhere(table[chain], rule)
	case 2: // a stale jump, perhaps to a stale chain
		if !slices.Contains(tables, name) {
			return
		}
		table["DRAWBRIDGE-STALE"] = []string{`-m comment --comment "drawbridge 00000000aa old" -j DROP`}
		at := rapid.SampledFrom(builtin[name]).Draw(t, "from")
		table[at] = anywhere(table[at], `-m comment --comment "drawbridge 00000000ab old" -j DRAWBRIDGE-STALE`)
	case 3: // a rule doubled
		if rules := table[chain]; len(rules) > 0 {
			table[chain] = anywhere(rules, rapid.SampledFrom(rules).Draw(t, "doubled"))
		}
	case 4: // a rule moved
		if rules := table[chain]; len(rules) > 1 {
			i := rapid.IntRange(0, len(rules)-1).Draw(t, "moved")
			r := rules[i]
			table[chain] = anywhere(slices.Delete(slices.Clone(rules), i, i+1), r)
		}
	case 5: // flushed
		table[chain] = nil
	}
}

// TestScript: from any host one script leads to what is wanted; a second has nothing to
// do; what is not ours stays as it was.
func TestScript(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		m := drawHost(t, v6)
		before := m.foreign()
		want := Render(drawFamily(t, "new", v6))
		text := script(m.save(), want)
		if err := m.restore(text); err != nil {
			t.Fatalf("refused: %v\nof\n%s", err, text)
		}
		if again := script(m.save(), want); again != "" {
			t.Fatalf("a second script does\n%s\nafter\n%s", again, text)
		}
		checkForeign(t, before, m.foreign(), want)
		checkChains(t, m.tables, want)
		checkPlaces(t, m.tables, want)
	})
}

// checkForeign allows for DOCKER-USER and its jump, and for our user chain, to come and go empty.
func checkForeign(t *rapid.T, before, after dump, want Ruleset) {
	for _, d := range []dump{before, after} {
		for name, table := range d {
			kept := map[string][]string{}
			for chain, rules := range table {
				user := chain == chainDockerUser || chain == chainUser
				if chain == "FORWARD" && name == "filter" {
					rules = withoutUserJump(rules)
				}
				if !(user && len(rules) == 0) && !(slices.Contains(builtin[name], chain) && len(rules) == 0) {
					kept[chain] = rules
				}
			}
			d[name] = kept
			if len(kept) == 0 {
				delete(d, name)
			}
		}
	}
	if diff := cmp.Diff(before, after, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("foreign rules (-before +after):\n%s", diff)
	}
}

// withoutUserJump takes the jumps to DOCKER-USER out; checkPlaces looks after them.
func withoutUserJump(rules []string) []string {
	return slices.DeleteFunc(slices.Clone(rules), isUserJump)
}

// checkChains: our chains are exactly those wanted, rule for rule.
func checkChains(t *rapid.T, d dump, want Ruleset) {
	got, wanted := map[string][]string{}, map[string][]string{}
	for name, table := range d {
		for chain, rules := range table {
			if isOurs(chain) && chain != chainUser && !(len(rules) == 0 && referenced(table, chain)) {
				got[name+" "+chain] = rules
			}
		}
	}
	for _, table := range want.Tables {
		for _, c := range table.Chains {
			key := table.Name + " " + c.Name
			if len(c.Rules) == 0 && referenced(d[table.Name], c.Name) {
				continue
			}
			wanted[key] = nil
			for i, id := range ids(c.Name, c.Rules) {
				wanted[key] = append(wanted[key], normal(c.Rules[i].spec(id)))
			}
		}
	}
	if diff := cmp.Diff(wanted, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("our chains (-want +got):\n%s", diff)
	}
}

// checkPlaces: each jump is there once and where it belongs, and no other of ours.
func checkPlaces(t *rapid.T, d dump, want Ruleset) {
	count := 0
	for _, table := range want.Tables {
		for _, j := range table.Jumps {
			rules := d[table.Name][j.From]
			if j.Plain {
				if !slices.Contains(rules, j.spec()) {
					t.Fatalf("no %s in %s", j.spec(), j.From)
				}
				continue
			}
			count++
			at := slices.IndexFunc(rules, func(r string) bool { return idOf(r) == j.id() })
			user := slices.IndexFunc(rules, isUserJump)
			bad := at < 0 || j.Place == First && at != 0 || j.Place == Last && at != len(rules)-1 || j.Place == AfterUser && at < user
			if bad {
				t.Fatalf("%s is at %d of %s:\n%s", j.spec(), at, j.From, strings.Join(rules, "\n"))
			}
		}
	}
	for name, table := range d {
		for chain, rules := range table {
			for _, r := range rules {
				if idOf(r) != "" && !isOurs(chain) {
					count--
				}
				if idOf(r) != "" && chain == chainUser {
					t.Fatalf("a rule of ours in the user's chain of %s", name)
				}
			}
		}
	}
	if count != 0 {
		t.Fatalf("%d jumps missing or too many", count)
	}
}

// TestScriptRemovesAll: a host that never had us is the same after we came and went.
func TestScriptRemovesAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{tables: dump{}}
		for _, name := range []string{"filter", "mangle", "nat", "raw"} {
			table := m.open(name)
			for chain, rules := range foreignRules[name] {
				if !isOurs(chain) && rapid.Bool().Draw(t, chain) {
					for _, r := range rules {
						if _, ok := foreignRules[name][target(r)]; !ok {
							table[chain] = append(table[chain], r)
						}
					}
				}
			}
			m.tables[name] = table
		}
		before := m.save()
		v6 := rapid.Bool().Draw(t, "v6")
		for _, want := range []Ruleset{Render(drawFamily(t, "one", v6)), Render(drawFamily(t, "two", v6)), {V6: v6}} {
			if err := m.restore(script(m.save(), want)); err != nil {
				t.Fatal(err)
			}
		}
		after := m.save()
		// With a Docker chain or rules of its own DOCKER-USER stays, and so does the jump to it.
		if len(before["filter"][chainDockerUser]) > 0 {
			after["filter"]["FORWARD"] = withoutUserJump(after["filter"]["FORWARD"])
		}
		if diff := cmp.Diff(before, after, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-before +after):\n%s", diff)
		}
	})
}

// TestScriptText shows scripts for single changes as an engineer would read them.
func TestScriptText(t *testing.T) {
	v4 := Render(firewall.Family{Guard: true, Networks: []firewall.Network{{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Bridge: "br0"}}})
	in := func(m *model, table, chain string, rules ...string) { m.tables[table][chain] = rules }
	jump := func(table, from string) string {
		for _, tb := range v4.Tables {
			for _, j := range tb.Jumps {
				if tb.Name == table && j.From == from && !j.Plain {
					return j.spec()
				}
			}
		}
		t.Fatalf("no jump from %s", from)
		return ""
	}
	refused := jump("mangle", "FORWARD")
	const user = "-j " + chainDockerUser
	permitted, last := jumpTo(t, v4, chainForward), jumpTo(t, v4, chainGuard)
	tests := []struct {
		name   string
		change func(*model)
		want   string
	}{
		{"nothing", func(*model) {}, ""},
		{
			"dockerd started again", func(m *model) { in(m, "filter", "FORWARD", user, "-j DOCKER-FORWARD", permitted, last) }, "",
		},
		{
			"DOCKER-USER came behind what is permitted",
			func(m *model) { in(m, "filter", "FORWARD", permitted, user, "-j ACCEPT", last) },
			"*filter\n-D FORWARD " + permitted + "\n-I FORWARD 2 " + permitted + "\nCOMMIT\n",
		},
		{
			"a rule was appended behind the guard",
			func(m *model) { in(m, "filter", "FORWARD", user, permitted, last, "-j ACCEPT") },
			"*filter\n-D FORWARD " + last + "\n-A FORWARD " + last + "\nCOMMIT\n",
		},
		{
			"FORWARD flushed",
			func(m *model) { in(m, "filter", "FORWARD") },
			"*filter\n-A FORWARD " + user + "\n-A FORWARD " + permitted + "\n-A FORWARD " + last + "\nCOMMIT\n",
		},
		{
			"a rule came ahead of what is refused",
			func(m *model) { in(m, "mangle", "FORWARD", "-j ACCEPT", refused) },
			"*mangle\n-D FORWARD " + refused + "\n-I FORWARD 1 " + refused + "\nCOMMIT\n",
		},
		{
			"a doubled jump",
			func(m *model) { in(m, "mangle", "FORWARD", refused, refused) },
			"*mangle\n-D FORWARD " + refused + "\n-D FORWARD " + refused + "\n-A FORWARD " + refused + "\nCOMMIT\n",
		},
		{
			"an empty table", func(m *model) { delete(m.tables, "mangle") },
			script(dump{"filter": {}, "nat": {}}, Ruleset{Tables: v4.Tables[:1]}),
		},
		{
			"a rule in the user's chain", func(m *model) { in(m, "mangle", chainUser, "-j DROP") }, "",
		},
		{
			"our own jump taken out",
			func(m *model) { in(m, "nat", "POSTROUTING", "-j ACCEPT") },
			"*nat\n-A POSTROUTING " + jump("nat", "POSTROUTING") + "\nCOMMIT\n",
		},
		{
			"a chain of ours flushed",
			func(m *model) { in(m, "mangle", chainUser); in(m, "filter", chainForward) },
			"*filter\n" + strings.TrimSuffix(permit(namesOf(false), firewall.Family{}).text(), "\n") + "\nCOMMIT\n",
		},
		{
			"two rules taken out of a chain of ours",
			func(m *model) {
				rules := permitRules()
				in(m, "filter", chainForward, slices.Delete(rules, 1, 3)...)
			},
			"*filter\n-I DRAWBRIDGE-FORWARD 2 " + permitRules()[1] + "\n-I DRAWBRIDGE-FORWARD 3 " + permitRules()[2] + "\nCOMMIT\n",
		},
		{
			"a stale rule in a chain of ours",
			func(m *model) {
				in(m, "filter", chainForward, slices.Insert(permitRules(), 1, `-m comment --comment "drawbridge 00000000aa old" -j DROP`)...)
			},
			"*filter\n-D DRAWBRIDGE-FORWARD -m comment --comment \"drawbridge 00000000aa old\" -j DROP\nCOMMIT\n",
		},
		{
			"a rule of somebody in a chain of ours",
			func(m *model) { in(m, "filter", chainForward, slices.Insert(permitRules(), 1, "-j DROP")...) },
			"*filter\n:DRAWBRIDGE-FORWARD - [0:0]\n" + strings.TrimSuffix(permit(namesOf(false), firewall.Family{}).text(), "\n") + "\nCOMMIT\n",
		},
		{
			"two rules of a chain of ours exchanged",
			func(m *model) {
				rules := permitRules()
				rules[0], rules[1] = rules[1], rules[0]
				in(m, "filter", chainForward, rules...)
			},
			"*filter\n:DRAWBRIDGE-FORWARD - [0:0]\n" + strings.TrimSuffix(permit(namesOf(false), firewall.Family{}).text(), "\n") + "\nCOMMIT\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := &model{tables: dump{}}
			if err := m.restore(script(dump{}, v4)); err != nil {
				t.Fatal(err)
			}
			test.change(m)
			if diff := cmp.Diff(test.want, script(m.save(), v4)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// permitRules are the rules of the chain that permits.
func permitRules() []string { return permit(namesOf(false), firewall.Family{}).lines() }

// jumpTo returns the jump of the filter table that leads to a chain.
func jumpTo(t *testing.T, r Ruleset, chain string) string {
	t.Helper()
	for _, j := range r.Tables[1].Jumps {
		if j.Rule.Target == chain {
			return j.spec()
		}
	}
	t.Fatalf("no jump to %s", chain)
	return ""
}

// TestRemovalText: what happens to each chain when nothing is wanted any more.
func TestRemovalText(t *testing.T) {
	tests := []struct {
		name, table string
		have        map[string][]string
		want        []string
	}{
		{"nothing", "filter", nil, nil},
		{"a chain of ours", "nat", map[string][]string{chainDNAT: {"-j RETURN"}}, []string{"-F DRAWBRIDGE-DNAT", "-X DRAWBRIDGE-DNAT"}},
		{"an empty chain of ours", "nat", map[string][]string{chainDNAT: nil}, []string{"-X DRAWBRIDGE-DNAT"}},
		{
			"a foreign rule leads to a chain of ours", "nat",
			map[string][]string{chainDNAT: {"-j RETURN"}, "PREROUTING": {"-j DRAWBRIDGE-DNAT"}},
			[]string{"-F DRAWBRIDGE-DNAT"},
		},
		{"and it is empty already", "nat", map[string][]string{chainDNAT: nil, "PREROUTING": {"-j DRAWBRIDGE-DNAT"}}, nil},
		{
			"chains of ours lead to one another", "nat",
			map[string][]string{chainDNAT: {"-j DRAWBRIDGE-tcp-0-1"}, "DRAWBRIDGE-tcp-0-1": {"-j RETURN"}},
			[]string{"-F DRAWBRIDGE-DNAT", "-F DRAWBRIDGE-tcp-0-1", "-X DRAWBRIDGE-DNAT", "-X DRAWBRIDGE-tcp-0-1"},
		},
		{"the user's chain", "mangle", map[string][]string{chainUser: nil}, []string{"-X DRAWBRIDGE-USER"}},
		{"the user's chain with rules", "mangle", map[string][]string{chainUser: {"-j RETURN"}}, nil},
		{"the user's chain with a jump of the user's", "mangle", map[string][]string{chainUser: nil, "INPUT": {"-j DRAWBRIDGE-USER"}}, nil},
		{
			"DOCKER-USER that we made", "filter",
			map[string][]string{chainForward: nil, chainDockerUser: nil, "FORWARD": {"-j DOCKER-USER"}},
			[]string{"-D FORWARD -j DOCKER-USER", "-X DOCKER-USER", "-X DRAWBRIDGE-FORWARD"},
		},
		{"DOCKER-USER without us", "filter", map[string][]string{chainDockerUser: nil, "FORWARD": {"-j DOCKER-USER"}}, nil},
		{
			"DOCKER-USER with rules", "filter",
			map[string][]string{chainForward: nil, chainDockerUser: {"-j RETURN"}, "FORWARD": {"-j DOCKER-USER"}},
			[]string{"-X DRAWBRIDGE-FORWARD"},
		},
		{
			"DOCKER-USER of Docker 20", "filter",
			map[string][]string{chainForward: nil, chainDockerUser: nil, "DOCKER": nil, "FORWARD": {"-j DOCKER-USER"}},
			[]string{"-X DRAWBRIDGE-FORWARD"},
		},
		{
			"DOCKER-USER of Docker 28", "filter",
			map[string][]string{chainForward: nil, chainDockerUser: nil, "DOCKER-FORWARD": nil, "FORWARD": {"-j DOCKER-USER"}},
			[]string{"-X DRAWBRIDGE-FORWARD"},
		},
		{
			"DOCKER-USER that others lead to", "filter",
			map[string][]string{chainForward: nil, chainDockerUser: nil, "INPUT": {"-i x -j DOCKER-USER"}},
			[]string{"-X DRAWBRIDGE-FORWARD"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lines, _, _ := tableScript(test.have, Table{Name: test.table})
			if diff := cmp.Diff(test.want, lines, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
