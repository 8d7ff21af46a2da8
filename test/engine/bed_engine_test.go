//go:build engine

package engine

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// bed is a lab with the plugin and an engine running.
type bed struct {
	*lab.Host
	t      *testing.T
	docker *lab.Docker
	plugin *lab.Process
	client *lab.Client // an outside machine
	serve  []string    // arguments of drawbridge serve
	limits []string    // the command that starts it, if it is not to be all of root
}

// engines are the values of DRAWBRIDGE_ENGINE, and the lab's roots that have them.
var engines = map[string]string{
	"":      "", // whichever the machine has
	"20.10": "", // Debian 12's, which is the machine
	"26.1":  lab.Trixie,
}

// startDocker starts the engine that this run is about.
func (b *bed) startDocker(args []string) {
	b.t.Helper()
	var err error
	if b.docker, err = b.StartDocker(b.t.Context(), lab.DockerOptions{Args: args}); err != nil {
		b.t.Fatal(err)
	}
	if want := os.Getenv("DRAWBRIDGE_ENGINE"); want != "" && want != b.engine() {
		b.t.Fatalf("the engine is %s, not %s as DRAWBRIDGE_ENGINE says", b.engine(), want)
	}
}

// engine is the version of the docker engine, as 20.10 or 26.1, for what differs between them.
func (b *bed) engine() string { return b.docker.Version() }

// options say how a bed is made.
type options struct {
	lab    lab.Options
	docker []string // arguments of dockerd
	serve  []string // arguments of drawbridge serve
	// before runs when the host is there and nothing is started.
	before func(*lab.Host)
	// alone has no other test run meanwhile: for those that measure how long something takes.
	alone bool
}

// up makes a bed with one outside client. Beds do not know of each other, and most of a test is waiting
// for packets that must not come: so they run side by side.
func up(t *testing.T, o options) *bed {
	t.Helper()
	if !o.alone {
		t.Parallel()
	}
	root, known := engines[os.Getenv("DRAWBRIDGE_ENGINE")]
	if !known {
		t.Fatalf("DRAWBRIDGE_ENGINE is %q, neither 20.10 nor 26.1", os.Getenv("DRAWBRIDGE_ENGINE"))
	}
	o.lab.Root, o.lab.Share = root, []string{binary(t)}
	b := &bed{Host: lab.Up(t, o.lab), t: t, serve: o.serve}
	var err error
	if b.client, err = b.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	if o.before != nil {
		o.before(b.Host)
	}
	b.startPlugin()
	b.startDocker(o.docker)
	return b
}

// binary is the program under test.
func binary(t *testing.T) string {
	t.Helper()
	return environ.Program(t, "test-engine")
}

// onNFTables says that this run is about the nftables backend (DRAWBRIDGE_BACKEND=nftables). Otherwise it is about
// iptables. It is never auto, which would be the one or the other by whether dockerd was there first.
func onNFTables() bool { return os.Getenv("DRAWBRIDGE_BACKEND") == "nftables" }

// startPlugin starts the daemon and waits until it answers.
func (b *bed) startPlugin() {
	b.t.Helper()
	b.startPluginAtOnce()
	b.eventually("the plugin answers", func() bool {
		_, err := b.Run(b.t.Context(), binary(b.t), "status")
		return err == nil
	})
}

// startPluginAtOnce starts the daemon and waits for nothing.
func (b *bed) startPluginAtOnce() {
	b.t.Helper()
	var err error
	backend := "iptables"
	if onNFTables() {
		backend = "nftables"
	}
	argv := append(slices.Clone(b.limits), binary(b.t), "serve", "--log-level", "debug", "--firewall-backend", backend)
	argv = append(argv, b.serve...)
	if b.plugin, err = b.Start("drawbridge", argv, nil); err != nil {
		b.t.Fatal(err)
	}
}

// patience is how long a process may take on a machine that has other things to do. It is shorter than checkInterval of the daemon, which finds
// everything in the end.
const patience = 20 * time.Second

// eventually waits for something that another process brings about.
func (b *bed) eventually(what string, holds func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in %s: %s\n%s", patience, what, b.plugin.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
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
func (b *bed) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), name, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// network creates a network of ours.
func (b *bed) network(name string, args ...string) {
	b.t.Helper()
	b.do(append(append([]string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge"}, args...), name)...)
}

// serveOn starts a container that answers on TCP and UDP port 80 and more, and returns it.
func (b *bed) serveOn(network string, args ...string) *lab.Container {
	b.t.Helper()
	c, err := b.docker.Serve(b.t.Context(), append([]string{"--network", network}, args...), "tcp", ":80", ":81")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// listens waits until a container that was started again serves: docker says that it has started before its server has bound a port.
func (b *bed) listens(c *lab.Container) {
	b.t.Helper()
	lab.Eventually(b.t, c, "tcp", "127.0.0.1:80")
	lab.Eventually(b.t, c, "tcp", "127.0.0.1:81")
}

// addr returns the container's only or IPv4 address on a network.
func (b *bed) addr(c *lab.Container, network string) netip.Addr {
	b.t.Helper()
	addrs, err := c.Addrs(b.t.Context(), network)
	if err != nil {
		b.t.Fatal(err)
	}
	return addrs[0]
}

// addr6 returns the container's IPv6 address on a network.
func (b *bed) addr6(c *lab.Container, network string) netip.Addr {
	b.t.Helper()
	addrs, err := c.Addrs(b.t.Context(), network)
	if err != nil {
		b.t.Fatal(err)
	}
	return addrs[len(addrs)-1]
}

// bridge returns the name of a network's bridge.
func (b *bed) bridge(network string) string {
	b.t.Helper()
	return "br-" + b.do("network", "inspect", "-f", "{{.Id}}", network)[:12]
}

// at joins an address and a port.
func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// port is a row of drawbridge ports --json.
type port struct {
	HostAddress      string
	HostPort         uint16
	Protocol         string
	ContainerAddress string
	ContainerPort    uint16
	Endpoint         string
	Network          string
}

// ports returns what drawbridge ports says.
func (b *bed) ports() []port {
	b.t.Helper()
	var out []port
	if err := json.Unmarshal([]byte(b.run(binary(b.t), "ports", "--json")), &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}
