package nftables

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Text returns the table in nft's language, for people.
func (r Ruleset) Text() string { return r.text(tableName) }

func (r Ruleset) text(table string) string {
	if r.IsEmpty() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n\tcomment %q\n", table, tableComment)
	for _, s := range r.Sets {
		b.WriteString(s.text())
	}
	for _, c := range r.Chains {
		b.WriteString(c.text())
	}
	b.WriteString("}\n")
	return b.String()
}

func (s Set) text() string {
	var b strings.Builder
	word, kind := "set", typeText(s.Key)
	if len(s.Value) > 0 {
		word, kind = "map", kind+" : "+typeText(s.Value)
	}
	fmt.Fprintf(&b, "\n\t%s %s {\n\t\ttype %s\n", word, s.Name, kind)
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Timeout > 0 {
		fmt.Fprintf(&b, "\t\tsize %d\n\t\tflags dynamic,timeout\n\t\ttimeout %s\n", s.Size, timeText(s.Timeout))
	}
	if len(s.Elements) > 0 {
		var texts []string
		for _, e := range s.Elements {
			texts = append(texts, "\t\t\t"+s.element(e))
		}
		fmt.Fprintf(&b, "\t\telements = {\n%s\n\t\t}\n", strings.Join(texts, ",\n"))
	}
	b.WriteString("\t}\n")
	return b.String()
}

// timeText is a time as nft takes it, which knows no fractions.
func timeText(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

func typeText(fields []datatype) string {
	var out []string
	for _, f := range fields {
		out = append(out, f.name)
	}
	return strings.Join(out, " . ")
}

func (c Chain) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n\tchain %s {\n", c.Name)
	if c.Base.Type != "" {
		fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Base.Type, hookNames[c.Base.Hook], c.Base.Priority)
	}
	for i, id := range c.ids() {
		fmt.Fprintf(&b, "\t\t%s comment %q\n", c.Rules[i].text(), comment(id, c.Rules[i].Why))
	}
	b.WriteString("\t}\n")
	return b.String()
}

var hookNames = map[uint32]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

func (r Rule) text() string {
	var out []string
	for _, p := range r.Parts {
		out = append(out, p.Text)
	}
	return strings.Join(out, " ")
}
