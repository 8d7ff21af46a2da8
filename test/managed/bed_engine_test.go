//go:build engine

package managed

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// name is that of the plugin in most tests, and driver what its networks are made with.
const (
	name   = "drawbridge"
	driver = name + ":latest"
)

// bed is a lab with an engine, on which nothing is installed yet.
type bed struct {
	*lab.Host
	t      *testing.T
	docker *lab.Docker
	client *lab.Client // an outside machine
}

// engines are the values of DRAWBRIDGE_ENGINE, and the lab's roots that have them.
var engines = map[string]string{
	"":      "", // whichever the machine has
	"20.10": "", // Debian 12's, which is the machine
	"26.1":  lab.Trixie,
}

// options say how a bed is made.
type options struct {
	lab    lab.Options
	docker []string
	// before runs when the host is there and nothing is started.
	before func(*lab.Host)
}

func up(t *testing.T, o options) *bed {
	t.Helper()
	t.Parallel()
	root, known := engines[os.Getenv("DRAWBRIDGE_ENGINE")]
	if !known {
		t.Fatalf("DRAWBRIDGE_ENGINE is %q, neither 20.10 nor 26.1", os.Getenv("DRAWBRIDGE_ENGINE"))
	}
	o.lab.Root = root
	o.lab.Share = append(o.lab.Share, built(t))
	b := &bed{Host: lab.Up(t, o.lab), t: t}
	var err error
	if b.client, err = b.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.client.Serve(t.Context(), "tcp", ":80"); err != nil {
		t.Fatal(err)
	}
	// As systemd leaves it, and unlike the lab: whatever is mounted in a plugin must stay there.
	b.run("mount", "--make-rshared", "/")
	if o.before != nil {
		o.before(b.Host)
	}
	if b.docker, err = b.StartDocker(t.Context(), lab.DockerOptions{Args: o.docker}); err != nil {
		t.Fatal(err)
	}
	return b
}

// built is the directory that make plugin made.
func built(t *testing.T) string {
	t.Helper()
	return environ.Plugin(t, "test-engine")
}

// backend is the value of --firewall-backend that this run is about.
func backend() string {
	if os.Getenv("DRAWBRIDGE_BACKEND") == "nftables" {
		return "nftables"
	}
	return "iptables"
}

// create makes and enables the plugin.
func (b *bed) create(settings ...string) {
	b.t.Helper()
	b.do("plugin", "create", name, built(b.t))
	b.do(append([]string{"plugin", "set", name, "DRAWBRIDGE_FIREWALL_BACKEND=" + backend(), "DRAWBRIDGE_LOG_LEVEL=debug"}, settings...)...)
	// The engine asks after half a second, and then after three more: a daemon that answers the first time is there at once. A machine that other
	// tests keep busy may miss that once or twice.
	for tries := 1; ; tries++ {
		began := time.Now()
		b.do("plugin", "enable", name)
		took := time.Since(began)
		if took <= 3500*time.Millisecond {
			return
		}
		if tries == 4 {
			b.t.Errorf("the plugin is on after %v: it did not listen when the engine first asked", took)
			return
		}
		b.t.Logf("the plugin is on after %v", took)
		b.do("plugin", "disable", "-f", name)
	}
}

// program is the daemon's program as the host sees it, with which people look at it.
func (b *bed) program() string {
	b.t.Helper()
	return filepath.Join(b.home(), "rootfs/usr/sbin/drawbridge")
}

// home is where the engine keeps the plugin.
func (b *bed) home() string {
	b.t.Helper()
	return filepath.Join(b.do("info", "-f", "{{.DockerRootDir}}"), "plugins", b.do("plugin", "inspect", "-f", "{{.Id}}", name))
}

// healthy waits until the daemon says that the host is as it should be.
func (b *bed) healthy() {
	b.t.Helper()
	b.eventually("the daemon is content", func() bool {
		_, err := b.Run(b.t.Context(), b.program(), "status")
		return err == nil
	})
}

// do runs a docker command that must succeed.
func (b *bed) do(args ...string) string {
	b.t.Helper()
	return b.docker.Do(b.t, args...)
}

// fails runs a docker command that must fail, with a sentence that has the words.
func (b *bed) fails(words string, args ...string) {
	b.t.Helper()
	b.docker.Fails(b.t, words, args...)
}

// run runs a command on the host that must succeed.
func (b *bed) run(program string, args ...string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), program, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// types has a shell on the host run what the documents tell a user to type, below which bin/plugin is, and answers questions with yes.
func (b *bed) types(lines ...string) string {
	b.t.Helper()
	script := "set -eu; shopt -s expand_aliases\n" + strings.Join(lines, "\n")
	cmd := b.Command(b.t.Context(), "env", "-C", filepath.Dir(filepath.Dir(built(b.t))), "bash", "-c", script)
	cmd.Stdin = strings.NewReader("y\n")
	out, err := cmd.CombinedOutput()
	if b.t.Logf("typed:\n%s", strings.Join(lines, "\n")); err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// eventually waits for something that another process brings about.
func (b *bed) eventually(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in 30 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// network creates a network of ours.
func (b *bed) network(network string, args ...string) {
	b.t.Helper()
	b.do(append(append([]string{"network", "create", "-d", driver, "--ipam-driver", driver}, args...), network)...)
}

// serveOn starts a container that answers on TCP ports 80 and 81.
func (b *bed) serveOn(network string, args ...string) *lab.Container {
	b.t.Helper()
	c, err := b.docker.Serve(b.t.Context(), append([]string{"--network", network}, args...), "tcp", ":80", ":81")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// addrs are the container's addresses on a network.
func (b *bed) addrs(c *lab.Container, network string) (v4, v6 netip.Addr) {
	b.t.Helper()
	addrs, err := c.Addrs(b.t.Context(), network)
	if err != nil {
		b.t.Fatal(err)
	}
	return addrs[0], addrs[len(addrs)-1]
}

// bridge returns the name of a network's bridge.
func (b *bed) bridge(network string) string {
	b.t.Helper()
	return "br-" + b.do("network", "inspect", "-f", "{{.Id}}", network)[:12]
}

// status is what the daemon says of itself.
func (b *bed) status() map[string]any {
	b.t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(b.run(b.program(), "status", "--json")), &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// at joins an address and a port.
func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }
