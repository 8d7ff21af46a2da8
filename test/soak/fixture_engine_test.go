//go:build engine

package soak

import (
	"os"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// The containers that stay all the time, with addresses that they keep.
const (
	server4, server6     = "10.77.0.77", "fd77::77"
	stranger4, stranger6 = "10.78.0.78", "fd78::78"
	hermit4, hermit6     = "10.79.0.79", "fd79::79"

	heldPort, freshPort = "8080", "8081"
	// unpublished is a port that containers listen on and nobody publishes.
	unpublished = "82"

	// pause is that between two tries of a prober at one address.
	pause = 20 * time.Millisecond
)

// fixture is what stays: a server with published ports, a stranger on a network of its own and a hermit on an
// internal one, and beside the stranger a prober, which tries what must be closed from its first to its last moment.
type fixture struct {
	m *machine
	// networks by the containers that stay on them
	names map[string][]string
}

// tries is where the prober beside the stranger writes what became of its tries, in the lab.
const tries = "/run/tries"

func newFixture(m *machine) *fixture {
	m.t.Helper()
	f := &fixture{m: m, names: map[string][]string{"steady": {"server"}, "other": {"stranger", "prober"}, "inner": {"hermit"}}}
	f.network("steady", "10.77.0.0/24", "fd77::/64")
	f.network("other", "10.78.0.0/24", "fd78::/64")
	f.network("inner", "10.79.0.0/24", "fd79::/64", "--internal")
	f.serve("server", "steady", server4, server6, "-p", heldPort+":80", "-p", freshPort+":81")
	f.serve("stranger", "other", stranger4, stranger6)
	f.serve("hermit", "inner", hermit4, hermit6)

	if err := os.Mkdir(m.Path(tries), 0o755); err != nil {
		m.t.Fatal(err)
	}
	closed := []string{server4 + ":80", server4 + ":" + unpublished, "[" + server6 + "]:80", "[" + server6 + "]:" + unpublished, hermit4 + ":80", "[" + hermit6 + "]:80"}
	script := `exec /probe "$@" >>/tries/inside`
	args := append([]string{"run", "-d", "--name", "prober", "--restart", "always", "--network", "other", "-v", tries + ":/tries", "lab", "/bin/sh", "-c", script, "prober"},
		outage.TryArgs(pause, "tcp", closed...)...)
	if _, err := m.cmd(args...); err != nil {
		m.t.Fatal(err)
	}
	return f
}

func (f *fixture) network(name, subnet4, subnet6 string, more ...string) {
	f.m.t.Helper()
	args := append([]string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6", "--subnet", subnet4, "--subnet", subnet6}, more...)
	if _, err := f.m.cmd(append(args, name)...); err != nil {
		f.m.t.Fatal(err)
	}
}

func (f *fixture) serve(name, network, addr4, addr6 string, more ...string) {
	f.m.t.Helper()
	args := append([]string{"--name", name, "--restart", "always", "--network", network, "--ip", addr4, "--ip6", addr6}, more...)
	if _, err := f.m.docker.Serve(f.m.t.Context(), args, "tcp", ":80", ":81", ":"+unpublished); err != nil {
		f.m.t.Fatal(err)
	}
}

// remove removes it.
func (f *fixture) remove() {
	for network, containers := range f.names {
		for _, name := range containers {
			f.m.asked([]string{"No such container"}, nothing, "rm", "-f", name)
		}
		f.m.asked([]string{"No such network", "not found"}, nothing, "network", "rm", network)
	}
}

// reached asks from outside.
func (m *machine) reached(addr string) error {
	_, err := lab.Get(m.t.Context(), m.client, lab.Request{Network: "tcp", Addr: addr, Timeout: outage.Patience})
	return err
}
