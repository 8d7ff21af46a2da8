//go:build engine

package managed

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// restarts is a bed with containers that come back with dockerd.
type restarts struct {
	*bed
	server, stranger *lab.Container
}

func restarting(t *testing.T, docker ...string) *restarts {
	t.Helper()
	r := &restarts{bed: up(t, options{docker: docker, before: func(h *lab.Host) { preset(t, h) }})}
	r.create()
	r.network("web", "--ipv6")
	r.network("other", "--ipv6")
	r.server = r.serveOn("web", "--name", "server", "-p", "8080:80", "--restart", "always")
	r.serveOn("name=web,driver-opt=drawbridge.publish=host", "--name", "host", "-p", "8081:80", "--restart", "always")
	r.stranger = r.serveOn("other", "--name", "stranger", "--restart", "always")
	r.works(t)
	return r
}

// works checks ways that must be open, and those next to them that must not.
func (r *restarts) works(t *testing.T) {
	t.Helper()
	host := r.client.Host
	server4, server6 := r.addrs(r.server, "web")
	for _, port := range []uint16{8080, 8081} {
		lab.Eventually(t, r.client, "tcp", at(host.Addr4(), port))
		lab.Eventually(t, r.client, "tcp", at(host.Addr6(), port))
	}
	lab.Reaches(t, r.server, "tcp", at(r.client.Addr4(), 80))
	lab.Reaches(t, r.server, "tcp", at(r.client.Addr6(), 80))
	lab.Together(
		func() { lab.Dropped(t, r.client, "tcp", at(server4, 80)) },
		func() { lab.Dropped(t, r.stranger, "tcp", at(server4, 80)) },
		func() { lab.Dropped(t, r.stranger, "tcp", at(server6, 80)) },
	)
}

// back waits until the containers run again.
func (r *restarts) back() {
	r.t.Helper()
	for _, container := range []string{"server", "host", "stranger"} {
		r.eventually(container+" runs again", func() bool {
			out, err := r.docker.Run(r.t.Context(), "inspect", "-f", "{{.State.Running}}", container)
			return err == nil && out == "true"
		})
	}
	r.healthy()
}

// alone checks that what is there is there once.
func (r *restarts) alone(t *testing.T) {
	t.Helper()
	status := r.status()
	for key, want := range map[string]float64{"networks": 2, "endpoints": 3, "ports": 4, "pools": 4} {
		if status[key] != want {
			t.Errorf("%s: %v, want %v", key, status[key], want)
		}
	}
	for _, process := range []string{"drawbridge serve", "relay --relay-socket"} {
		// Until it turns into a program that it runs, a child of the daemon bears its name.
		r.eventually(process+" runs once", func() bool {
			out, err := r.Run(t.Context(), "pgrep", "-fc", process)
			return err == nil && strings.TrimSpace(out) == "1"
		})
	}
	r.run(r.program(), "verify")
}

var ends = []struct {
	how string
	end func(*lab.Docker) error
}{
	{"stopped", func(d *lab.Docker) error { return d.Stop() }},
	{"killed", func(d *lab.Docker) error { return d.Kill() }},
}

// TestEngineRestart: the engine takes the plugin with it, in good order and when it is started again after it was killed, and containers
// come back with the next one.
func TestEngineRestart(t *testing.T) {
	r := restarting(t)
	for _, e := range ends {
		t.Run(e.how, func(t *testing.T) {
			before := r.pid()
			if err := e.end(r.docker); err != nil {
				t.Fatal(err)
			}
			if err := r.docker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.back()
			if after := r.pid(); after == before {
				t.Errorf("the daemon is the same process, %s", after)
			}
			r.works(t)
			r.alone(t)
		})
	}
	r.end()
}

// end removes all, of which nothing may be left.
func (r *restarts) end() {
	r.t.Helper()
	r.do("rm", "-f", "server", "host", "stranger")
	r.do("network", "rm", "web", "other")
	r.nothingLeft()
	r.do("plugin", "disable", name)
}

// TestLiveRestore: plugin and containers live on over the end and the start of dockerd.
func TestLiveRestore(t *testing.T) {
	r := restarting(t, "--live-restore")
	for _, e := range ends {
		t.Run(e.how, func(t *testing.T) {
			before := r.pid()
			if err := e.end(r.docker); err != nil {
				t.Fatal(err)
			}
			for _, port := range []uint16{8080, 8081} {
				lab.Reaches(t, r.client, "tcp", at(r.client.Host.Addr4(), port))
				lab.Reaches(t, r.client, "tcp", at(r.client.Host.Addr6(), port))
			}
			if err := r.docker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.back()
			if after := r.pid(); after != before {
				t.Errorf("the daemon was process %s, and is %s", before, after)
			}
			r.works(t)
			r.alone(t)
		})
	}
	r.do("restart", "-t", "0", "server")
	r.works(t)
	r.end()
}
