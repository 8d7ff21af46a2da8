//go:build engine

package systemd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// An older is a program of the past, by the commit of which it is built: two builds of today's program differ neither in what they tell each
// other, nor in their rules, nor in their state.
type older struct {
	commit string // that of its source in testdata
	root   string // of the lab
	// backend is that of the firewall, before and after.
	backend string
	format  int // of its state file
	// relay says that it has published ports that the host's sockets serve, in a process of their own.
	relay bool
	// unguarded says that containers' links lack the filter that they have today. It is put on links that are up, for which the kernel stops each
	// for some milliseconds; what is sent to it meanwhile is lost, and sent again by who minds.
	unguarded bool
}

// olders are the last program whose state is of format 1, and the first with a relay in its later form. Those of a release are to be added
// when it is made, and stay: who has not upgraded for long is to get here, too.
var olders = map[string]older{
	"format 1": {commit: "01673e4", root: lab.Own, backend: "nftables", format: 1, unguarded: true},
	"relay":    {commit: "9b6214a", root: lab.Trixie, backend: "iptables", format: 5, relay: true},
}

// TestOlder: who upgrades from an older program cuts and refuses nobody, and finds all that there was. The way back is open where that
// program can read the state, and refused in words where it cannot.
func TestOlder(t *testing.T) {
	for name, o := range olders {
		t.Run(name, func(t *testing.T) { upgradeFrom(t, o) })
	}
}

func upgradeFrom(t *testing.T, o older) {
	was := installedAt(t, o.commit)
	b := up(t, lab.Options{Root: o.root, Share: []string{was}})
	b.copyOnto(was)
	b.setting(daemon, "backend", "Environment=DRAWBRIDGE_FIREWALL_BACKEND="+o.backend)
	b.run("systemctl", "start", "drawbridge", "docker")
	clients := b.steady(b.publish(o))
	if o.relay {
		b.holdProxied(clients)
	}
	ports := b.ports()

	b.step("upgrade", b.upgradeHere)
	clients.unnoticed(t, "the upgrade", o.unguarded)
	b.asBefore(ports)

	b.run("systemctl", "stop", "drawbridge.socket", daemon)
	if b.format() == o.format {
		b.step("downgrade", func() { b.goBack(was) })
	} else {
		b.step("refused downgrade", func() { b.refused(was, o.format) })
		clients.unnoticed(t, "a refused downgrade", false)
	}
	b.asBefore(ports)
}

// holdProxied opens what lasts at ports of which no new clients are asked for. The relay of that time answers nobody who begins a session of UDP
// while it hands over; and the host's own connections, which no rule translates in IPv6, take other ways than those of clients.
func (b *bed) holdProxied(clients *steady) {
	b.t.Helper()
	if _, err := b.docker.Serve(b.t.Context(), []string{"--network", "sockets", "--name", "sessions", "-p", "8091:80/udp"}, "udp", ":80"); err != nil {
		b.t.Fatal(err)
	}
	clients.hold("udp", b.client, at(b.client.Host.Addr4(), 8091))
	clients.hold("udp", b.client, at(b.client.Host.Addr6(), 8091))
	clients.hold("tcp", b.Host, "[::1]:8090")
}

// publish starts a server of TCP and one of UDP for each way in that the older program knows, and returns their addresses by protocol.
func (b *bed) publish(o older) map[string][]string {
	b.t.Helper()
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	out := map[string][]string{}
	serve := func(network, protocol string, port int) {
		b.t.Helper()
		options := []string{"--network", network, "--name", network + "-" + protocol, "-p", fmt.Sprintf("%d:80/%s", port, protocol)}
		if _, err := b.docker.Serve(b.t.Context(), options, protocol, ":80"); err != nil {
			b.t.Fatal(err)
		}
		out[protocol] = append(out[protocol], at(host4, port), at(host6, port))
	}
	var translated []string
	if o.relay {
		translated = []string{"-o", "drawbridge.publish=dnat"}
		b.network("sockets", "--ipv6", "-o", "drawbridge.publish=host")
		serve("sockets", "tcp", 8090)
	}
	b.network("web", append(translated, "--ipv6")...)
	serve("web", "tcp", 8080)
	serve("web", "udp", 8081)
	return out
}

// port is what every version says of a published port (drawbridge ports --json).
type port struct {
	HostAddress, Protocol, ContainerAddress string
	HostPort, ContainerPort                 int
	Endpoint, Network, Bridge               string
}

// ports are in no order of which the older program would know.
func (b *bed) ports() []string {
	b.t.Helper()
	var rows []port
	if err := json.Unmarshal([]byte(b.run(program, "ports", "--json")), &rows); err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, row := range rows {
		out = append(out, fmt.Sprintf("%+v", row))
	}
	slices.Sort(out)
	return out
}

// upgradeHere does what the README says of an upgrade, to this program.
func (b *bed) upgradeHere() {
	b.t.Helper()
	b.install()
	b.run("install", b.next, program) // which bears another number, as a release's does
	b.run("systemctl", "enable", "--quiet", "drawbridge")
	b.run("systemctl", "restart", "drawbridge")
	b.eventually("the daemon and the relay are of this version", func() bool {
		said, _ := b.Run(b.t.Context(), program, "status")
		return strings.Count(said, "99.0.0") == 2
	})
	if state := b.property(relay, "ActiveState"); state != "active" {
		b.t.Errorf("after the upgrade the relay's unit is %s", state)
	}
}

// asBefore checks that the program that is installed finds all as it should be, has the ports that there were, and serves Docker.
func (b *bed) asBefore(ports []string) {
	b.t.Helper()
	b.eventually("all is well", func() bool {
		_, err := b.Run(b.t.Context(), program, "verify")
		return err == nil
	})
	if diff := cmp.Diff(ports, b.ports()); diff != "" {
		b.t.Errorf("ports are others than before (-before +now):\n%s", diff)
	}
	b.network("more")
	b.serve("more", "--name", "more", "-p", "8070:80")
	lab.Reaches(b.t, b.client, "tcp", at(b.client.Host.Addr4(), 8070))
	b.do("rm", "-f", "more")
	b.do("network", "rm", "more")
}

// goBack installs an older program that knows the state, as docs/operations.md says, which promises nothing to connections.
func (b *bed) goBack(was string) {
	b.t.Helper()
	b.run(program, "purge", "--rules-only")
	b.copyOnto(was)
	b.run("systemctl", "start", daemon)
	b.eventually("the daemon answers", func() bool {
		_, err := b.Run(b.t.Context(), program, "status")
		return err == nil
	})
}

// refused installs an older program that does not know the state. It says so, and what to do: that is done then.
func (b *bed) refused(was string, format int) {
	b.t.Helper()
	b.copyOnto(was)
	b.fails("systemctl", "start", daemon)
	b.told("/var/lib/drawbridge/state.db was written by a newer version of drawbridge (format ", 50)
	b.told(fmt.Sprintf(", this program knows formats up to %d): install that version", format), 50)
	b.run("systemctl", "stop", daemon) // which ends every second, and with it the folder in which the socket is
	b.run("systemctl", "restart", "drawbridge-relay.socket")
	b.upgradeHere()
}

// format is that of the state file, which no daemon has open.
func (b *bed) format() (version int) {
	b.t.Helper()
	db, err := bolt.Open(b.Path("/var/lib/drawbridge/state.db"), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		return json.Unmarshal(tx.Bucket([]byte("meta")).Get([]byte("version")), &version)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return version
}
