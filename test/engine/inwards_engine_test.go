//go:build engine

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestPublishedPorts sends to published ports from everywhere, both families.
func TestPublishedPorts(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	server := b.serveOn("web", "--name", "server", "-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "[::1]:8081:81")
	neighbour := b.serveOn("web", "--name", "neighbour")
	stranger := b.serveOn("other", "--name", "stranger")
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()

	t.Run("from outside, with the client's own address", func(t *testing.T) {
		r := lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		same(t, r.Peer.Addr(), b.client.Addr4())
		r = lab.Reaches(t, b.client, "tcp", at(host6, 8080))
		same(t, r.Peer.Addr(), b.client.Addr6())
	})
	t.Run("from the host by every address", func(t *testing.T) {
		for _, a := range []string{"127.0.0.1", "127.0.0.2", "[::1]", host4.String(), "[" + host6.String() + "]"} {
			lab.Reaches(t, b.Host, "tcp", a+":8080")
		}
	})
	t.Run("from the same network by the host's address", func(t *testing.T) {
		lab.Reaches(t, neighbour, "tcp", at(host4, 8080))
		lab.Reaches(t, neighbour, "tcp", at(host6, 8080))
	})
	t.Run("from the container itself by the host's address", func(t *testing.T) {
		lab.Reaches(t, server, "tcp", at(host4, 8080))
		lab.Reaches(t, server, "tcp", at(host6, 8080))
	})
	t.Run("from another network, with the container's own address", func(t *testing.T) {
		r := lab.Reaches(t, stranger, "tcp", at(host4, 8080))
		same(t, r.Peer.Addr(), b.addr(stranger, "other"))
		r = lab.Reaches(t, stranger, "tcp", at(host6, 8080))
		same(t, r.Peer.Addr(), b.addr6(stranger, "other"))
	})
	t.Run("a port on a loopback address is the host's alone", func(t *testing.T) {
		lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8081")
		lab.Reaches(t, b.Host, "tcp", "[::1]:8081")
		for _, from := range []lab.Place{b.client, stranger, neighbour} {
			lab.Blocked(t, from, "tcp", at(host4, 8081))
			lab.Blocked(t, from, "tcp", at(host6, 8081))
		}
		lab.Blocked(t, b.Host, "tcp", at(host4, 8081))
	})
	t.Run("unpublished ports are closed", func(t *testing.T) {
		for _, from := range []lab.Place{b.client, stranger} {
			lab.Blocked(t, from, "tcp", at(host4, 81))
			lab.Blocked(t, from, "tcp", at(host6, 81))
			lab.Blocked(t, from, "tcp", at(host4, 80))
		}
	})
	t.Run("container addresses are closed from outside", func(t *testing.T) {
		for _, port := range []uint16{80, 81, 8080} {
			lab.Dropped(t, b.client, "tcp", at(b.addr(server, "web"), port))
			lab.Dropped(t, b.client, "tcp", at(b.addr6(server, "web"), port))
		}
		lab.NotPings(t, b.client, b.addr(server, "web"))
		lab.NotPings(t, b.client, b.addr6(server, "web"))
	})
	t.Run("gone with the container", func(t *testing.T) {
		b.do("rm", "-f", "server")
		lab.Refused(t, b.client, "tcp", at(host4, 8080))
		lab.Refused(t, b.Host, "tcp", "127.0.0.1:8080")
		lab.Refused(t, b.client, "tcp", at(host6, 8080))
		if ports := b.ports(); len(ports) != 0 {
			t.Errorf("ports are left: %+v", ports)
		}
	})
}

// TestPublishedUDP does the same for UDP, where the answer's source matters too.
func TestPublishedUDP(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	server, err := b.docker.Serve(t.Context(), []string{"--network", "web", "--name", "server", "-p", "5353:53/udp"}, "udp", ":53", ":54")
	if err != nil {
		t.Fatal(err)
	}
	neighbour, stranger := b.serveOn("web"), b.serveOn("other")
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()

	r := lab.Reaches(t, b.client, "udp", at(host4, 5353))
	same(t, r.Peer.Addr(), b.client.Addr4())
	r = lab.Reaches(t, b.client, "udp", at(host6, 5353))
	same(t, r.Peer.Addr(), b.client.Addr6())
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "[::1]", host4.String(), "[" + host6.String() + "]"} {
		lab.Reaches(t, b.Host, "udp", a+":5353")
	}
	for _, from := range []lab.Place{neighbour, stranger, server} {
		lab.Reaches(t, from, "udp", at(host4, 5353))
		lab.Reaches(t, from, "udp", at(host6, 5353))
	}
	lab.Blocked(t, b.client, "tcp", at(host4, 5353)) // the other protocol
	lab.Blocked(t, b.client, "udp", at(b.addr(server, "web"), 53))
	lab.Blocked(t, b.client, "udp", at(b.addr6(server, "web"), 53))
	lab.Blocked(t, b.client, "udp", at(host4, 54))

	t.Run("a new container takes over a steady sender", func(t *testing.T) {
		// The client's source port stays the same, so conntrack remembers the old container.
		ask := lab.Request{Network: "udp", Addr: at(host4, 5353), Bind: b.client.Addr4().String() + ":40000"}
		if _, err := lab.Get(t.Context(), b.client, ask); err != nil {
			t.Fatal(err)
		}
		b.do("rm", "-f", "server")
		_, _ = lab.Get(t.Context(), b.client, ask) // to nobody
		again, err := b.docker.Serve(t.Context(), []string{"--network", "web", "-p", "5353:53/udp"}, "udp", ":53")
		if err != nil {
			t.Fatal(err)
		}
		r, err := lab.Get(t.Context(), b.client, ask)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(again.Name, r.Server) {
			t.Errorf("%s answers, not %s", r.Server, again.Name)
		}
	})
}

