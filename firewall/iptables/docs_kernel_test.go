//go:build kernel

package iptables

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

const rulesFolder = "../../docs/rules"

// TestDocumentation applies the state of each page in a network namespace and compares what the kernel then holds with
// the page. -update writes the pages anew (make docs).
func TestDocumentation(t *testing.T) {
	version := newBareLab(t).version()
	files := map[string]string{}
	for _, p := range pages {
		t.Run(p.name, func(t *testing.T) { files[p.name+".md"] = p.render(t) })
	}
	files["README.md"] = indexPage(t, version)
	if *update {
		writePages(t, files)
		return
	}
	if recorded := readPage(t, "README.md"); !strings.Contains(recorded, version) {
		t.Skipf("the pages in docs/rules are not of this machine's %s, whose words may differ: `make docs` writes them anew", version)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if diff := gocmp.Diff(files[name], readPage(t, name)); diff != "" {
			t.Errorf("docs/rules/%s does not show the rules as they are: run `make docs` as root and commit what it changed (-kernel +page):\n%s", name, diff)
		}
	}
	for _, name := range pageNames(t) {
		if _, ok := files[name]; !ok {
			t.Errorf("docs/rules/%s is the page of no case: remove it", name)
		}
	}
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(rulesFolder, name))
	if err != nil {
		t.Fatalf("%v: run `make docs` as root", err)
	}
	return string(text)
}

func pageNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(rulesFolder, "*.md"))
	must(t, err)
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files
}

func writePages(t *testing.T, files map[string]string) {
	t.Helper()
	for _, name := range pageNames(t) {
		if _, ok := files[name]; !ok {
			must(t, os.Remove(filepath.Join(rulesFolder, name)))
		}
	}
	for name, text := range files {
		must(t, os.WriteFile(filepath.Join(rulesFolder, name), []byte(text), 0o644))
	}
}

// newBareLab is a host with nothing on it. Rules may name links that are not there.
func newBareLab(t *testing.T) *lab {
	t.Helper()
	l := withBackend(firewalltest.NewBare(t, "-nft"))
	l.backend.host.BridgeSysctls = "/no/such/directory"
	return l
}

// version names the program whose words the pages have.
func (l *lab) version() string {
	l.T.Helper()
	out, err := l.Run(l.T.Context(), "", "iptables-nft", "--version")
	must(l.T, err)
	return strings.TrimSpace(out)
}

// held is what the kernel holds of one family: the rules by table, and the lines of the sets.
type held struct {
	tables dump
	policy map[string][]string // the kernel's own chains, as iptables-save declares them, by table
	sets   []string
}

func (l *lab) held(v6 bool) held {
	l.T.Helper()
	save, err := l.Run(l.T.Context(), "", program(v6)+l.Variant+"-save")
	must(l.T, err)
	sets, err := l.Run(l.T.Context(), "", "ipset", "save", "-sorted")
	must(l.T, err)
	h := held{tables: parse(save), policy: map[string][]string{}}
	table := ""
	for line := range strings.Lines(save) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " [")
		if rest, ok := strings.CutPrefix(line, "*"); ok {
			table = rest
		} else if strings.HasPrefix(line, ":") && !strings.HasSuffix(line, " -") {
			h.policy[table] = append(h.policy[table], line)
		}
	}
	for line := range strings.Lines(sets) {
		if m := setLine.FindStringSubmatch(line); m != nil && m[2] == byFamily(v6, "4", "6") {
			h.sets = append(h.sets, m[1])
		}
	}
	return h
}

// setLine is a line of ipset save without what says how large the hash is.
var setLine = regexp.MustCompile(`^((?:create|add) DRAWBRIDGE-[a-z-]+([46]) \S+(?: family \w+)?)`)

// tableOrder is the order in which tables are loaded and shown.
var tableOrder = []string{"mangle", "filter", "nat"}

// all returns everything that is held, a line each.
func (h held) all() []string {
	out := slices.Clone(h.sets)
	for _, table := range tableOrder {
		for _, chain := range sortedNames(h.tables[table]) {
			out = append(out, rulesOf(chain, h.tables[table][chain])...)
		}
	}
	return out
}

