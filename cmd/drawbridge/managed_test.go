package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// managedConfig is what the engine is told about the managed plugin (config.json, in the engine's words), as far as we say something.
type managedConfig struct {
	Description   string   `json:"description"`
	Documentation string   `json:"documentation"`
	Interface     any      `json:"interface"`
	Entrypoint    []string `json:"entrypoint"`
	Network       struct {
		Type string `json:"type"`
	} `json:"network"`
	PropagatedMount string `json:"propagatedMount"`
	Linux           struct {
		Capabilities []string `json:"capabilities"`
	} `json:"linux"`
	Mounts []managedMount    `json:"mounts"`
	Env    []managedVariable `json:"env"`
}

type managedMount struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Destination string   `json:"destination"`
	Options     []string `json:"options"`
}

// managedVariable has no value, so that the program's default counts, of a later version too.
type managedVariable struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Settable    []string `json:"settable"`
}

const managedFile = "../../packaging/plugin/config.json"

func readManaged(t *testing.T) (managedConfig, []byte) {
	t.Helper()
	text, err := os.ReadFile(managedFile)
	if err != nil {
		t.Fatal(err)
	}
	var c managedConfig
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields() // the engine passes over what it does not know
	if err := in.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c, text
}

// fixed are the flags that nobody sets in a managed plugin: it is the engine and config.json that decide about them.
var fixed = []string{"--plugin-socket", "--control-socket", "--relay-socket", "--state", "--proc"}

// managedVariables are the settings of a managed plugin.
func managedVariables() []managedVariable {
	var out []managedVariable
	for _, s := range listSettings().Serve {
		if slices.Contains(fixed, s.Key) {
			continue
		}
		meaning := s.Meaning
		if s.Default != "" {
			meaning += "; default " + s.Default
		}
		out = append(out, managedVariable{s.Environment, meaning, []string{"value"}})
	}
	return out
}

// TestManagedPlugin: every flag of serve that a user may have a say in can be set, and no other. -update writes the variables anew.
func TestManagedPlugin(t *testing.T) {
	c, text := readManaged(t)
	c.Env = managedVariables()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(managedFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), string(text)); diff != "" {
		t.Errorf("%s is not what the program's flags make of it: run `make docs` and commit what it changed (-flags +file):\n%s", filepath.Base(managedFile), diff)
	}
}

// TestManagedPaths: what the program is told by flags and by default is what is mounted.
func TestManagedPaths(t *testing.T) {
	c, _ := readManaged(t)
	if len(c.Entrypoint) < 2 || c.Entrypoint[1] != "serve" {
		t.Fatalf("it starts %q", c.Entrypoint)
	}
	cmd := newServe()
	if err := cmd.ParseFlags(c.Entrypoint[2:]); err != nil {
		t.Fatal(err)
	}
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	if dir := filepath.Dir(flag("state")); dir != c.PropagatedMount {
		t.Errorf("the state is in %s, and what stays is %s", dir, c.PropagatedMount)
	}
	// systemd takes the file of a socket unit that it starts, whoever listens there: a unit that is installed beside by mistake would.
	for _, name := range []string{"drawbridge.socket", "drawbridge-relay.socket"} {
		if taken := readUnit(t, name)["Socket.ListenStream"]; len(taken) == 0 || slices.Contains(taken, flag("relay-socket")) {
			t.Errorf("the relay listens at %s, which is that of %s", flag("relay-socket"), name)
		}
	}
	mounts := map[string]string{}
	for _, m := range c.Mounts {
		mounts[m.Destination] = m.Source
	}
	proc := flag("proc")
	for destination, source := range map[string]string{"/run": "/run", proc: "/proc", proc + "/sys/net": "/proc/sys/net"} {
		if mounts[destination] != source {
			t.Errorf("%s is %q, not the host's %s", destination, mounts[destination], source)
		}
	}
	if want := fmt.Sprint(map[string]any{"types": []any{"docker.networkdriver/1.0", "docker.ipamdriver/1.0"}, "socket": filepath.Base(flag("plugin-socket"))}); fmt.Sprint(c.Interface) != want {
		t.Errorf("the interface is %v, not %v", c.Interface, want)
	}
	if !strings.HasPrefix(flag("control-socket"), "/run/") || !strings.HasPrefix(flag("relay-socket"), "/run/") {
		t.Error("the host's commands do not find the daemon")
	}
}

// privileges are what docker plugin install asks for, in its words.
func privileges(c managedConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, " - network: [%s]\n", c.Network.Type)
	for _, m := range c.Mounts {
		fmt.Fprintf(&b, " - mount: [%s]\n", m.Source)
	}
	fmt.Fprintf(&b, " - capabilities: [%s]\n", strings.Join(c.Linux.Capabilities, " "))
	return b.String()
}