// TestPublishedSCTP does the same for SCTP, which nobody proxies: it is for the firewall alone.
func TestPublishedSCTP(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	serve := func(args ...string) *lab.Container {
		t.Helper()
		c, err := b.docker.Serve(t.Context(), append([]string{"--network", "web"}, args...), "sctp", ":3868", ":3869")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server := serve("--name", "server", "--hostname", "server", "-p", "9868:3868/sctp")
	neighbour, stranger := b.serveOn("web"), b.serveOn("other")
	hosts := []netip.Addr{b.client.Host.Addr4(), b.client.Host.Addr6()}

	t.Run("from outside, with the client's own address", func(t *testing.T) {
		for i, client := range []netip.Addr{b.client.Addr4(), b.client.Addr6()} {
			same(t, lab.Reaches(t, b.client, "sctp", at(hosts[i], 9868)).Peer.Addr(), client)
		}
	})
	t.Run("from another network, with the container's own address", func(t *testing.T) {
		for i, addr := range []netip.Addr{b.addr(stranger, "other"), b.addr6(stranger, "other")} {
			same(t, lab.Reaches(t, stranger, "sctp", at(hosts[i], 9868)).Peer.Addr(), addr)
		}
	})
	t.Run("from the same network, the container itself and the host", func(t *testing.T) {
		for _, from := range []lab.Place{neighbour, server, b.Host} {
			for _, host := range hosts {
				if r := lab.Reaches(t, from, "sctp", at(host, 9868)); r.Server != "server" {
					t.Errorf("%s answers", r.Server)
				}
			}
		}
	})
	t.Run("everything else is closed", func(t *testing.T) {
		for i, host := range hosts {
			lab.Blocked(t, b.client, "tcp", at(host, 9868)) // the other protocols
			lab.Blocked(t, b.client, "udp", at(host, 9868))
			lab.Blocked(t, b.client, "sctp", at(host, 3869))
			container := []netip.Addr{b.addr(server, "web"), b.addr6(server, "web")}[i]
			lab.Blocked(t, b.client, "sctp", at(container, 3868))
			lab.Blocked(t, stranger, "sctp", at(container, 3868))
		}
		lab.Blocked(t, b.Host, "sctp", "127.0.0.1:9868") // docs/limits.md says so
		lab.Blocked(t, b.Host, "sctp", "[::1]:9868")
	})
	t.Run("is shown", func(t *testing.T) {
		ports := b.ports()
		if len(ports) != 2 || ports[0].Protocol != "sctp" || ports[0].HostPort != 9868 || ports[0].ContainerPort != 3868 {
			t.Errorf("drawbridge ports says %+v", ports)
		}
	})
	t.Run("conflict", func(t *testing.T) {
		b.fails("9868/sctp is already published by endpoint", "run", "--rm", "--network", "web", "-p", "9868:3868/sctp", "lab", "true")
		b.fails("9868/sctp is already published by endpoint", "run", "--rm", "--network", "other", "-p", hosts[0].String()+":9868:3868/sctp", "lab", "true")
		b.fails("is not an address of this host", "run", "--rm", "--network", "web", "-p", "10.9.8.7:9869:3868/sctp", "lab", "true")
		b.do("rm", "-f", b.serveOn("web", "-p", "9868:80").Name) // the number is free in tcp
	})
	t.Run("after a restart of the daemon", func(t *testing.T) {
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		b.startPlugin()
		lab.Reaches(t, b.client, "sctp", at(hosts[0], 9868))
		b.fails("9868/sctp is already published by endpoint", "run", "--rm", "--network", "web", "-p", "9868:3868/sctp", "lab", "true")
	})
	t.Run("gone with the container, and another takes over a steady sender", func(t *testing.T) {
		asks := make([]lab.Request, len(hosts))
		for i, source := range []string{b.client.Addr4().String() + ":40000", "[" + b.client.Addr6().String() + "]:40000"} {
			asks[i] = lab.Request{Network: "sctp", Addr: at(hosts[i], 9868), Bind: source}
			if _, err := lab.Get(t.Context(), b.client, asks[i]); err != nil {
				t.Fatal(err)
			}
		}
		b.do("rm", "-f", "server")
		lab.Blocked(t, b.client, "sctp", at(hosts[0], 9868))
		lab.Blocked(t, b.client, "sctp", at(hosts[1], 9868))
		for _, ask := range asks {
			if _, err := lab.Get(t.Context(), b.client, ask); err == nil { // to nobody
				t.Errorf("%s is answered", ask.Addr)
			}
		}
		if ports := b.ports(); len(ports) != 0 {
			t.Errorf("ports are left: %+v", ports)
		}
		serve("--hostname", "heir", "-p", "9868:3868/sctp")
		for _, ask := range asks {
			if r, err := lab.Get(t.Context(), b.client, ask); err != nil || r.Server != "heir" {
				t.Errorf("%q answers at %s (%v), not the heir", r.Server, ask.Addr, err)
			}
		}
	})
}

// TestPortForms publishes in every form of -p.
func TestPortForms(t *testing.T) {
	b := up(t, options{})
	if _, err := b.AddUplink(t.Context(), "ext1"); err != nil {
		t.Fatal(err)
	}
	second, err := b.AddClient(t.Context(), "second", lab.ClientOptions{Uplink: "ext1"})
	if err != nil {
		t.Fatal(err)
	}
	b.network("web", "--ipv6")
	host4 := b.client.Host.Addr4()

	t.Run("one address of the host", func(t *testing.T) {
		c := b.serveOn("web", "-p", host4.String()+":9000:80")
		lab.Reaches(t, b.client, "tcp", at(host4, 9000))
		lab.Reaches(t, b.Host, "tcp", at(host4, 9000))
		lab.Blocked(t, second, "tcp", at(second.Host.Addr4(), 9000))
		lab.Blocked(t, b.client, "tcp", at(b.client.Host.Addr6(), 9000))
		lab.Blocked(t, b.Host, "tcp", "127.0.0.1:9000")
		b.do("rm", "-f", c.Name)
	})
	t.Run("one IPv6 address of the host", func(t *testing.T) {
		c := b.serveOn("web", "-p", "["+b.client.Host.Addr6().String()+"]:9000:80")
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 9000))
		lab.Blocked(t, b.client, "tcp", at(host4, 9000))
		b.do("rm", "-f", c.Name)
	})
	t.Run("the same port on two addresses", func(t *testing.T) {
		one := b.serveOn("web", "-p", host4.String()+":9000:80")
		two := b.serveOn("web", "-p", second.Host.Addr4().String()+":9000:80")
		if r := lab.Reaches(t, b.client, "tcp", at(host4, 9000)); !strings.HasPrefix(one.Name, r.Server) {
			t.Errorf("%s answers, not %s", r.Server, one.Name)
		}
		if r := lab.Reaches(t, second, "tcp", at(second.Host.Addr4(), 9000)); !strings.HasPrefix(two.Name, r.Server) {
			t.Errorf("%s answers, not %s", r.Server, two.Name)
		}
		b.do("rm", "-f", one.Name, two.Name)
	})
	t.Run("a range to a range", func(t *testing.T) {
		c := b.serveOn("web", "-p", "9010-9011:80-81")
		lab.Reaches(t, b.client, "tcp", at(host4, 9010))
		lab.Reaches(t, b.client, "tcp", at(host4, 9011))
		lab.Blocked(t, b.client, "tcp", at(host4, 9012))
		b.do("rm", "-f", c.Name)
	})
	t.Run("a range to one, first come first served", func(t *testing.T) {
		one, two := b.serveOn("web", "-p", "9020-9021:80"), b.serveOn("web", "-p", "9020-9021:80")
		lab.Reaches(t, b.client, "tcp", at(host4, 9020))
		lab.Reaches(t, b.client, "tcp", at(host4, 9021))
		b.fails("9020-9021", "run", "--rm", "--network", "web", "-p", "9020-9021:80", "lab", "true")
		b.do("rm", "-f", one.Name, two.Name)
	})
	t.Run("ephemeral, with the same number in both families", func(t *testing.T) {
		c := b.serveOn("web", "-p", "80")
		ports := b.ports()
		if len(ports) != 2 || ports[0].HostPort != ports[1].HostPort || ports[0].ContainerPort != 80 {
			t.Fatalf("drawbridge ports says %+v", ports)
		}
		lab.Reaches(t, b.client, "tcp", at(host4, ports[0].HostPort))
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), ports[0].HostPort))
		b.do("rm", "-f", c.Name)
	})
	t.Run("-P, every exposed port", func(t *testing.T) {
		c := b.serveOn("web", "-P", "--expose", "80", "--expose", "81", "--expose", "53/udp")
		ports := b.ports()
		if len(ports) != 6 {
			t.Fatalf("drawbridge ports says %+v, not three ports in two families", ports)
		}
		for _, p := range ports {
			if p.Protocol == "tcp" && p.HostAddress == "0.0.0.0" {
				lab.Reaches(t, b.client, "tcp", at(host4, p.HostPort))
			}
		}
		b.do("rm", "-f", c.Name)
	})
	t.Run("one family", func(t *testing.T) {
		four, six := b.serveOn("web", "-p", "0.0.0.0:9030:80"), b.serveOn("web", "-p", "[::]:9030:80")
		for to, c := range map[string]*lab.Container{at(host4, 9030): four, at(b.client.Host.Addr6(), 9030): six, "127.0.0.1:9030": four, "[::1]:9030": six} {
			from := lab.Place(b.client)
			if strings.HasPrefix(to, "127.") || strings.HasPrefix(to, "[::1]") {
				from = b.Host
			}
			if r := lab.Reaches(t, from, "tcp", to); !strings.HasPrefix(c.Name, r.Server) {
				t.Errorf("%s answers at %s", r.Server, to)
			}
		}
		b.do("rm", "-f", four.Name)
		lab.Refused(t, b.client, "tcp", at(host4, 9030))
		b.do("rm", "-f", six.Name)
	})
	t.Run("of an IPv4 container nothing is exposed in IPv6", func(t *testing.T) {
		b.network("four")
		c := b.serveOn("four", "-p", "9040:80")
		lab.Reaches(t, b.client, "tcp", at(host4, 9040))
		lab.Blocked(t, b.client, "tcp", at(b.client.Host.Addr6(), 9040))
		b.do("rm", "-f", c.Name)
	})
	t.Run("of an IPv4 container at an IPv6 address that is named", func(t *testing.T) {
		host6 := b.client.Host.Addr6()
		c := b.serveOn("four", "-p", "["+host6.String()+"]:9041:80", "-p", "[::]:9042:80")
		lab.Reaches(t, b.client, "tcp", at(host6, 9041))
		lab.Reaches(t, b.client, "tcp", at(host6, 9042))
		lab.Reaches(t, b.Host, "tcp", "[::1]:9042")
		lab.Refused(t, b.client, "tcp", at(host4, 9042))
		b.network("inner", "--internal", "--ipv6")
		inner := b.serveOn("inner")
		var gateway string
		for _, g := range strings.Fields(b.do("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", "inner")) {
			if gateway, _, _ = strings.Cut(g, "/"); strings.Contains(gateway, ":") {
				break
			}
		}
		if r, err := lab.Get(t.Context(), inner, lab.Request{Network: "tcp", Addr: "[" + gateway + "]:9042"}); err == nil {
			t.Errorf("a container of an internal network reaches %s", r.Server)
		}
		b.do("rm", "-f", inner.Name)
		b.run("ip6tables", "-I", "INPUT", "-p", "tcp", "--dport", "9041", "-j", "DROP")
		lab.Dropped(t, b.client, "tcp", at(host6, 9041))
		b.run("ip6tables", "-D", "INPUT", "-p", "tcp", "--dport", "9041", "-j", "DROP")
		b.do("rm", "-f", c.Name)
		lab.Refused(t, b.client, "tcp", at(host6, 9042))
	})
	t.Run("of a container on networks with and without IPv6, however often it starts", func(t *testing.T) {
		c := b.serveOn("four", "-p", "["+b.client.Host.Addr6().String()+"]:9043:80")
		b.do("network", "connect", "web", c.Name)
		for range 4 {
			b.eventually("the container serves", func() bool {
				_, err := lab.Get(t.Context(), b.client, lab.Request{Network: "tcp", Addr: at(b.client.Host.Addr6(), 9043)})
				return err == nil
			})
			b.do("restart", "-t", "0", c.Name)
		}
		b.do("rm", "-f", c.Name)
	})
	t.Run("many at once", func(t *testing.T) {
		c := b.serveOn("web", "-p", "20000-20199:80-279")
		lab.Reaches(t, b.client, "tcp", at(host4, 20000))
		lab.Reaches(t, b.client, "tcp", at(host4, 20001))
		if n := len(b.ports()); n != 400 {
			t.Errorf("%d rows of ports, not 200 in two families", n)
		}
		b.do("rm", "-f", c.Name)
	})
}

