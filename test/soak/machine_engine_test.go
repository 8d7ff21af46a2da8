//go:build engine

package soak

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// commandTime bounds a docker command: what takes longer hangs.
const commandTime = 100 * time.Second

// machine is a host with firewalld, the plugin and an engine, all of which may end and begin.
type machine struct {
	*lab.Host
	t        *testing.T
	engine   string // its version
	patience time.Duration
	client   *lab.Client
	plugin   *lab.Process
	docker   *lab.Docker
	live     bool // the engine runs with live-restore

	mu         sync.Mutex
	complaints map[string]int // guarded by mu; errors of commands that were repeated
}

func newMachine(t *testing.T, patience time.Duration) *machine {
	t.Helper()
	engine := cmp.Or(os.Getenv("DRAWBRIDGE_ENGINE"), "20.10")
	root, known := map[string]string{"20.10": "", "26.1": lab.Trixie}[engine]
	if !known {
		t.Fatalf("DRAWBRIDGE_ENGINE is %q, neither 20.10 nor 26.1", engine)
	}
	m := &machine{t: t, engine: engine, patience: patience, complaints: map[string]int{}}
	m.Host = lab.Up(t, lab.Options{Root: root, Share: []string{m.program()}})
	t.Cleanup(m.keepLogs)
	var err error
	if m.client, err = m.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err1 := m.StartDBus(t.Context())
	_, err2 := m.StartFirewalld(t.Context())
	err3 := m.startPlugin()
	m.liveRestore(true)
	var err4 error
	m.docker, err4 = m.StartDocker(t.Context(), lab.DockerOptions{})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{m.client.Addr4().String(), "[" + m.client.Addr6().String() + "]"} {
		if _, err := m.client.Serve(t.Context(), "tcp", addr+":80"); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// keepLogs writes logs to where SOAK_LOGS says.
func (m *machine) keepLogs() {
	dir := os.Getenv("SOAK_LOGS")
	if dir == "" || m.plugin == nil || m.docker == nil {
		return
	}
	for name, log := range map[string]string{"drawbridge": m.plugin.Log(), "dockerd": m.docker.Log()} {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(log), 0o644); err != nil {
			m.t.Error(err)
		}
	}
}

// program is the one under test.
func (m *machine) program() string {
	m.t.Helper()
	return environ.Program(m.t, "soak")
}

func (m *machine) backend() string {
	if backend := os.Getenv("DRAWBRIDGE_BACKEND"); backend != "" {
		return backend
	}
	return "iptables"
}

// startPlugin returns when the plugin has made the host as it should be.
func (m *machine) startPlugin() error {
	var err error
	argv := []string{m.program(), "serve", "--log-level", "debug", "--firewall-backend", m.backend(), "--publish", "dnat"} // firewalld has no port of ours
	if m.plugin, err = m.Start("drawbridge", argv, nil); err != nil {
		return err
	}
	return m.within(m.patience, func() error {
		_, err := m.status()
		return err
	})
}

// liveRestore says whether containers live on over ends and starts of dockerd from its next start on.
func (m *machine) liveRestore(on bool) {
	m.live = on
	dir := m.Path("/etc/docker")
	text := fmt.Sprintf(`{"live-restore": %t}`, on)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/daemon.json", []byte(text), 0o644)); err != nil {
		m.t.Error(err)
	}
}

// status is what drawbridge status says of the state.
type status struct {
	Backend                           string
	Networks, Endpoints, Ports, Pools int
	Errors                            []string
}

// status asks the daemon, which compares the host first. Its exit code 1 is no error here: Errors says why.
func (m *machine) status() (s status, err error) {
	out, err := m.Run(m.t.Context(), m.program(), "status", "--json")
	var command *lab.CommandError
	if errors.As(err, &command) && command.Stdout != "" {
		out, err = command.Stdout, nil
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// within tries until it succeeds, and returns the last error when time is over.
func (m *machine) within(limit time.Duration, try func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		err := try()
		if err == nil || m.t.Context().Err() != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %v: %w", limit, err)
		}
	}
}

// cmd runs a docker command.
func (m *machine) cmd(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), commandTime)
	defer cancel()
	return m.docker.Run(ctx, args...)
}

// asked runs a docker command as a user would, who has it repeated until it succeeds. An error with one of the words
// means that an earlier try did it, though it said otherwise. Between tries, undo cleans up.
func (m *machine) asked(done []string, undo func(), args ...string) {
	m.t.Helper()
	err := m.within(m.patience, func() error {
		_, err := m.cmd(args...)
		for _, words := range done {
			if err != nil && strings.Contains(err.Error(), words) {
				return nil
			}
		}
		if err != nil {
			m.complain(err)
			undo()
		}
		return err
	})
	if err != nil {
		m.t.Errorf("stays broken: %v", err)
	}
}

func nothing() {}

// complain notes the error of a command that is repeated.
func (m *machine) complain(err error) {
	text := err.Error()
	if _, after, found := strings.Cut(text, "exit status "); found {
		text = after
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.complaints[withoutNumbers(text)]++
}

// withoutNumbers makes one of what differs in ids and names only.
func withoutNumbers(text string) string {
	var out []string
	for word := range strings.FieldsSeq(text) {
		if len(strings.Trim(word, "0123456789abcdef()\"'.:,_-")) == 0 {
			word = "…"
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}
