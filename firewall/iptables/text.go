package iptables

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Text returns a rule set in the languages of iptables-restore and ipset restore, for
// people: sets first, then tables.
func (r Ruleset) Text() string {
	var b strings.Builder
	for _, s := range r.Sets {
		fmt.Fprintf(&b, "create %s %s family %s\n", s.Name, s.Type, byFamily(s.V6, "inet", "inet6"))
		for _, e := range s.Elements {
			fmt.Fprintf(&b, "add %s %s\n", s.Name, e)
		}
	}
	for _, t := range r.Tables {
		b.WriteString(t.text())
	}
	return b.String()
}

func (t Table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.Name)
	for _, name := range t.User {
		fmt.Fprintf(&b, ":%s - [0:0]\n", name)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c.Name)
	}
	for _, j := range t.Jumps {
		fmt.Fprintf(&b, "-A %s %s\n", j.From, j.spec())
	}
	for _, c := range t.Chains {
		b.WriteString(c.text())
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func (c Chain) text() string {
	var b strings.Builder
	for _, line := range c.lines() {
		fmt.Fprintf(&b, "-A %s %s\n", c.Name, line)
	}
	return b.String()
}

// lines returns the rules as iptables reads them, without the chain.
func (c Chain) lines() []string {
	out := make([]string, 0, len(c.Rules))
	for i, id := range ids(c.Name, c.Rules) {
		out = append(out, c.Rules[i].spec(id))
	}
	return out
}

// Rules implements firewall.Backend.
func (b *Backend) Rules(p firewall.Policy) string {
	var out strings.Builder
	for _, f := range p.Families() {
		if f.IsEmpty() {
			continue
		}
		fmt.Fprintf(&out, "# %s\n%s", program(f.V6), b.render(f).Text())
	}
	return out.String()
}

// program is the name of the family's tool.
func program(v6 bool) string { return byFamily(v6, "iptables", "ip6tables") }

func portText(p uint16) string { return strconv.Itoa(int(p)) }
