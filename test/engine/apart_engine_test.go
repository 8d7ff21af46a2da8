//go:build engine

package engine

import (
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

const noICC = "com.docker.network.bridge.enable_icc=false"

// TestApart: with enable_icc=false containers of a network reach the world and are reached by published
// ports, and each other by links only.
func TestApart(t *testing.T) {
	// With br_netfilter the kernel would send what is redirected within a bridge from port to port, which
	// isolated ones refuse: see docs/limits.md.
	b := up(t, options{before: func(h *lab.Host) {
		if _, err := h.Run(t.Context(), "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"); err != nil {
			t.Fatal(err)
		}
	}})
	before, err := b.Sysctls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.network("apart", "--ipv6", "-o", noICC)
	web := b.serveOn("apart", "--name", "web", "-p", "8080:80")
	other := b.serveOn("apart", "--name", "other")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()

	t.Run("not each other", func(t *testing.T) {
		for _, from := range []*lab.Container{web, other} {
			to := map[*lab.Container]*lab.Container{web: other, other: web}[from]
			lab.Blocked(t, from, "tcp", at(b.addr(to, "apart"), 80))
			lab.Blocked(t, from, "tcp", at(b.addr6(to, "apart"), 80))
			lab.NotPings(t, from, b.addr(to, "apart"))
			lab.NotPings(t, from, b.addr6(to, "apart"))
		}
	})
	t.Run("the world, the host, published ports", func(t *testing.T) {
		lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, web, "tcp", at(b.client.Addr6(), 80))
		lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		lab.Reaches(t, b.client, "tcp", at(host6, 8080))
		lab.Reaches(t, other, "tcp", at(host4, 8080))
		lab.Reaches(t, other, "tcp", at(host6, 8080))
		lab.Reaches(t, b.Host, "tcp", at(b.addr(web, "apart"), 80))
	})
	t.Run("no switch of the host was touched", func(t *testing.T) {
		after, err := b.Sysctls(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{
			"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables", "net.ipv4.conf.all.proxy_arp",
			"net.ipv4.conf.all.proxy_arp_pvlan", "net.ipv4.conf.all.send_redirects", "net.ipv6.conf.all.proxy_ndp",
		} {
			if before[key] != after[key] {
				t.Errorf("%s was %q and is %q", key, before[key], after[key])
			}
		}
	})
	t.Run("a neighbour with a route of its own", func(t *testing.T) {
		rogue := b.serveOn("apart", "--cap-add", "NET_ADMIN")
		gateway := b.do("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "apart")
		to := b.addr(web, "apart")
		if _, err := rogue.Run(t.Context(), "/bin/busybox", "ip", "route", "add", to.String()+"/32", "via", gateway); err != nil {
			t.Fatal(err)
		}
		lab.Dropped(t, rogue, "tcp", at(to, 80))
	})
}

// TestLinks: a link opens the exposed ports of one container to another, both families, in whichever
// order they start, and goes with either.
func TestLinks(t *testing.T) {
	b := up(t, options{})
	b.network("apart", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "-o", noICC)
	b.network("inner", "--internal", "-o", noICC)
	name, link := "driver-opt=drawbridge.name=", "driver-opt=drawbridge.link="
	serve := func(network string, exposed string, opts ...string) *lab.Container {
		t.Helper()
		arg := "name=" + network
		for _, o := range opts {
			arg += "," + o
		}
		return b.serveOn(arg, "--expose", exposed)
	}
	app := serve("apart", "81", link+"db") // db is not there yet
	third := serve("apart", "80")
	db := serve("apart", "80", name+"db")

	reached := func(t *testing.T, to *lab.Container) {
		t.Helper()
		same(t, lab.Reaches(t, app, "tcp", at(b.addr(to, "apart"), 80)).Peer.Addr(), b.addr(app, "apart"))
		same(t, lab.Reaches(t, app, "tcp", at(b.addr6(to, "apart"), 80)).Peer.Addr(), b.addr6(app, "apart"))
	}
	t.Run("the exposed port, with real addresses", func(t *testing.T) { reached(t, db) })
	t.Run("no other port, not back, nobody else", func(t *testing.T) {
		lab.Blocked(t, app, "tcp", at(b.addr(db, "apart"), 81))
		lab.Blocked(t, app, "udp", at(b.addr(db, "apart"), 80))
		lab.Blocked(t, app, "tcp", at(b.addr6(db, "apart"), 81))
		lab.NotPings(t, app, b.addr(db, "apart"))
		lab.Blocked(t, db, "tcp", at(b.addr(app, "apart"), 81))
		lab.Blocked(t, db, "tcp", at(b.addr6(app, "apart"), 81))
		lab.Blocked(t, third, "tcp", at(b.addr(db, "apart"), 80))
		lab.Blocked(t, third, "tcp", at(b.addr6(db, "apart"), 80))
		lab.Blocked(t, app, "tcp", at(b.addr(third, "apart"), 80))
	})
	t.Run("gone with the target, back with another one", func(t *testing.T) {
		old4, old6 := b.addr(db, "apart"), b.addr6(db, "apart")
		b.do("rm", "-f", db.Name)
		stranger := b.serveOn("apart", "--expose", "80", "--ip", old4.String(), "--ip6", old6.String())
		lab.Blocked(t, app, "tcp", at(old4, 80))
		lab.Blocked(t, app, "tcp", at(old6, 80))
		b.do("rm", "-f", stranger.Name)
		reached(t, serve("apart", "80", name+"db"))
	})
	t.Run("gone with the one that is linked", func(t *testing.T) {
		old4 := b.addr(app, "apart")
		b.do("rm", "-f", app.Name)
		stranger := b.serveOn("apart", "--ip", old4.String())
		two := serve("apart", "80", name+"two")
		lab.Blocked(t, stranger, "tcp", at(b.addr(two, "apart"), 80))
	})
	t.Run("on an internal network", func(t *testing.T) {
		one, two := serve("inner", "80", name+"db"), serve("inner", "80", link+"db")
		lab.Reaches(t, two, "tcp", at(b.addr(one, "inner"), 80))
		lab.Blocked(t, one, "tcp", at(b.addr(two, "inner"), 80))
	})
	t.Run("all that the engine sends itself", func(t *testing.T) {
		b.serveOn("name=apart,driver-opt=org.example.color=red", "--name", "whole", "--hostname", "whole", "--dns", "192.0.2.53", "--dns-search", "example.org", "--link", app.Name+":app",
			"--mac-address", "02:42:0a:4d:00:99", "--label", "com.docker.network.bogus=1", "--network-alias", "alias", "--expose", "80-82", "-P", "-p", "8099:99")
	})
	t.Run("unknown and malformed options", func(t *testing.T) {
		run := func(opt string) []string {
			return []string{"run", "--rm", "--network", "name=apart," + opt, "lab", "true"}
		}
		b.fails("did you mean drawbridge.link?", run("driver-opt=drawbridge.lnk=db")...)
		b.fails("did you mean com.docker.network.endpoint.sysctls?", run("driver-opt=com.docker.network.endpoint.sysctl=x")...)
		b.fails("`drawbridge options` lists those of containers", run("driver-opt=drawbridge.color=red")...)
		b.fails("give it to `docker network create -o com.docker.network.bridge.enable_icc=", run("driver-opt=com.docker.network.bridge.enable_icc=true")...)
		b.fails("is an option of networks", run("driver-opt=com.docker.network.driver.mtu=900")...)
		b.fails("may contain letters", run("driver-opt=drawbridge.name=a/b")...)
		b.fails("a name that ends in 0", run("driver-opt=com.docker.network.endpoint.ifname=web7")...)
	})
}