// render applies the page's state and writes the page.
func (p page) render(t *testing.T) string {
	l := newBareLab(t)
	_, parts := readArchive(t, filepath.Join("testdata", p.archive+".txtar"))
	l.backend.host.Bridges = func() ([]string, error) { return hostOf(parts, state.Snapshot{}).DockerBridges, nil }
	if _, user := parts["user"]; user {
		l.asUser(readState(t, parts))
	} else {
		l.sync(readState(t, parts))
	}
	if p.gone {
		l.sync(state.Snapshot{})
	}
	h4, h6 := l.held(false), l.held(true)
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Made by make docs from what the kernel holds. Do not edit. -->\n\n# %s\n\n%s\n\n```sh\n%s\n```\n\n", p.title, p.text, p.commands)
	if len(p.matters) > 0 {
		b.WriteString("## What this page is about\n\n")
	}
	for _, m := range p.matters {
		b.WriteString(m.render(t, h4))
	}
	fmt.Fprintf(&b, "## IPv4\n\n%s", h4.render(t))
	fmt.Fprintf(&b, "## IPv6\n\n<details><summary>The same in IPv6</summary>\n\n%s</details>\n", h6.render(t))
	return b.String()
}

// asUser is sync on a host whose user has a rule in DOCKER-USER, and with all that sockets of the host need.
func (l *lab) asUser(s state.Snapshot) {
	l.T.Helper()
	for v6, friend := range map[bool]string{false: "192.0.2.7", true: "2001:db8::7"} {
		for _, rule := range []string{"-N DOCKER-USER", "-A DOCKER-USER -i eth0 ! -s " + friend + " -j DROP"} {
			_, err := l.Run(l.T.Context(), "", append([]string{program(v6) + l.Variant}, strings.Fields(rule)...)...)
			must(l.T, err)
		}
	}
	settings := firewall.Settings{Loopback: func(n state.Network) bool { return !n.Internal }, Latch: l.Latch, Divert: statetest.Diverts}
	must(l.T, firewall.NewPlane(l.backend, settings).Apply(l.T.Context(), s))
}

// render shows the rule or element with its sentence.
func (m matter) render(t *testing.T, h held) string {
	t.Helper()
	pattern := regexp.QuoteMeta(m.line)
	if why := !strings.HasPrefix(m.line, "-") && strings.Contains(m.line, `" -`); why {
		pattern = `"` + mark + ` [0-9a-f]{10} ` + pattern
	}
	found := slices.DeleteFunc(h.all(), func(line string) bool { return !regexp.MustCompile(pattern).MatchString(line) })
	if len(found) == 0 || len(found) > 3 { // in two chains of a table and one of another, at most
		t.Errorf("the page speaks of %q, and the kernel holds %d of it: mend docs_pages_kernel_test.go", m.line, len(found))
	}
	return fmt.Sprintf("%s\n\n```text\n%s```\n\n", m.sentence, lines(found))
}

// render shows all blocks, each with its sentence.
func (h held) render(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if len(h.sets) > 0 {
		fmt.Fprintf(&b, "### Sets\n\n[What is in which](README.md#sets). Sets that are empty here are named by rules that serve other networks.\n\n```text\n%s\n```\n\n", strings.Join(h.sets, "\n"))
	}
	for _, table := range tableOrder {
		if _, ok := h.tables[table]; ok {
			fmt.Fprintf(&b, "### Table %s\n\n", table)
			b.WriteString(h.renderTable(t, table))
		}
	}
	for table := range h.tables {
		if !slices.Contains(tableOrder, table) {
			t.Errorf("table %s is shown on no page: mend docs_kernel_test.go", table)
		}
	}
	return b.String()
}

func (h held) renderTable(t *testing.T, table string) string {
	t.Helper()
	left := maps.Clone(h.tables[table])
	own := h.policy[table]
	var jumps []string
	for _, declared := range own {
		chain, _, _ := strings.Cut(declared[1:], " ")
		jumps = append(jumps, rulesOf(chain, left[chain])...)
		delete(left, chain)
	}
	var b strings.Builder
	for _, c := range chainTexts {
		rules, ok := left[c.chain]
		switch {
		case c.table != table:
		case c.chain == "" && len(jumps) > 0:
			fmt.Fprintf(&b, "%s\n\n```text\n%s\n```\n\n", c.text, strings.Join(slices.Concat(own, jumps), "\n"))
		case c.chain == "":
			fmt.Fprintf(&b, "```text\n%s\n```\n\n", strings.Join(own, "\n"))
		case ok:
			delete(left, c.chain)
			fmt.Fprintf(&b, "`%s`: %s\n\n```text\n:%s -\n%s```\n\n", c.chain, c.text, c.chain, lines(rulesOf(c.chain, rules)))
		}
	}
	for chain := range left {
		t.Errorf("chain %s of table %s has no sentence: add one to docs_pages_kernel_test.go", chain, table)
	}
	return b.String()
}

