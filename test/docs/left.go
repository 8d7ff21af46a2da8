package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// documents are those that tell readers what to type, by patterns in the project's folder.
var documents = []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/*/*.md"}

// plugin is the document that test/managed types, where the engine runs the daemon.
const plugin = "docs/managed-plugin.md"

// left are commands, a line each, that take another host than this package's tests have, by the test that has it. That test gets them from Left.
var left = []struct {
	test, document, title string
	commands              []string
}{
	{"test/docs.TestUnits", "README.md", "Install it", []string{ // ahead of docs/operations.md
		"make install", "systemctl daemon-reload", "systemctl enable --now drawbridge",
	}},
	{"test/docs.TestUnits", plugin, "Drawbridge as a managed plugin", []string{"systemctl disable --now drawbridge.socket drawbridge"}},
	{"test/package.TestUnderSystemd", "README.md", "Install it", []string{
		"apt install ./dist/drawbridge_*_amd64.deb", "apt remove drawbridge", "apt purge drawbridge",
	}},
	{"test/managed.TestLife", "docs/publishing.md", "Published ports and the host's firewall", []string{"firewall-cmd --add-port 8080/tcp"}},
	{"test/managed.TestRegistry", "README.md", "Install it", []string{
		"docker plugin create drawbridge bin/plugin",
		"docker plugin enable drawbridge",
		"docker network create -d drawbridge:latest --ipam-driver drawbridge:latest web",
	}},
	{"test/managed.TestRegistry", plugin, "Install it", []string{
		"docker plugin install --alias drawbridge registry.example.com/drawbridge:1.0",
		"docker network create -d drawbridge:latest --ipam-driver drawbridge:latest web",
		"docker plugin create drawbridge bin/plugin",
		"docker plugin enable drawbridge",
		"docker plugin create registry.example.com/drawbridge:1.0 bin/plugin",
		"docker plugin push registry.example.com/drawbridge:1.0",
	}},
	{"test/managed.TestRegistry", plugin, "What it may do", []string{
		"docker plugin install --alias drawbridge registry.example.com/drawbridge:1.0",
	}},
	{"test/managed.TestRegistry", plugin, "Settings", []string{
		"docker plugin install --alias drawbridge registry.example.com/drawbridge:1.0 DRAWBRIDGE_PUBLISH=host",
		"docker plugin disable -f drawbridge",
		`docker plugin set drawbridge DRAWBRIDGE_LOG_LEVEL=debug "DRAWBRIDGE_DEFAULT_ADDRESS_POOL=base=10.10.0.0/16,size=24 base=fd00:10::/48,size=64"`,
		"docker plugin enable drawbridge",
	}},
	{"test/managed.TestRegistry", plugin, "Look at it", []string{
		"home=$(docker info -f '{{.DockerRootDir}}')/plugins/$(docker plugin inspect -f '{{.Id}}' drawbridge)",
		`alias drawbridge="$home/rootfs/usr/sbin/drawbridge"`,
		"drawbridge ports",
	}},
	{"test/managed.TestRegistry", plugin, "Upgrade", []string{
		"docker plugin disable -f drawbridge",
		"docker plugin upgrade --skip-remote-check drawbridge registry.example.com/drawbridge:1.1",
		"docker plugin enable drawbridge",
	}},
	{"test/managed.TestRegistry", plugin, "Remove it", []string{
		"docker network rm web",
		"docker plugin disable drawbridge",
		`drawbridge purge --state "$home/propagated-mount/state.db"`,
		"docker plugin rm drawbridge",
	}},
	{"test/managed.TestStateMoves", plugin, "Without a registry", []string{
		"docker plugin disable -f drawbridge",
		`cp "$home/propagated-mount/state.db" /var/lib/drawbridge-state.db`,
		"docker plugin rm -f drawbridge",
		"docker plugin create drawbridge bin/plugin",
		"docker plugin enable drawbridge",
		"home=$(docker info -f '{{.DockerRootDir}}')/plugins/$(docker plugin inspect -f '{{.Id}}' drawbridge)",
		`cp /var/lib/drawbridge-state.db "$home/propagated-mount/state.db"`,
	}},
}

// leftTo is the test to which a block's command is left, "" for none.
func leftTo(b Block, command string) string {
	for _, l := range left {
		if l.document == b.Document && l.title == b.Title && slices.Contains(l.commands, command) {
			return l.test
		}
	}
	return ""
}

// A Script is what the documents leave to one test.
type Script struct {
	t      testing.TB
	blocks []Block
	test   string
	typed  map[string]bool // by where a block stands
}

// Left returns what is left to a test, in whose end it fails where it has not asked for all of it.
func Left(t testing.TB, test string) *Script {
	t.Helper()
	s := &Script{t: t, test: test, typed: map[string]bool{}}
	for _, pattern := range documents {
		for _, b := range blocksOf(t, pattern) {
			if len(s.of(b)) > 0 {
				s.blocks = append(s.blocks, b)
			}
		}
	}
	t.Cleanup(func() {
		for _, b := range s.blocks {
			if !s.typed[b.place()] && !t.Failed() {
				t.Errorf("%s: %s has not typed %q", b.place(), test, s.of(b))
			}
		}
	})
	return s
}

// Under returns the commands of each block below a title of a document.
func (s *Script) Under(document, title string) (out [][]string) {
	s.t.Helper()
	for _, b := range s.blocks {
		if b.Document == document && b.Title == title {
			out = append(out, s.of(b))
			s.typed[b.place()] = true
		}
	}
	if out == nil {
		s.t.Fatalf("%s has nothing for %s below %q", document, s.test, title)
	}
	return out
}

// of are a block's commands that are left to the test.
func (s *Script) of(b Block) (out []string) {
	for _, c := range b.Commands() {
		if leftTo(b, c.Text) == s.test {
			out = append(out, c.Text)
		}
	}
	return out
}

func (b Block) place() string { return fmt.Sprintf("%s:%d", b.Document, b.Line) }

// top is the project's folder, for tests two folders below.
const top = "../.."

// blocksOf are the blocks of documents.
func blocksOf(t testing.TB, pattern string) (out []Block) {
	t.Helper()
	for path, text := range read(t, pattern) {
		out = append(out, Blocks(path, text)...)
	}
	slices.SortStableFunc(out, func(a, b Block) int { return strings.Compare(a.Document, b.Document) })
	return out
}

// read returns documents by their paths in the project.
func read(t testing.TB, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(top, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents are like %s: %v", pattern, err)
	}
	out := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(path, top+"/")] = string(text)
	}
	return out
}
