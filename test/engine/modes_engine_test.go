//go:build engine

package engine

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// Options of Docker's bridge driver, as arguments of docker network create.
func bridgeOpt(key, value string) []string {
	return []string{"-o", "com.docker.network.bridge." + key + "=" + value}
}

func gatewayMode(v4, v6 string) []string {
	return append(bridgeOpt("gateway_mode_ipv4", v4), bridgeOpt("gateway_mode_ipv6", v6)...)
}

// TestRouted: nothing is translated, and what is published is open at the container's own address.
func TestRouted(t *testing.T) {
	b := up(t, options{})
	b.network("routed", append(gatewayMode("routed", "routed"), "--ipv6")...)
	b.network("other", "--ipv6")
	b.do("network", "create", "builtin")
	// Both ask for the same port of the host, and neither gets it.
	web := b.serveOn("routed", "-p", "8080:80", "-p", "127.0.0.1:8081:81")
	two := b.serveOn("routed", "-p", "8080:80")
	other, builtin := b.serveOn("other"), b.serveOn("builtin")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	web4, web6 := b.addr(web, "routed"), b.addr6(web, "routed")

	t.Run("published, from everywhere", func(t *testing.T) {
		for _, a := range []netip.Addr{web4, web6, b.addr(two, "routed"), b.addr6(two, "routed")} {
			lab.Reaches(t, b.client, "tcp", at(a, 80))
			lab.Reaches(t, other, "tcp", at(a, 80))
		}
		same(t, lab.Reaches(t, other, "tcp", at(web4, 80)).Peer.Addr(), b.addr(other, "other"))
		lab.Reaches(t, builtin, "tcp", at(web4, 80))
		lab.Pings(t, b.client, web4)
		lab.Pings(t, b.client, web6)
	})
	t.Run("not published, or for the host alone", func(t *testing.T) {
		for _, from := range []lab.Place{b.client, other} {
			lab.Dropped(t, from, "tcp", at(web4, 81))
			lab.Dropped(t, from, "tcp", at(web6, 81))
			lab.Dropped(t, from, "udp", at(web4, 80))
		}
		lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8081")
		lab.Refused(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Refused(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	})
	t.Run("outwards with the own address", func(t *testing.T) {
		same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), web4)
		same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr6(), 80)).Peer.Addr(), web6)
	})
	t.Run("drawbridge ports", func(t *testing.T) {
		routed := 0
		for _, p := range b.ports() {
			if p.HostPort == 0 && p.ContainerPort == 80 {
				routed++
			}
		}
		if text := b.run(binary(t), "ports"); routed != 4 || !strings.Contains(text, "routed/tcp") {
			t.Errorf("%d routed ports, not two containers' in two families:\n%s", routed, text)
		}
	})
	t.Run("gone with the container", func(t *testing.T) {
		b.do("rm", "-f", two.Name)
		b.do("rm", "-f", web.Name)
		lab.Blocked(t, b.client, "tcp", at(web4, 80))
	})
}

// TestMixedModes: each family for itself.
func TestMixedModes(t *testing.T) {
	b := up(t, options{})
	b.network("mixed", append(gatewayMode("nat", "routed"), "--ipv6")...)
	web := b.serveOn("mixed", "-p", "8080:80")
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	lab.Reaches(t, b.client, "tcp", at(host4, 8080))
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	lab.Reaches(t, b.client, "tcp", at(b.addr6(web, "mixed"), 80))
	lab.Refused(t, b.client, "tcp", at(host6, 8080))
	lab.Dropped(t, b.client, "tcp", at(b.addr(web, "mixed"), 80))
	lab.NotPings(t, b.client, b.addr(web, "mixed"))
}

// TestUnprotected: open to who can route there, but not to other networks.
func TestUnprotected(t *testing.T) {
	b := up(t, options{})
	b.network("open", append(gatewayMode("nat-unprotected", "nat-unprotected"), "--ipv6")...)
	b.network("other", "--ipv6")
	web, other := b.serveOn("open", "-p", "8080:80"), b.serveOn("other")
	builtin := b.serveOn("bridge")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	for _, a := range []netip.Addr{b.addr(web, "open"), b.addr6(web, "open")} {
		same(t, lab.Reaches(t, b.client, "tcp", at(a, 81)).Peer.Addr(), clientAddr(b.client, a.Is6()))
		lab.Pings(t, b.client, a)
		lab.Dropped(t, other, "tcp", at(a, 81))
	}
	lab.Blocked(t, builtin, "tcp", at(b.addr(web, "open"), 81))
	same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), b.client.Host.Addr4())
	same(t, lab.Reaches(t, web, "tcp", at(b.client.Addr6(), 80)).Peer.Addr(), b.client.Host.Addr6())
}

// TestSourceAddress: who the world sees.
func TestSourceAddress(t *testing.T) {
	b := up(t, options{})
	b.run("ip", "addr", "add", "198.51.100.77/24", "dev", "ext0")
	b.run("ip", "addr", "add", "2001:db8:1::77/64", "dev", "ext0", "nodad")
	b.network("plain", "--ipv6", "-o", "com.docker.network.bridge.enable_ip_masquerade=false")
	b.network("snat", "--ipv6", "-o", "com.docker.network.host_ipv4=198.51.100.77", "-o", "com.docker.network.host_ipv6=2001:db8:1::77")
	plain, snat := b.serveOn("plain", "-p", "8080:80"), b.serveOn("snat", "-p", "8081:80")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	client4, client6 := at(b.client.Addr4(), 80), at(b.client.Addr6(), 80)
	same(t, lab.Reaches(t, plain, "tcp", client4).Peer.Addr(), b.addr(plain, "plain"))
	same(t, lab.Reaches(t, plain, "tcp", client6).Peer.Addr(), b.addr6(plain, "plain"))
	same(t, lab.Reaches(t, snat, "tcp", client4).Peer.Addr(), netip.MustParseAddr("198.51.100.77"))
	same(t, lab.Reaches(t, snat, "tcp", client6).Peer.Addr(), netip.MustParseAddr("2001:db8:1::77"))
	for _, port := range []uint16{8080, 8081} {
		same(t, lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), port)).Peer.Addr(), b.client.Addr4())
		same(t, lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), port)).Peer.Addr(), b.client.Addr6())
	}
	lab.Reaches(t, plain, "tcp", at(b.client.Host.Addr4(), 8080)) // hairpin is masqueraded all the same
	lab.Dropped(t, plain, "tcp", at(b.addr(snat, "snat"), 80))
}

// TestTrustedLinks: published ports, and only those, at the containers' addresses, by the named link.
func TestTrustedLinks(t *testing.T) {
	b := up(t, options{})
	if _, err := b.AddUplink(t.Context(), "ext1"); err != nil {
		t.Fatal(err)
	}
	vpn, err := b.AddClient(t.Context(), "vpn", lab.ClientOptions{Uplink: "ext1"})
	if err != nil {
		t.Fatal(err)
	}
	b.network("web", append(bridgeOpt("trusted_host_interfaces", "nosuch0:ext1"), "--ipv6")...)
	web := b.serveOn("web", "-p", "8080:80")
	for _, a := range []netip.Addr{b.addr(web, "web"), b.addr6(web, "web")} {
		same(t, lab.Reaches(t, vpn, "tcp", at(a, 80)).Peer.Addr(), clientAddr(vpn, a.Is6()))
		lab.Dropped(t, vpn, "tcp", at(a, 81))
		lab.NotPings(t, vpn, a)
		lab.Dropped(t, b.client, "tcp", at(a, 80))
	}
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
}

func clientAddr(c *lab.Client, v6 bool) netip.Addr {
	if v6 {
		return c.Addr6()
	}
	return c.Addr4()
}

