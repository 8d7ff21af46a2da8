package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the generated parts of the documentation anew (make docs)")

// mostUsed are the options that docs/networks.md shows.
var mostUsed = []string{
	"com.docker.network.bridge.name",
	"com.docker.network.driver.mtu",
	"com.docker.network.bridge.enable_icc",
	"com.docker.network.bridge.enable_ip_masquerade",
	"com.docker.network.bridge.host_binding_ipv4",
	"com.docker.network.bridge.gateway_mode_ipv4",
	"com.docker.network.bridge.gateway_mode_ipv6",
	"com.docker.network.host_ipv4",
}

// TestDocumentation compares the generated parts of the documentation with the program. A part stands between
// comments that name it; -update writes all parts anew.
func TestDocumentation(t *testing.T) {
	all := listSettings()
	managed, _ := readManaged(t)
	parts := map[string]string{
		"most used options": settingsTable(pick(t, all.Network, mostUsed), false),
		"network options":   settingsTable(all.Network, false),
		"container options": settingsTable(all.Endpoint, false),
		"flags of serve":    settingsTable(all.Serve, true),
		"commands":          commandsTable(),
		"exit codes":        exitCodesTable(),
		"privileges":        "```console\n$ docker plugin install --alias drawbridge registry.example.com/drawbridge:1.0\n" + privileges(managed) + "```\n",
	}
	for _, file := range []string{"docs/networks.md", "docs/reference.md", "docs/managed-plugin.md"} {
		path := filepath.Join("..", "..", file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := fill(string(text), parts)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("%s does not say what the program does: run `make docs` and commit what it changed (-program +%s):\n%s", file, file, diff)
		}
	}
}

var generated = regexp.MustCompile(`(?s)(<!-- ([a-z ]+): begin, made by make docs -->\n)(.*?)(<!-- ([a-z ]+): end -->)`)

// fill puts the parts between their comments.
func fill(text string, parts map[string]string) (string, error) {
	var err error
	out := generated.ReplaceAllStringFunc(text, func(old string) string {
		m := generated.FindStringSubmatch(old)
		part, ok := parts[m[2]]
		if !ok || m[2] != m[5] {
			err = fmt.Errorf("the comments of a generated part are %q and %q", m[2], m[5])
		}
		return m[1] + part + m[4]
	})
	if out == text && !generated.MatchString(text) {
		err = fmt.Errorf("there is no generated part")
	}
	return out, err
}

func pick(t *testing.T, all []setting, keys []string) []setting {
	t.Helper()
	var out []setting
	for _, key := range keys {
		i := slices.IndexFunc(all, func(s setting) bool { return s.Key == key })
		if i < 0 {
			t.Fatalf("there is no option %s", key)
		}
		out = append(out, all[i])
	}
	return out
}

// table writes rows in Markdown.
func table(header []string, rows [][]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(cell)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

func settingsTable(settings []setting, environment bool) string {
	header := []string{"key", "type", "default", "meaning"}
	if environment {
		header = []string{"flag", "type", "default", "environment variable", "meaning"}
	}
	var rows [][]string
	for _, s := range settings {
		row := []string{code(s.Key), s.Type, s.Default}
		if environment {
			row = append(row, code(s.Environment))
		}
		rows = append(rows, append(row, s.Meaning))
	}
	return table(header, rows)
}

func code(s string) string { return "`" + s + "`" }

// commandsTable leaves out what cobra adds, and the flags of serve, which have a table.
func commandsTable() string {
	var rows [][]string
	for _, cmd := range newRoot().Commands() {
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		var flags []string
		for _, f := range flagsOf(cmd) {
			flags = append(flags, code(f.Key))
		}
		text := strings.Join(flags, ", ")
		if cmd.Name() == "serve" {
			text = "see above"
		}
		rows = append(rows, []string{code("drawbridge " + cmd.Name()), cmd.Short, text})
	}
	return table([]string{"command", "what it does", "flags"}, rows)
}

func exitCodesTable() string {
	var rows [][]string
	for code, meaning := range exitMeanings {
		rows = append(rows, []string{fmt.Sprint(code), meaning})
	}
	return table([]string{"code", "meaning"}, rows)
}

// TestFill makes sure that the comparison above can fail.
func TestFill(t *testing.T) {
	parts := map[string]string{"one": "new\n"}
	const begin, end = "<!-- one: begin, made by make docs -->\n", "<!-- one: end -->"
	if got, err := fill("a\n"+begin+"old\n"+end+"\nb", parts); err != nil || got != "a\n"+begin+"new\n"+end+"\nb" {
		t.Errorf("got %q, error %v", got, err)
	}
	for _, text := range []string{"", begin, strings.ReplaceAll(begin+end, "one", "two"), begin + strings.Replace(end, "one", "two", 1)} {
		if got, err := fill(text, parts); err == nil {
			t.Errorf("%q became %q without an error", text, got)
		}
	}
}

// TestOptionsText: every setting is there, and fits the terminal.
func TestOptionsText(t *testing.T) {
	var b strings.Builder
	all := listSettings()
	if err := all.write(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > columns {
			t.Errorf("%d characters: %s", n, line)
		}
	}
	for _, s := range slices.Concat(all.Network, all.Endpoint, all.Serve) {
		if !strings.Contains(b.String(), "  "+s.Key+"\n") || s.Type == "" || s.Meaning == "" {
			t.Errorf("incomplete: %+v", s)
		}
	}
}