// TestPortConflicts names who has the port, and leaves nothing behind.
func TestPortConflicts(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	b.do("network", "create", "builtin")
	if _, err := b.Serve(t.Context(), "tcp", ":7000"); err != nil {
		t.Fatal(err)
	}
	dockers := b.serveOn("builtin", "-p", "7001:80")
	ours := b.serveOn("web", "-p", "7002:80")
	before := b.ports()

	b.fails("7000/tcp is already in use by probe", "run", "--rm", "--network", "web", "-p", "6999:80", "-p", "7000:80", "lab", "true")
	b.fails("7001/tcp is already in use by docker-proxy (pid ", "run", "--rm", "--network", "web", "-p", "7001:80", "lab", "true")
	b.fails("), which publishes it for the container "+at(b.addr(dockers, "builtin"), 80)+" of Docker's own networks", "run", "--rm", "--network", "web", "-p", "7001:80", "lab", "true")
	b.fails("7002/tcp is already published by endpoint", "run", "--rm", "--network", "web", "-p", "7002:80", "lab", "true")
	// Docker's own driver meets our socket.
	b.fails("address already in use", "run", "--rm", "--network", "builtin", "-p", "7002:80", "lab", "true")
	b.fails("is not an address of this host", "run", "--rm", "--network", "web", "-p", "10.9.8.7:7003:80", "lab", "true")

	if after := b.ports(); len(after) != len(before) {
		t.Errorf("ports before %+v, after %+v", before, after)
	}
	lab.Refused(t, b.client, "tcp", at(b.client.Host.Addr4(), 6999)) // all or nothing
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 7001))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 7002))
	b.do("rm", "-f", dockers.Name, ours.Name)
}

// TestPortConflictsWithoutProxy: dockerd holds the sockets itself then.
func TestPortConflictsWithoutProxy(t *testing.T) {
	b := up(t, options{docker: []string{"--userland-proxy=false"}})
	b.network("web", "--ipv6")
	b.do("network", "create", "builtin")
	b.serveOn("builtin", "-p", "7001:80")
	for _, words := range []string{
		"7001/tcp is already in use by dockerd (pid ", "), most likely for a container of Docker's own networks: see docker ps",
	} {
		b.fails(words, "run", "--rm", "--network", "web", "-p", "7001:80", "lab", "true")
	}
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 7001))
}

// TestDefaultHostAddress is --ip.
func TestDefaultHostAddress(t *testing.T) {
	b := up(t, options{serve: []string{"--ip", "127.0.0.1"}})
	b.network("web", "--ipv6")
	b.serveOn("web", "-p", "8080:80")
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	lab.Blocked(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Blocked(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	b.serveOn("web", "-p", b.client.Host.Addr4().String()+":8081:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081))
}

func same(t *testing.T, got, want netip.Addr) {
	t.Helper()
	if got.Unmap() != want {
		t.Errorf("the server saw %v, not %v", got, want)
	}
}
