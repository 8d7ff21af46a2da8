//go:build engine

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestIsolation: containers of one network see each other with their own addresses, and
// nobody else's, Docker's own networks included.
func TestIsolation(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := up(t, options{lab: lab.Options{IPTables: variant}})
			b.network("a", "--ipv6")
			b.network("b", "--ipv6")
			b.do("network", "create", "builtin")
			b.do("network", "create", "-o", "com.docker.network.bridge.name=named0", "named")
			a1, a2, b1 := b.serveOn("a"), b.serveOn("a"), b.serveOn("b")

			t.Run("within a network, with real addresses", func(t *testing.T) {
				same(t, lab.Reaches(t, a1, "tcp", at(b.addr(a2, "a"), 80)).Peer.Addr(), b.addr(a1, "a"))
				same(t, lab.Reaches(t, a1, "tcp", at(b.addr6(a2, "a"), 81)).Peer.Addr(), b.addr6(a1, "a"))
				lab.Pings(t, a1, b.addr(a2, "a"))
			})
			t.Run("between our networks", func(t *testing.T) {
				lab.Dropped(t, a1, "tcp", at(b.addr(b1, "b"), 80))
				lab.Dropped(t, b1, "tcp", at(b.addr(a1, "a"), 80))
				lab.Dropped(t, a1, "tcp", at(b.addr6(b1, "b"), 80))
				lab.Dropped(t, b1, "tcp", at(b.addr6(a1, "a"), 80))
				lab.NotPings(t, a1, b.addr(b1, "b"))
			})
			for _, network := range []string{"bridge", "builtin", "named"} {
				t.Run("Docker's network "+network, func(t *testing.T) {
					theirs := b.serveOn(network, "-p", "8090:80")
					lab.Blocked(t, a1, "tcp", at(b.addr(theirs, network), 80))
					lab.Blocked(t, a1, "tcp", at(b.addr(theirs, network), 81))
					lab.Blocked(t, theirs, "tcp", at(b.addr(a1, "a"), 80))
					lab.NotPings(t, a1, b.addr(theirs, network))
					lab.NotPings(t, theirs, b.addr(a1, "a"))
					lab.Reaches(t, a1, "tcp", at(b.client.Host.Addr4(), 8090)) // published is for all
					b.do("rm", "-f", theirs.Name)
				})
			}
			t.Run("Docker's network with IPv6", func(t *testing.T) {
				b.do("network", "create", "--ipv6", "--subnet", "fd0d::/64", "six")
				theirs := b.serveOn("six", "-p", "8091:80")
				for from, to := range map[*lab.Container]string{a1: at(b.addr6(theirs, "six"), 80), theirs: at(b.addr6(a1, "a"), 80)} {
					lab.Blocked(t, from, "tcp", to)
				}
				lab.Blocked(t, a1, "tcp", at(b.addr(theirs, "six"), 80))
				lab.Blocked(t, theirs, "tcp", at(b.addr(a1, "a"), 80))
				lab.NotPings(t, a1, b.addr6(theirs, "six"))
				lab.NotPings(t, theirs, b.addr6(a1, "a"))
				lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8091)) // it does have IPv6
				b.do("rm", "-f", theirs.Name)
			})
			t.Run("dockerd started again, its rules ahead of ours", func(t *testing.T) {
				if err := b.docker.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				a, theirs, six := b.serveOn("a"), b.serveOn("bridge"), b.serveOn("six")
				lab.Blocked(t, a, "tcp", at(b.addr(theirs, "bridge"), 80))
				lab.Blocked(t, theirs, "tcp", at(b.addr(a, "a"), 80))
				lab.Blocked(t, a, "tcp", at(b.addr6(six, "six"), 80))
				lab.Blocked(t, six, "tcp", at(b.addr6(a, "a"), 80))
			})
		})
	}
}

