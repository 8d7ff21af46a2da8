//go:build engine

package docs

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// elsewhere are blocks that this test does not type, by words in them, and where that is done what they say.
var elsewhere = map[string]string{
	"dist/drawbridge_":              "the tests of test/package do it",
	"docker plugin ":                "the tests of test/managed do it, with a registry of their own",
	"make bench":                    "a benchmark of minutes, which nobody waits for in a test; its README is about its own figures",
	"make demo":                     "the test of test/demo runs the demo, and this test is a part of make test",
	"make install":                  "the tests of test/systemd do it",
	"driver_opts: {drawbridge.name": "takes compose 2.27.1, which Debian does not have yet; the commands in front of it mean the same",
}

// shelves are the documents, those of each typed on a host of their own.
var shelves = []string{"README.md", "docs/*.md", "docs/*/*.md"}

func blocksOf(t *testing.T, pattern string) (out []Block) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("../..", pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents are like %s: %v", pattern, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Blocks(strings.TrimPrefix(path, "../../"), string(text))...)
	}
	return out
}

// TestDocuments types every command of the README and of docs, and brings every compose project up, on a real engine behind ufw. It stops at the first
// command that fails, and checks behind those that promise something whether that holds.
func TestDocuments(t *testing.T) {
	for _, shelf := range shelves {
		t.Run(shelf, func(t *testing.T) {
			t.Parallel()
			blocks := blocksOf(t, shelf)
			s := newStage(t)
			for _, b := range blocks {
				switch {
				case isElsewhere(b):
					continue
				case b.Kind == "sh" || b.Kind == "console":
					s.typeAll(b)
				case b.Kind == "yaml":
					s.compose(b)
				default:
					continue // a drawing, or rules as they are shown
				}
				s.clear()
			}
		})
	}
}

func isElsewhere(b Block) bool {
	for words := range elsewhere {
		if strings.Contains(b.Text, words) {
			return true
		}
	}
	return false
}

// stage is a host as the documents have it: its link is eth0, ufw is on, and the images that they name are there.
type stage struct {
	*lab.Host
	t      *testing.T
	docker *lab.Docker
	path   string // where programs are looked for
	// near is 192.168.1.1, and far is somebody else.
	near, far *lab.Client
	told      bool // ufw was told something
}

func newStage(t *testing.T) *stage {
	t.Helper()
	program := os.Getenv("DRAWBRIDGE_BIN")
	if program == "" {
		t.Fatal("DRAWBRIDGE_BIN does not name the built program: use make test-engine")
	}
	s := &stage{Host: lab.Up(t, lab.Options{}), t: t, path: filepath.Dir(program) + ":" + os.Getenv("PATH")}
	_, err := s.AddUplink(t.Context(), "eth0", netip.MustParsePrefix("192.168.1.2/24"), netip.MustParsePrefix("2001:db8:1::2/64"))
	s.must(err)
	s.near = s.neighbour("near", "192.168.1.1/24", "2001:db8:1::1/64")
	s.far = s.neighbour("far", "192.168.1.7/24", "2001:db8:1::7/64")
	s.must(s.StartUFW(t.Context()))
	_, err = s.Start("drawbridge", []string{program, "serve"}, nil)
	s.must(err)
	s.docker, err = s.StartDocker(t.Context(), lab.DockerOptions{})
	s.must(err)
	s.images()
	return s
}

func (s *stage) neighbour(name string, addrs ...string) *lab.Client {
	s.t.Helper()
	o := lab.ClientOptions{Uplink: "eth0"}
	for _, a := range addrs {
		o.Addrs = append(o.Addrs, netip.MustParsePrefix(a))
	}
	c, err := s.AddClient(s.t.Context(), name, o)
	s.must(err)
	return c
}

// images are those that the documents name, by what they answer on. There is no registry: all of them are the lab's.
var images = map[string]string{
	"nginx": `"tcp", ":80", ":443"`, "prom/prometheus": `"tcp", ":9090"`, "postgres": `"tcp", ":5432"`, "app": `"tcp", ":80"`, "busybox": "",
}

func (s *stage) images() {
	s.t.Helper()
	image, err := s.docker.Image(s.t.Context())
	s.must(err)
	for name, answers := range images {
		_, err := s.docker.Run(s.t.Context(), "create", "--name", "model", image)
		s.must(err)
		change := `CMD ["sh"]`
		if answers != "" {
			change = `CMD ["/probe", "serve", ` + answers + `]`
		}
		_, err = s.docker.Run(s.t.Context(), "commit", "--change", change, "model", name)
		s.must(err)
		_, err = s.docker.Run(s.t.Context(), "rm", "model")
		s.must(err)
	}
}

func (s *stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// sh has a shell run what a user typed.
func (s *stage) sh(line string) string {
	s.t.Helper()
	s.told = s.told || strings.Contains(line, "ufw ")
	out, err := s.Command(s.t.Context(), "env", "PATH="+s.path, "bash", "-euc", line).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// typeAll types a block's commands one by one, and compares the answers that it shows.
func (s *stage) typeAll(b Block) {
	s.t.Helper()
	for _, c := range b.Commands() {
		s.t.Logf("%s:%d: %s", b.Document, b.Line, c.Text)
		got := s.sh(c.Text)
		if c.Answer != "" && alike(got) != alike(c.Answer) {
			s.t.Errorf("%s: %s says\n%s, and the document\n%s", b.Document, c.Text, alike(got), alike(c.Answer))
		}
		if promise := promises[c.Text]; promise != nil {
			promise(s)
		}
	}
}

// alike is an answer without what differs from host to host: ids, addresses of containers, and how wide columns are.
func alike(answer string) string {
	for _, r := range []struct{ what, by string }{{`\b[0-9a-f]{12}\b`, "ID"}, {`\b172\.\d+\.\d+\.\d+`, "ADDRESS"}, {` +`, " "}, {` ?\n`, "\n"}} {
		answer = regexp.MustCompile(r.what).ReplaceAllString(answer, r.by)
	}
	return answer
}

// compose brings a project up and down.
func (s *stage) compose(b Block) {
	s.t.Helper()
	s.t.Logf("%s:%d: compose", b.Document, b.Line)
	file := filepath.Join(s.Dir(), "compose.yaml")
	s.must(os.WriteFile(file, []byte(b.Text), 0o644))
	s.sh("docker-compose -p project -f " + file + " up -d")
	for words, promise := range projects {
		if strings.Contains(b.Text, words) {
			promise(s)
		}
	}
	s.sh("docker-compose -p project -f " + file + " down")
}

// clear takes away what a block has made, so that the next one stands for itself.
func (s *stage) clear() {
	s.t.Helper()
	s.sh("docker ps -aq | xargs -r docker rm -f; docker network prune -f; iptables -F DOCKER-USER; iptables -t mangle -F DRAWBRIDGE-USER || true")
	if s.told {
		s.must(s.StartUFW(s.t.Context()))
		s.told = false
	}
}
