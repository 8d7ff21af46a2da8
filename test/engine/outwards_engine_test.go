//go:build engine

package engine

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

func contains(text, word string) bool { return strings.Contains(text, word) }

// outside starts a server on the bed's client.
func (b *bed) outside() {
	b.t.Helper()
	if _, err := b.client.Serve(b.t.Context(), "tcp", ":80"); err != nil {
		b.t.Fatal(err)
	}
}

// TestMasquerade: the outside sees the host's address.
func TestMasquerade(t *testing.T) {
	b := up(t, options{})
	b.outside()
	b.network("web", "--ipv6")
	c := b.serveOn("web")
	same(t, lab.Reaches(t, c, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), b.client.Host.Addr4())
	same(t, lab.Reaches(t, c, "tcp", at(b.client.Addr6(), 80)).Peer.Addr(), b.client.Host.Addr6())
	lab.Pings(t, c, b.client.Addr4())
	lab.Pings(t, c, b.client.Addr6())

	t.Run("an IPv4 network has no way out in IPv6", func(t *testing.T) {
		b.network("four")
		c := b.serveOn("four")
		lab.Reaches(t, c, "tcp", at(b.client.Addr4(), 80))
		// The container has no IPv6 address to send from.
		if _, err := lab.Get(t.Context(), c, lab.Request{Network: "tcp", Addr: at(b.client.Addr6(), 80)}); err == nil {
			t.Error("an IPv4 container reaches the outside by IPv6")
		}
	})
	t.Run("a source address that is not the network's goes nowhere", func(t *testing.T) {
		rogue := b.serveOn("web", "--cap-add", "NET_ADMIN")
		if _, err := rogue.Run(t.Context(), "/bin/busybox", "ip", "addr", "add", "10.66.66.66/32", "dev", "eth0"); err != nil {
			t.Fatal(err)
		}
		if _, err := lab.Get(t.Context(), rogue, lab.Request{Network: "tcp", Addr: at(b.client.Addr4(), 80), Bind: "10.66.66.66:0"}); err == nil {
			t.Error("a spoofed source is answered")
		}
	})
}

// TestForwarding: --ip-forward turns forwarding on without making the host a router.
func TestForwarding(t *testing.T) {
	off := func(h *lab.Host) {
		for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
			if _, err := h.Run(t.Context(), "sysctl", "-w", key+"=0"); err != nil {
				t.Fatal(err)
			}
		}
	}
	forwarding := func(b *bed) string {
		return b.run("sysctl", "-n", "net.ipv4.ip_forward") + b.run("sysctl", "-n", "net.ipv6.conf.all.forwarding")
	}
	t.Run("on", func(t *testing.T) {
		b := up(t, options{docker: []string{"--ip-forward=false"}, before: off})
		b.outside()
		far, err := b.AddClient(t.Context(), "far", lab.ClientOptions{Uplink: "ext1"})
		if err != nil {
			t.Fatal(err)
		}
		if got := forwarding(b); got != "0\n0\n" {
			t.Fatalf("forwarding is on before there is a network: %q", got)
		}
		b.network("web", "--ipv6")
		c := b.serveOn("web", "-p", "8080:80")
		docker0 := b.serveOn("bridge")
		if got := forwarding(b); got != "1\n1\n" {
			t.Errorf("forwarding is %q", got)
		}
		lab.Reaches(t, c, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, c, "tcp", at(b.client.Addr6(), 80))
		lab.Reaches(t, docker0, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, far, "tcp", at(far.Host.Addr4(), 8080))

		lab.Blocked(t, far, "tcp", at(b.client.Addr4(), 80)) // no router
		lab.Blocked(t, far, "tcp", at(b.client.Addr6(), 80))
		for _, tables := range []string{"iptables", "ip6tables"} {
			b.run(tables, "-I", "DOCKER-USER", "-i", "ext1", "-o", "ext0", "-j", "ACCEPT")
			b.run(tables, "-A", "FORWARD", "-i", "ext0", "-o", "ext1", "-j", "ACCEPT")
		}
		// The appended rule stands behind ours until the next pass, which comes with any change.
		b.network("more")
		lab.Reaches(t, far, "tcp", at(b.client.Addr4(), 80)) // unless the user says so
		lab.Reaches(t, far, "tcp", at(b.client.Addr6(), 80))

		b.run("iptables", "-F", "DOCKER-USER")
		b.do("rm", "-f", c.Name)
		b.do("network", "rm", "web", "more")
		lab.Blocked(t, far, "tcp", at(b.client.Addr4(), 80)) // forwarding stays on, and so does the guard
		rules, err := b.Rules(t.Context())
		if err != nil || contains(rules, "DRAWBRIDGE-FORWARD") || contains(rules, "*mangle\n:DRAW") || !contains(rules, "DRAWBRIDGE-GUARD") {
			t.Errorf("not just the guard is left: %v\n%s", err, rules)
		}
	})
	t.Run("off", func(t *testing.T) {
		b := up(t, options{docker: []string{"--ip-forward=false"}, serve: []string{"--ip-forward=false"}, before: off})
		b.outside()
		b.network("web", "--ipv6")
		c := b.serveOn("web")
		if got := forwarding(b); got != "0\n0\n" {
			t.Errorf("forwarding is %q", got)
		}
		lab.Blocked(t, c, "tcp", at(b.client.Addr4(), 80))
		b.run("sysctl", "-w", "net.ipv4.ip_forward=1")
		lab.Reaches(t, c, "tcp", at(b.client.Addr4(), 80))
	})
}