// TestHostBinding: where ports go that name no address.
func TestHostBinding(t *testing.T) {
	b := up(t, options{serve: []string{"--ip", "192.0.2.99"}}) // an address that is not there: networks say better
	b.network("local", append(bridgeOpt("host_binding_ipv4", "127.0.0.1"), "--ipv6")...)
	b.network("six", append(bridgeOpt("host_binding_ipv4", "::"), "--ipv6")...)
	b.network("all", append(bridgeOpt("host_binding_ipv4", "0.0.0.0"), "--ipv6")...)
	b.serveOn("local", "-p", "8080:80")
	b.serveOn("six", "-p", "8081:80")
	b.serveOn("all", "-p", "8082:80")
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	lab.Refused(t, b.client, "tcp", at(host4, 8080))
	lab.Refused(t, b.client, "tcp", at(host6, 8080))
	lab.Refused(t, b.client, "tcp", at(host4, 8081))
	lab.Reaches(t, b.client, "tcp", at(host6, 8081))
	lab.Reaches(t, b.client, "tcp", at(host4, 8082))
	lab.Reaches(t, b.client, "tcp", at(host6, 8082))
	b.network("daemon's")
	b.fails("192.0.2.99 is not an address of this host", "run", "--rm", "--network", "daemon's", "-p", "8083:80", "lab", "true")
}

// TestInhibited: the bridge has no IPv4 address, since another machine on it is the gateway.
func TestInhibited(t *testing.T) {
	b := up(t, options{})
	b.network("net", append(bridgeOpt("inhibit_ipv4", "true"), "--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd66::/64")...)
	one, two := b.serveOn("net"), b.serveOn("net")
	if out := b.run("ip", "-4", "addr", "show", "dev", b.bridge("net")); out != "" {
		t.Errorf("the bridge has an IPv4 address: %s", out)
	}
	if out := b.run("ip", "-6", "addr", "show", "dev", b.bridge("net"), "scope", "global"); !strings.Contains(out, "fd66::1/64") {
		t.Errorf("the bridge lacks its IPv6 address: %s", out)
	}
	lab.Reaches(t, one, "tcp", at(b.addr(two, "net"), 80))
	if routes, err := one.Run(t.Context(), "/bin/busybox", "ip", "route"); err != nil || !strings.Contains(routes, "default via 10.66.0.1") {
		t.Errorf("the container's routes: %s %v", routes, err)
	}
}

// TestOtherRouter: containers leave by another machine on the bridge, on internal networks too.
func TestOtherRouter(t *testing.T) {
	b := up(t, options{})
	b.network("net", "--subnet", "10.66.0.0/24", "--aux-address", "DefaultGatewayIPv4=10.66.0.9")
	b.network("inner", "--internal", "--subnet", "10.67.0.0/24", "--aux-address", "DefaultGatewayIPv4=10.67.0.9")
	for network, want := range map[string]string{"net": "default via 10.66.0.9", "inner": "default via 10.67.0.9"} {
		c := b.serveOn(network)
		if routes, err := c.Run(t.Context(), "/bin/busybox", "ip", "route"); err != nil || !strings.Contains(routes, want) {
			t.Errorf("routes on %s: %s %v", network, routes, err)
		}
	}
}

// TestIsolatedMode: containers of an internal network among themselves, without the host.
func TestIsolatedMode(t *testing.T) {
	b := up(t, options{})
	b.network("closed", append(gatewayMode("isolated", "isolated"), "--internal", "--ipv6")...)
	one, two := b.serveOn("closed"), b.serveOn("closed")
	if out := b.run("ip", "addr", "show", "dev", b.bridge("closed")); strings.Contains(out, "inet") {
		t.Errorf("the host is on the network: %s", out)
	}
	lab.Reaches(t, one, "tcp", at(b.addr(two, "closed"), 80))
	lab.Reaches(t, one, "tcp", at(b.addr6(two, "closed"), 80))
	lab.Blocked(t, b.Host, "tcp", at(b.addr(one, "closed"), 80))
	lab.Blocked(t, b.Host, "tcp", at(b.addr6(one, "closed"), 80))
	lab.Blocked(t, b.client, "tcp", at(b.addr(one, "closed"), 80))
	b.fails("add --internal", append([]string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "x"}, gatewayMode("isolated", "nat")...)...)
}