// TestInternal: nothing in, nothing out, but within.
func TestInternal(t *testing.T) {
	b := up(t, options{})
	b.network("inner", "--internal", "--ipv6")
	b.network("web", "--ipv6")
	i1, i2 := b.serveOn("inner", "-p", "8080:80"), b.serveOn("inner")
	w := b.serveOn("web")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()

	lab.Reaches(t, i1, "tcp", at(b.addr(i2, "inner"), 80))
	lab.Reaches(t, i1, "tcp", at(b.addr6(i2, "inner"), 80))
	routes, err := i1.Run(t.Context(), "/bin/busybox", "ip", "route")
	if err != nil || contains(routes, "default") {
		t.Errorf("an internal container has a default route: %v %s", err, routes)
	}
	lab.Blocked(t, i1, "tcp", at(b.client.Addr4(), 80))
	lab.Blocked(t, i1, "tcp", at(b.client.Addr6(), 80))
	for _, from := range []lab.Place{b.client, w} {
		lab.Blocked(t, from, "tcp", at(b.addr(i1, "inner"), 80))
		lab.Blocked(t, from, "tcp", at(b.addr6(i1, "inner"), 80))
		lab.Blocked(t, from, "tcp", at(b.client.Host.Addr4(), 8080))
	}
	t.Run("the host is on the network, as with Docker's own driver", func(t *testing.T) {
		if _, err := b.Serve(t.Context(), "tcp", ":9000"); err != nil {
			t.Fatal(err)
		}
		lab.Reaches(t, b.Host, "tcp", at(b.addr(i1, "inner"), 80))
		lab.Reaches(t, b.Host, "tcp", at(b.addr6(i1, "inner"), 80))
		lab.Pings(t, b.Host, b.addr(i1, "inner"))
		// The link's own addresses, one of each family.
		for line := range strings.Lines(b.run("ip", "-oneline", "addr", "show", "dev", b.bridge("inner"), "scope", "global")) {
			bridge := netip.MustParsePrefix(strings.Fields(line)[3]).Addr()
			lab.Reaches(t, i1, "tcp", at(bridge, 9000))
			lab.Pings(t, i1, bridge)
		}
		lab.Blocked(t, i1, "tcp", at(b.client.Host.Addr4(), 9000)) // there is no route
		lab.Blocked(t, i1, "tcp", at(b.client.Host.Addr6(), 9000))
		lab.Blocked(t, b.Host, "tcp", "127.0.0.1:8080") // nothing is published there
	})
	t.Run("not even with a route of its own", func(t *testing.T) {
		rogue := b.serveOn("inner", "--cap-add", "NET_ADMIN")
		gateway := b.do("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "inner")
		if _, err := rogue.Run(t.Context(), "/bin/busybox", "ip", "route", "add", "default", "via", gateway); err != nil {
			t.Fatal(err)
		}
		lab.Dropped(t, rogue, "tcp", at(b.client.Addr4(), 80))
		lab.Dropped(t, rogue, "tcp", at(b.addr(w, "web"), 80))
	})
}

// TestTwoNetworks: a container on two networks reaches both, and leaves one.
func TestTwoNetworks(t *testing.T) {
	b := up(t, options{})
	b.network("a", "--ipv6")
	b.network("b", "--ipv6")
	both, onA, onB := b.serveOn("a", "-p", "8080:80"), b.serveOn("a"), b.serveOn("b")
	b.do("network", "connect", "b", both.Name)
	lab.Reaches(t, both, "tcp", at(b.addr(onA, "a"), 80))
	lab.Reaches(t, both, "tcp", at(b.addr(onB, "b"), 80))
	lab.Reaches(t, onB, "tcp", at(b.addr(both, "b"), 80))
	lab.Reaches(t, onB, "tcp", at(b.addr6(both, "b"), 80))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))

	b.do("network", "disconnect", "b", both.Name)
	lab.Blocked(t, both, "tcp", at(b.addr(onB, "b"), 80))
	lab.Reaches(t, both, "tcp", at(b.addr(onA, "a"), 80))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))

	b.do("network", "connect", "b", both.Name)
	b.do("network", "disconnect", "a", both.Name) // the gateway moves, and the port with it
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, onB, "tcp", at(b.addr(both, "b"), 80))
	lab.Blocked(t, onA, "tcp", at(b.addr(both, "b"), 80))
}
