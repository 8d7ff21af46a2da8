//go:build engine

package docs

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// shelves are the documents, those of each typed on a host of their own. TestUnits has one more.
var shelves = []string{"README.md", "docs/*.md", "docs/*/*.md"}

// later is a compose project that takes compose 2.27.1, which Debian does not have yet. The commands in front of it mean the same.
const later = "driver_opts: {drawbridge.name"

// TestDocuments types every command of the README and of docs, but for those that the tables have, and brings every compose project up, on a real engine
// behind ufw. It stops at the first command that fails, and checks behind those that promise something whether that holds.
func TestDocuments(t *testing.T) {
	t.Parallel()
	for _, shelf := range shelves {
		t.Run(shelf, func(t *testing.T) {
			t.Parallel()
			blocks := blocksOf(t, shelf)
			s := newStage(t)
			for _, b := range blocks {
				if b.Document != operations {
					s.play(b)
				}
			}
			s.clear()
			for document, text := range read(t, shelf) {
				s.askAll(document, text)
			}
		})
	}
}

// play does what a block says.
func (s *stage) play(b Block) {
	s.t.Helper()
	switch {
	case b.Kind == "sh" || b.Kind == "console":
		s.typeAll(b)
	case b.Kind == "yaml" && !strings.Contains(b.Text, later):
		s.compose(b)
	default:
		s.shown = b.Text // what is to be written into a file; a drawing, or rules as they are
	}
}

// ask are the commands of ours that change nothing.
var ask = regexp.MustCompile(`^drawbridge (gc --dry-run|options|ports|rules|status|verify|version)$`)

// askAll types those commands that a document has in its sentences and tables, each once.
func (s *stage) askAll(document, text string) {
	s.t.Helper()
	for _, span := range Spans(text) {
		if ask.MatchString(span) && !s.asked[span] {
			s.asked[span] = true
			s.t.Logf("%s: %s", document, span)
			s.soon(span)
		}
	}
}

// stage is a host as the documents have it: its link is eth0, ufw is on, and the images that they name are there.
type stage struct {
	*lab.Host
	t      *testing.T
	docker *lab.Docker
	path   string   // where programs are looked for
	env    []string // of what is typed, besides
	folder string   // the project's
	ready  func()   // has the daemon run, where the documents stop it
	// near is 192.168.1.1, and far is somebody else.
	near, far *lab.Client
	// promises are checked behind a command, and scenes set ahead of it.
	promises, scenes map[string]func(*stage)

	told  []string        // what takes back what ufw was told
	shown string          // the block before, if it was no command
	said  string          // what the last command answered
	asked map[string]bool // commands that were typed already
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, path: filepath.Dir(program(t)) + ":" + os.Getenv("PATH"), folder: folder(t), asked: map[string]bool{}, promises: promises, scenes: scenes}
	s.host(lab.Options{})
	s.must(s.StartUFW(t.Context()))
	_, err := s.Start("drawbridge", []string{program(t), "serve"}, nil)
	s.must(err)
	s.docker, err = s.StartDocker(t.Context(), lab.DockerOptions{})
	s.must(err)
	s.images()
	return s
}

// program is the built one.
func program(t *testing.T) string {
	t.Helper()
	return environ.Program(t, "test-engine")
}

// folder is the project's, where commands are typed.
func folder(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(top)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// host makes the host and its neighbours.
func (s *stage) host(o lab.Options) {
	s.t.Helper()
	s.Host = lab.Up(s.t, o)
	_, err := s.AddUplink(s.t.Context(), "eth0", netip.MustParsePrefix("192.168.1.2/24"), netip.MustParsePrefix("2001:db8:1::2/64"))
	s.must(err)
	s.near = s.neighbour("near", "192.168.1.1/24", "2001:db8:1::1/64")
	s.far = s.neighbour("far", "192.168.1.7/24", "2001:db8:1::7/64")
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

// undo are commands of ufw, and what takes them back.
var undo = map[string]string{"ufw allow ": "ufw delete allow ", "ufw default deny outgoing": "ufw default allow outgoing"}

// sh has a shell run what a user typed, in the project's folder.
func (s *stage) sh(line string) string {
	s.t.Helper()
	for told, back := range undo {
		if words, ok := strings.CutPrefix(line, told); ok {
			s.told = append(s.told, back+words)
		}
	}
	if strings.HasPrefix(line, "systemctl edit ") { // which wants a terminal
		line = "script --quiet --return --command '" + line + "' /dev/null"
	}
	out, err := s.shell(line).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (s *stage) shell(line string) *exec.Cmd {
	return s.Command(s.t.Context(), "env", append(append([]string{"-C", s.folder, "PATH=" + s.path}, s.env...), "bash", "-euc", line)...)
}

// soon has a shell run what need not succeed at once, as a daemon that was just started has a comparison to make.
func (s *stage) soon(line string) string {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, err := s.shell(line).CombinedOutput()
		if err == nil {
			return string(out)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not in 20 s: %s: %v\n%s", line, err, out)
		}
	}
}

// typeAll types a block's commands one by one, but for those that others do, and compares the answers that it shows.
func (s *stage) typeAll(b Block) {
	s.t.Helper()
	commands := slices.DeleteFunc(b.Commands(), func(c Command) bool { return !isTyped(b, c.Text) })
	if !slices.ContainsFunc(commands, func(c Command) bool { return goesOn[c.Text] }) {
		s.clear()
	}
	for _, c := range commands {
		if scene := s.scenes[c.Text]; scene != nil {
			scene(s)
		}
		s.t.Logf("%s: %s", b.place(), c.Text)
		s.asked[c.Text] = true
		if ask.MatchString(c.Text) {
			s.said = s.soon(c.Text)
		} else {
			s.said = s.sh(c.Text)
		}
		if c.Answer != "" && alike(s.said) != alike(c.Answer) {
			s.t.Errorf("%s: %s says\n%s, and the document\n%s", b.Document, c.Text, alike(s.said), alike(c.Answer))
		}
		if promise := s.promises[c.Text]; promise != nil {
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
	s.clear()
	s.t.Logf("%s: compose", b.place())
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

// clear takes away what blocks have made, so that the next one stands for itself.
func (s *stage) clear() {
	s.t.Helper()
	if s.ready != nil {
		s.ready()
	}
	s.sh("docker ps -aq | xargs -r docker rm -f; docker network prune -f; iptables -F DOCKER-USER; iptables -t mangle -F DRAWBRIDGE-USER || true")
	for _, back := range s.told {
		s.sh(back + " || true") // a promise may have taken it back already
	}
	s.told = nil
}
