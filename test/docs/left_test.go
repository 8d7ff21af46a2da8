package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rehearsed are commands of which make and go are only asked what they would do (TestRehearsed), by where it is done: they would be a test within a test,
// take many minutes, or rewrite what other tests use at that moment.
var rehearsed = map[string]string{
	"BENCH_QUICK=1 make bench": "nobody waits for figures in a test",
	"make bench BENCH_FLAGS='-subjects bridge,iptables -scenarios connect -rounds 3 -out /tmp/bench'": "the same",
	"make bench":           "the same",
	"go run ./bench -help": "here: it has no effect",
	"make build":           "make test-engine begins with it",
	"make demo":            "test/demo runs the demo",
	"make docs":            "the tests of cmd/drawbridge and firewall compare what it would write",
	"make fuzz":            "fuzzers take as long as somebody has",
	"make lint fmt":        "make check",
	"make package":         "test/package builds the packages in the same way",
	"make plugin":          "make test-engine begins with it",
	"make soak":            "make test-soak is the same for a short time",
	"make test":            "this test is a part of it",
	"make test-load":       "a part of make test",
	"make test-unit":       "a part of make test",
	"make test-vm":         "an emulated machine takes a quarter of an hour",
	"go test -count=1 -v -tags kernel -run TestKernelMany ./publish":                                                                                    "make test-kernel",
	"DRAWBRIDGE_BIN=$PWD/bin/drawbridge DRAWBRIDGE_ENGINE=26.1 DRAWBRIDGE_BACKEND=nftables go test -count=1 -tags engine -run TestRouted ./test/engine": "make test-engine",
}

// mentioned are commands of three words and more in sentences about what somebody or something does, or which form a command has: nobody is told to type
// them, and no block has one that begins so.
var mentioned = []string{
	"docker network connect --driver-opt key=value",
	"docker network create -o key=value",
	"docker plugin rm",
	"docker rm -f",
	"docker run --link",
	"docker run --network name=web,driver-opt=key=value",
	"drawbridge purge --keep-state",
	"ip -d link",
	"ip link del",
	"ip link set … group 0",
	"ip rule add from 192.0.2.1 lookup 100",
	"journalctl -u docker",
	"nft flush ruleset",
	"nft list ruleset",
	"systemctl reload nftables",
	"systemctl stop drawbridge",
}

// isTyped reports whether a command is typed on a host of this package's own.
func isTyped(b Block, command string) bool {
	return rehearsed[command] == "" && leftTo(b, command) == ""
}

// all are the blocks of all documents.
func all(t *testing.T) (out []Block) {
	t.Helper()
	for _, pattern := range documents {
		out = append(out, blocksOf(t, pattern)...)
	}
	return out
}

// TestTables: what the tables name stands in a document, and tests that have something left to them ask for it.
func TestTables(t *testing.T) {
	found := map[string]bool{}
	for _, b := range all(t) {
		for _, c := range b.Commands() {
			found[c.Text], found[b.Document+b.Title+c.Text] = true, true
			if isTyped(b, c.Text) && !strings.HasPrefix(b.Document, "docs/") && b.Document != "README.md" {
				t.Errorf("%s: nobody types %s", b.place(), c.Text)
			}
		}
	}
	for command := range rehearsed {
		if !found[command] {
			t.Errorf("no document has the rehearsed command %s", command)
		}
	}
	for _, l := range left {
		for _, command := range l.commands {
			if !found[l.document+l.title+command] {
				t.Errorf("%s does not have, below %q: %s", l.document, l.title, command)
			}
		}
		dir, name, _ := strings.Cut(l.test, ".")
		if !has(t, dir, "func "+name+"(") || !has(t, dir, `Left(t, "`+l.test+`")`) {
			t.Errorf("%s does not ask for what %s has for it", l.test, l.document)
		}
	}
}

// has reports whether a test of a folder has the words.
func has(t *testing.T, dir, words string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(text), words)
	})
}

// command is what begins with a program that readers have, behind variables for it.
var command = regexp.MustCompile(`^([A-Z_]+=\S+ )*(apt|apt-get|cd|conntrack|cp|curl|docker|docker-compose|dpkg|drawbridge|firewall-cmd|go|ip|ip6tables|ipset|iptables|` +
	`journalctl|kill|make|man|modprobe|mv|networkctl|nft|nmcli|rm|ss|sysctl|systemctl|systemd-analyze|tc|udevadm|ufw|ulimit) `)

// TestNoCommandIsElsewhere: commands are in blocks of their own kind, where tests find them. Within a sentence they are named, if at all.
func TestNoCommandIsElsewhere(t *testing.T) {
	var typed strings.Builder
	for _, b := range all(t) {
		for _, c := range b.Commands() {
			typed.WriteString("\n" + c.Text + " ")
		}
		if b.Kind == "sh" || b.Kind == "console" {
			continue
		}
		for line := range strings.Lines(b.Text) {
			if command.MatchString(strings.TrimSpace(line)) {
				t.Errorf("%s: a command in a block of kind %q: %s", b.place(), b.Kind, line)
			}
		}
	}
	unused := slices.Clone(mentioned)
	for document, text := range texts(t) {
		for _, span := range Spans(text) {
			unused = slices.DeleteFunc(unused, func(s string) bool { return s == span })
			if command.MatchString(span) && len(strings.Fields(span)) > 2 && !strings.Contains(typed.String(), "\n"+span+" ") && !slices.Contains(mentioned, span) {
				t.Errorf("%s: no block has the command %s", document, span)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("no document mentions %q", unused)
	}
}

// texts are all documents.
func texts(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range documents {
		for document, text := range read(t, pattern) {
			out[document] = text
		}
	}
	return out
}
