//go:build engine

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// zone returns the zone of an interface at runtime, "" for none.
func (b *bed) zone(link string) string {
	out, err := b.Run(b.t.Context(), "firewall-cmd", "--get-zone-of-interface="+link)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// startFirewalld starts the bus and firewalld.
func startFirewalld(t *testing.T, h *lab.Host, settings ...string) {
	t.Helper()
	if _, err := h.StartDBus(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartFirewalld(t.Context(), settings...); err != nil {
		t.Fatal(err)
	}
}

// translated has published ports past the host's firewall, as Docker has them, in tests that are about something else.
var translated = []string{"--publish", "dnat"}

// TestFirewalld: every bridge is in the zone docker, and published ports work, whatever
// happens to firewalld. With its backend iptables a reload flushes the tables that ours are in.
func TestFirewalld(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) { firewalldLife(t, backend) })
	}
}

func firewalldLife(t *testing.T, backend string) {
	b := up(t, options{serve: translated, before: func(h *lab.Host) { startFirewalld(t, h, "FirewallBackend="+backend) }})
	b.outside()
	b.network("web", "--ipv6")
	b.network("inner", "--internal")
	server := b.serveOn("web", "-p", "8080:80")
	links := []string{b.bridge("web"), b.bridge("inner")}
	works := func(t *testing.T) {
		t.Helper()
		for _, link := range links {
			b.eventually(link+" is in zone docker", func() bool { return b.zone(link) == "docker" })
		}
		b.eventually("the rules are back", func() bool {
			_, err := lab.Get(t.Context(), b.client, lab.Request{Network: "tcp", Addr: at(b.client.Host.Addr4(), 8080)})
			return err == nil
		})
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
		lab.Reaches(t, server, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, server, "tcp", at(b.client.Addr6(), 80))
		lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
		lab.Blocked(t, b.client, "tcp", at(b.addr(server, "web"), 80))
		lab.Blocked(t, b.client, "tcp", at(b.client.Host.Addr4(), 81))
	}
	t.Run("as created", works)
	t.Run("the zone accepts", func(t *testing.T) {
		if got := b.run("firewall-cmd", "--permanent", "--zone=docker", "--get-target"); strings.TrimSpace(got) != "ACCEPT" {
			t.Errorf("target %s", got)
		}
		if got := b.run("firewall-cmd", "--get-policies"); !strings.Contains(got, "docker-forwarding") {
			t.Errorf("policies %s", got)
		}
	})
	t.Run("after a reload", func(t *testing.T) {
		b.run("firewall-cmd", "--reload")
		works(t)
	})
	t.Run("after a complete reload", func(t *testing.T) {
		b.run("firewall-cmd", "--complete-reload")
		works(t)
	})
	t.Run("after a restart", func(t *testing.T) {
		if err := b.StopFirewalld(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.StartFirewalld(t.Context()); err != nil {
			t.Fatal(err)
		}
		works(t)
	})
	t.Run("a network that Docker makes meanwhile is kept apart", func(t *testing.T) {
		// dockerd makes the bridge first, and its rules one by one through firewalld.
		b.do("network", "create", "--ipv6", "--subnet", "fd0d::/64", "six")
		theirs := b.serveOn("six")
		lab.NotPings(t, server, b.addr(theirs, "six"))
		lab.NotPings(t, theirs, b.addr(server, "web"))
		lab.NotPings(t, server, b.addr6(theirs, "six"))
		lab.NotPings(t, theirs, b.addr6(server, "web"))
		b.do("rm", "-f", theirs.Name)
		b.do("network", "rm", "six")
	})
	t.Run("a bridge taken out by hand", func(t *testing.T) {
		b.run("firewall-cmd", "--zone=docker", "--remove-interface="+links[0])
		b.network("any") // a pass
		works(t)
		b.do("network", "rm", "any")
	})
	t.Run("out again on delete", func(t *testing.T) {
		docker0 := b.zone("docker0")
		b.do("rm", "-f", server.Name)
		b.do("network", "rm", "web", "inner")
		for _, link := range links {
			if z := b.zone(link); z != "" {
				t.Errorf("%s is still in zone %s", link, z)
			}
		}
		if b.zone("docker0") != docker0 {
			t.Errorf("docker0 was in zone %q, is in %q", docker0, b.zone("docker0"))
		}
	})
}

// TestFirewalldLate: firewalld is started when networks are there already. From then on it decides over their published ports.
func TestFirewalldLate(t *testing.T) {
	b := up(t, options{docker: []string{"--iptables=false"}})
	b.network("web")
	b.serveOn("web", "-p", "8080:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080)) // no firewalld is fine
	startFirewalld(t, b.Host)
	b.eventually("the bridge is in zone docker", func() bool { return b.zone(b.bridge("web")) == "docker" })
	works := func() bool {
		_, err := lab.Get(t.Context(), b.client, lab.Request{Network: "tcp", Addr: at(b.client.Host.Addr4(), 8080)})
		return err == nil
	}
	b.eventually("the port is closed by firewalld", func() bool { return !works() })
	b.run("firewall-cmd", "--add-port=8080/tcp")
	b.eventually("the port is open by firewalld", works)
	b.run("firewall-cmd", "--remove-port=8080/tcp")
	b.eventually("the port is closed again", func() bool { return !works() })
}

// TestFirewalldOtherZone: what the admin placed elsewhere is not taken away.
func TestFirewalldOtherZone(t *testing.T) {
	b := up(t, options{serve: translated, before: func(h *lab.Host) { startFirewalld(t, h) }})
	b.run("firewall-cmd", "--zone=trusted", "--add-interface=web0")
	b.fails("firewall-cmd --zone=trusted --remove-interface=web0", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge",
		"-o", "com.docker.network.bridge.name=web0", "web")
	if z := b.zone("web0"); z != "trusted" {
		t.Errorf("web0 is in zone %q", z)
	}
	b.reaped()
	if _, err := b.Run(t.Context(), "ip", "link", "show", "web0"); err == nil {
		t.Error("the bridge is left")
	}
}

// TestStrictForwardPorts: with this setting of firewalld 2.3 its admin says that no port is open which firewalld
// does not forward, whoever redirects it. Docker's own networks cannot have any then. Ours are served by sockets, in every mode, and
// open where the zone has the port.
func TestStrictForwardPorts(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) { startFirewalld(t, h, "StrictForwardPorts=yes") }})
	if b.engine() == "20.10" {
		t.Skip("the firewalld beside this engine is 1.3, which has no such setting")
	}
	b.outside()
	b.network("web", "--ipv6")
	b.do("network", "create", "builtin")
	ours := b.serveOn("web", "-p", "8080:80", "-p", "8081:81")
	b.serveOn("builtin", "-p", "7001:80")
	host := b.client.Host
	lab.Refused(t, b.client, "tcp", at(host.Addr4(), 8080))
	lab.Refused(t, b.client, "tcp", at(host.Addr6(), 8080))
	lab.Refused(t, b.client, "tcp", at(host.Addr4(), 7001))
	lab.Reaches(t, ours, "tcp", at(b.client.Addr4(), 80))
	lab.Reaches(t, ours, "tcp", at(b.client.Addr6(), 80))
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")

	b.run("firewall-cmd", "--add-port=8080/tcp", "--add-port=7001/tcp")
	for _, addr := range []netip.Addr{host.Addr4(), host.Addr6()} {
		if reply := lab.Reaches(t, b.client, "tcp", at(addr, 8080)); reply.Peer.Addr() != b.client.Addr4() && reply.Peer.Addr() != b.client.Addr6() {
			t.Errorf("the container sees %v as its client", reply.Peer)
		}
	}
	lab.Refused(t, b.client, "tcp", at(host.Addr4(), 8081)) // whose port was not named
	lab.Refused(t, b.client, "tcp", at(host.Addr4(), 7001)) // which is Docker's
	if out := b.run(binary(t), "ports"); !strings.Contains(out, "StrictForwardPorts=yes") {
		t.Errorf("ports does not say why:\n%s", out)
	}
}