func rulesOf(chain string, rules []string) []string {
	var out []string
	for _, r := range rules {
		out = append(out, "-A "+chain+" "+r)
	}
	return out
}

func lines(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return strings.Join(all, "\n") + "\n"
}

const indexTop = `<!-- Made by make docs. Do not edit. -->

# The rules as they are

What the kernel holds in the main cases, taken from it by a test. The words are those of %s; ` + "`drawbridge rules`" + ` prints the rules of a running daemon in the same form.

## A packet's way

Each line names a chain of the kernel, and what we have in it.

` + "```" + `
 from outside, or from a container                               from the host itself
              |                                                            |
   mangle PREROUTING  your rules (DRAWBRIDGE-USER):          mangle OUTPUT  no redirects
              |       --dport is the published port                        |
              |       no way to 127.0.0.1 (DRAWBRIDGE-PREROUTING)          |
              |       who may come (DRAWBRIDGE-LIMIT)                      |
   nat PREROUTING     published ports (DRAWBRIDGE-DNAT):        nat OUTPUT  published ports
              |       the destination becomes the container, unless        |
              |       the host's own rules are to decide                   |
              |                                                            |
       [ where to? ] -- to the host itself --> INPUT, not ours             |
              |                                                            |
   mangle FORWARD     what is refused (DRAWBRIDGE-FORWARD):                |
              |       a DROP here is final                                 |
   filter FORWARD     your rules (DOCKER-USER):                            |
              |       --dport is the container's port                      |
              |       what was sent to ask them ends (DRAWBRIDGE-INQUIRY)  |
              |       what is permitted (DRAWBRIDGE-FORWARD)               |
              |       ... rules of others ...                              |
              |       the host is no router (DRAWBRIDGE-GUARD)             |
              |                                                            |
              +------------------------------+-----------------------------+
                                             |
                         nat POSTROUTING     sources (DRAWBRIDGE-POSTROUTING):
                                             |       masquerade, hairpin
                                            out
` + "```" + `

A packet goes through ` + "`nat`" + ` only if it begins a connection; all others of the connection are translated alike. What stays within a network is bridged, and comes by here only where
br_netfilter shows it. Clients that use ::1 are served by a socket of the daemon, and by no rule.

Each rule has a comment: ` + "`drawbridge`" + `, a hash by which the rule is found again, and why it is there.

## The cases

`

// indexPage writes the first page, with a key to the words that rules are made of.
func indexPage(t *testing.T, version string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, indexTop, version)
	for _, p := range pages {
		fmt.Fprintf(&b, "* [%s](%s.md)\n", p.title, p.name)
	}
	b.WriteString("\n## Device groups\n\nBridges are recognised by their device group, which `ip -d link` shows.\n\n| match | the packet |\n|---|---|\n")
	for _, m := range matchTexts {
		fmt.Fprintf(&b, "| `%s` | %s |\n", m.match, m.text)
	}
	b.WriteString("\n## Sets\n\nEach exists once per family: `DRAWBRIDGE-nets4` and `DRAWBRIDGE-nets6`.\n\n| set | type | holds |\n|---|---|---|\n")
	known := map[string]string{}
	for _, s := range sets(firewall.Family{}, namesOf(false)) {
		known[strings.TrimSuffix(s.Name, "4")] = s.Type
	}
	for _, s := range setTexts {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.set, cmp.Or(known[s.set], "none"), s.text)
		if _, ok := known[s.set]; !ok {
			t.Errorf("there is no set %s: mend docs_pages_kernel_test.go", s.set)
		}
		delete(known, s.set)
	}
	for name := range known {
		t.Errorf("set %s has no sentence: add one to docs_pages_kernel_test.go", name)
	}
	return b.String()
}
