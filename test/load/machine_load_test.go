//go:build load

package load

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// machine is a host with firewalld, the plugin and an engine.
type machine struct {
	*lab.Host
	t              *testing.T
	client         *lab.Client // an outside machine
	plugin         *lab.Process
	docker         *lab.Docker
	engine, driver caller // the sockets of both
	status         *control.Client
	figures        figures
	races          bool // the program was built with the race detector
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root, known := map[string]string{"": "", "20.10": "", "26.1": lab.Trixie}[os.Getenv("DRAWBRIDGE_ENGINE")]
	if !known {
		t.Fatalf("DRAWBRIDGE_ENGINE is %q, neither 20.10 nor 26.1", os.Getenv("DRAWBRIDGE_ENGINE"))
	}
	m := &machine{t: t}
	m.Host = lab.Up(t, lab.Options{Root: root, Share: []string{m.program()}})
	m.engine, m.driver = dial(m.Path("/run/docker.sock")), dial(m.Path("/run/docker/plugins/drawbridge.sock"))
	m.status = control.Dial(m.Path("/run/drawbridge/control.sock"))
	t.Cleanup(func() { m.engine.close(); m.driver.close() })
	var err error
	if m.client, err = m.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err1 := m.StartDBus(t.Context())
	_, err2 := m.StartFirewalld(t.Context())
	m.startPlugin()
	t.Cleanup(m.noRaces)
	m.docker, err = m.StartDocker(t.Context(), lab.DockerOptions{})
	if err := errors.Join(err1, err2, err); err != nil {
		t.Fatal(err)
	}
	if _, err := m.docker.Image(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// program is the one under test.
func (m *machine) program() string {
	m.t.Helper()
	path := os.Getenv("DRAWBRIDGE_BIN")
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		m.t.Fatalf("DRAWBRIDGE_BIN is %q, not the program (%v): use make test-load", path, err)
	}
	for _, s := range info.Settings {
		m.races = m.races || s.Key == "-race" && s.Value == "true"
	}
	return path
}

// startPlugin returns when the plugin has made the host as it should be.
func (m *machine) startPlugin() {
	m.t.Helper()
	backend := os.Getenv("DRAWBRIDGE_BACKEND")
	if backend == "" {
		backend = "iptables"
	}
	var err error
	if m.plugin, err = m.Start("drawbridge", []string{m.program(), "serve", "--firewall-backend", backend, "--publish", "dnat"}, nil); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the plugin answers", func() error {
		_, err := m.status.Status(m.t.Context())
		return err
	})
}

// patience is how long what happens behind the back of callers may take: a removed bridge is deleted some time after.
const patience = time.Minute

// comes tries until it succeeds, and reports whether it did.
func (m *machine) comes(what string, try func() error) bool {
	m.t.Helper()
	err := m.within(patience, try)
	if err != nil {
		m.t.Errorf("not in %v: %s: %v", patience, what, err)
	}
	return err == nil
}

// eventually is for what all else needs.
func (m *machine) eventually(what string, try func() error) {
	m.t.Helper()
	if !m.comes(what, try) {
		m.t.FailNow()
	}
}

func (m *machine) within(limit time.Duration, try func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil || time.Now().After(deadline) || m.t.Context().Err() != nil {
			return err
		}
	}
}

// engineTime bounds a request to the engine, which hangs where it takes longer. It makes several calls for some of them, and runs programs.
const engineTime = 4 * time.Minute

// docks asks the engine.
func (m *machine) docks(method, path string, body any) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), engineTime)
	defer cancel()
	defer m.figures.timed("engine requests", time.Now())
	_, err := m.engine.do(ctx, method, "/v1.41"+path, body)
	return err
}

// network makes one in both families.
func (m *machine) network(name string) error {
	return m.docks(http.MethodPost, "/networks/create", object{
		"Name": name, "CheckDuplicate": true, "Driver": "drawbridge", "EnableIPv6": true, "IPAM": object{"Driver": "drawbridge"},
	})
}

func (m *machine) removeNetwork(name string) error {
	return m.docks(http.MethodDelete, "/networks/"+name, nil)
}

// container starts one that answers on TCP port 80, published on the port given.
func (m *machine) container(name, network string, port int) error {
	published := fmt.Sprint(port)
	err := m.docks(http.MethodPost, "/containers/create?name="+name, object{
		"Image": "lab:latest", "Cmd": []string{"/probe", "serve", "tcp", ":80"}, "Hostname": name,
		"ExposedPorts": object{"80/tcp": object{}, "80/udp": object{}},
		"HostConfig": object{"NetworkMode": network, "PortBindings": object{
			"80/tcp": []object{{"HostPort": published}}, "80/udp": []object{{"HostPort": published}},
		}},
	})
	if err != nil {
		return err
	}
	return m.docks(http.MethodPost, "/containers/"+name+"/start", nil)
}

// removeContainer stops it before.
func (m *machine) removeContainer(name string) error {
	return errors.Join(
		m.docks(http.MethodPost, "/containers/"+name+"/stop?t=0", nil),
		m.docks(http.MethodDelete, "/containers/"+name, nil),
	)
}