// TestAdoptedBridge: a bridge that was there stays, as it was.
func TestAdoptedBridge(t *testing.T) {
	b := up(t, options{})
	b.run("ip", "link", "add", "lan0", "type", "bridge")
	b.run("ip", "link", "set", "lan0", "alias", "the lab's own", "mtu", "1400", "up")
	b.run("ip", "addr", "add", "10.55.0.5/24", "dev", "lan0")
	b.run("ip", "link", "add", "plain0", "type", "veth", "peer", "name", "plain1")
	before, err := b.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	create := append([]string{"--ipv6", "--subnet", "10.55.0.0/24", "--gateway", "10.55.0.1", "--subnet", "fd55::/64"}, bridgeOpt("name", "lan0")...)
	b.network("lan", append(create, "-o", noICC)...)
	web := b.serveOn("lan", "-p", "8080:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	lab.Dropped(t, b.client, "tcp", at(b.addr(web, "lan"), 81))
	during := b.run("ip", "-d", "addr", "show", "dev", "lan0")
	for _, want := range []string{"10.55.0.5/24", "10.55.0.1/24", "fd55::1/64", "mtu 1400", "the lab's own"} {
		if !strings.Contains(during, want) {
			t.Errorf("the bridge lacks %s: %s", want, during)
		}
	}
	if out, err := web.Run(t.Context(), "/bin/busybox", "ip", "link", "show", "eth0"); err != nil || !strings.Contains(out, "mtu 1400") {
		t.Errorf("the container's link is not as the bridge: %s %v", out, err)
	}
	b.fails("is taken by network", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "-o", "com.docker.network.bridge.name=lan0", "again")
	b.fails("is no bridge", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "-o", "com.docker.network.bridge.name=plain0", "x")
	b.fails("Docker's own", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "-o", "com.docker.network.bridge.name=docker0", "x")

	b.do("rm", "-f", web.Name)
	b.do("network", "rm", "lan")
	b.asBefore(before, "lan0")
	t.Run("purge gives it back", func(t *testing.T) {
		b.network("lan", create...)
		b.plugin.Stop()
		b.run(binary(t), "purge")
		b.asBefore(before, "lan0")
	})
}

// asBefore checks that a link is what it was.
func (b *bed) asBefore(before map[string]string, name string) {
	b.t.Helper()
	after, err := b.Links(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	if before[name] != after[name] {
		b.t.Errorf("%s was %q and is %q", name, before[name], after[name])
	}
}

// TestLinkPrefix names links in containers.
func TestLinkPrefix(t *testing.T) {
	b := up(t, options{})
	b.network("net", "-o", "com.docker.network.container_iface_prefix=web")
	c := b.serveOn("net")
	if out, err := c.Run(t.Context(), "/bin/busybox", "ip", "link", "show", "web0"); err != nil {
		t.Errorf("%s %v", out, err)
	}
	named := b.serveOn("name=net,driver-opt=com.docker.network.endpoint.ifname=lan0")
	if out, err := named.Run(t.Context(), "/bin/busybox", "ip", "link", "show", "lan0"); err != nil {
		t.Errorf("%s %v", out, err)
	}
}

// TestDaemonDefaults: flags of the daemon are the defaults of networks.
func TestDaemonDefaults(t *testing.T) {
	b := up(t, options{serve: []string{"--icc=false", "--ip-masq=false", "--mtu", "1300"}})
	b.network("net")
	b.network("says", "-o", "com.docker.network.bridge.enable_icc=true", "-o", "com.docker.network.bridge.enable_ip_masquerade=true", "-o", "com.docker.network.driver.mtu=1350")
	outside, err := b.client.Serve(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	one, two := b.serveOn("net"), b.serveOn("net")
	lab.Blocked(t, one, "tcp", at(b.addr(two, "net"), 80))
	same(t, lab.Reaches(t, one, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), b.addr(one, "net"))
	three, four := b.serveOn("says"), b.serveOn("says")
	lab.Reaches(t, three, "tcp", at(b.addr(four, "says"), 80))
	same(t, lab.Reaches(t, three, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(), b.client.Host.Addr4())
	for c, mtu := range map[*lab.Container]string{one: "mtu 1300", three: "mtu 1350"} {
		if out, err := c.Run(t.Context(), "/bin/busybox", "ip", "link", "show", "eth0"); err != nil || !strings.Contains(out, mtu) {
			t.Errorf("not %s: %s %v", mtu, out, err)
		}
	}
}
