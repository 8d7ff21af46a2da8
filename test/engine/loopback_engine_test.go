//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// gatewayOf returns a bridge's IPv4 address.
func (b *bed) gatewayOf(bridge string) string {
	b.t.Helper()
	address, _, _ := strings.Cut(strings.Fields(b.run("ip", "-4", "-o", "addr", "show", "dev", bridge))[3], "/")
	return address
}

// byGateway checks that a server answers the host at its loopback address, and sees the gateway.
func (b *bed) byGateway(t *testing.T, protocol, addr, bridge string) {
	t.Helper()
	if r := lab.Reaches(t, b.Host, protocol, addr); r.Peer.Addr().String() != b.gatewayOf(bridge) {
		t.Errorf("by %s the container sees %s, not the gateway", addr, r.Peer)
	}
}

// rogueOn returns a container that takes 127.0.0.1 for an address beyond the bridge.
func (b *bed) rogueOn(network string) *lab.Container {
	b.t.Helper()
	rogue := b.serveOn(network, "--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.all.route_localnet=1")
	script := "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1/32 via " + b.gatewayOf(b.bridge(network))
	if out, err := rogue.Run(b.t.Context(), "/bin/busybox", "sh", "-c", script); err != nil {
		b.t.Fatalf("%s %v", out, err)
	}
	return rogue
}

// portsOf returns the names of a bridge's ports.
func (b *bed) portsOf(bridge string) []string {
	b.t.Helper()
	var out []string
	for line := range strings.Lines(b.run("ip", "-o", "link", "show", "master", bridge)) {
		port, _, _ := strings.Cut(strings.TrimSuffix(strings.Fields(line)[1], ":"), "@")
		out = append(out, port)
	}
	return out
}

// guards counts the guards at the ports of a bridge.
func (b *bed) guards(bridge string) int {
	b.t.Helper()
	n := 0
	for _, port := range b.portsOf(bridge) {
		n += strings.Count(b.run("tc", "filter", "show", "dev", port, "ingress"), "handle 0xd0c")
	}
	return n
}

func (b *bed) guarded(t *testing.T, bridge string, want int) {
	t.Helper()
	if got := b.guards(bridge); got != want {
		t.Errorf("%d ports of %s are guarded, not %d", got, bridge, want)
	}
}

func (b *bed) localnet(bridge string) string {
	b.t.Helper()
	return strings.TrimSpace(b.run("cat", "/proc/sys/net/ipv4/conf/"+bridge+"/route_localnet"))
}

// flushRules does away with every rule of every program.
func (b *bed) flushRules() {
	b.t.Helper()
	b.run("nft", "flush", "ruleset")
	for _, tables := range []string{"iptables", "iptables-legacy"} {
		for _, table := range []string{"raw", "mangle", "nat", "filter"} {
			b.run(tables, "-t", table, "-F")
		}
	}
}

// translated reports whether the host's connection to a published port goes to the container at once, and not to the proxy.
func (b *bed) translated(port string) bool {
	b.t.Helper()
	b.run("conntrack", "-F")
	if _, err := lab.Get(b.t.Context(), b.Host, lab.Request{Network: "tcp", Addr: "127.0.0.1:" + port, Timeout: time.Second}); err != nil {
		return false
	}
	return !strings.Contains(b.run("conntrack", "-L", "-p", "tcp"), "src=127.0.0.1 dst=127.0.0.1 sport="+port)
}

// proxied is the same of the proxy.
func (b *bed) proxied(port string) bool {
	b.t.Helper()
	return !b.translated(port) && strings.Contains(b.run("conntrack", "-L", "-p", "tcp"), "src=127.0.0.1 dst=127.0.0.1 sport="+port)
}

// TestLoopback: the kernel leads the host's loopback connections to published ports, the proxy what is left, and the host's
// own services there stay its own: by rules, by guards, and by each of them alone.
func TestLoopback(t *testing.T) {
	b := up(t, options{})
	host4 := b.client.Host.Addr4()
	b.run("sysctl", "-w", "net.ipv4.conf.all.rp_filter=1") // a host that is strict about sources
	b.network("web", "--ipv6")
	onWeb := b.bridge("web")
	b.network("mute", "--internal")
	b.run("ip", "link", "add", "lan0", "type", "bridge")
	b.network("lan", "-o", "com.docker.network.bridge.name=lan0")
	web := b.serveOn("web", "-p", "8080:80", "-p", "127.0.0.1:8081:81", "-p", "127.0.0.9:8082:81", "-p", host4.String()+":8083:80", "-p", "9100-9120:9100-9120")
	adopting := b.serveOn("lan", "-p", "8090:80", "-p", "127.0.0.1:8091:81")
	udp, err := b.docker.Serve(t.Context(), []string{"--network", "web", "-p", "5353:53/udp"}, "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(t.Context(), "tcp", "127.0.0.1:9000"); err != nil {
		t.Fatal(err)
	}
	rogue := b.rogueOn("web")
	b.serveOn("mute")

	served := func(t *testing.T) {
		t.Helper()
		for _, a := range []string{"127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.1:8081", "127.0.0.9:8082"} {
			b.byGateway(t, "tcp", a, onWeb)
		}
		b.byGateway(t, "udp", "127.0.0.1:5353", onWeb)
		lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		lab.Reaches(t, b.client, "tcp", at(host4, 8083))
		for _, a := range []string{"127.0.0.1:8083", "127.0.0.2:8081"} {
			lab.Refused(t, b.Host, "tcp", a)
		}
		for _, port := range []uint16{8081, 8082} {
			lab.Blocked(t, b.client, "tcp", at(host4, port))
			lab.Blocked(t, b.Host, "tcp", at(host4, port))
		}
	}
	proxied := func(t *testing.T) {
		t.Helper()
		for _, a := range []string{"127.0.0.1:8090", "127.0.0.1:8091"} {
			b.byGateway(t, "tcp", a, "lan0")
		}
		lab.Reaches(t, b.Host, "tcp", "[::1]:8080")
		lab.Reaches(t, b.Host, "tcp", "[::1]:8090")
		lab.Reaches(t, b.Host, "udp", "[::1]:5353")
	}
	t.Run("translated", served)
	t.Run("proxied", proxied)
	t.Run("what is opened", func(t *testing.T) {
		for bridge, want := range map[string]string{onWeb: "1", b.bridge("mute"): "0", "lan0": "0"} {
			if got := b.localnet(bridge); got != want {
				t.Errorf("route_localnet of %s is %s, not %s", bridge, got, want)
			}
		}
		b.guarded(t, onWeb, 3)
		b.guarded(t, b.bridge("mute"), 0)
		b.guarded(t, "lan0", 0)
	})
	t.Run("refused on its way back", func(t *testing.T) {
		hardening := []string{"INPUT", "-d", "127.0.0.0/8", "!", "-i", "lo", "-j", "REJECT"}
		b.run("iptables", append([]string{"-I"}, hardening...)...)
		b.eventually("the proxy serves", func() bool { return b.proxied("8080") })
		served(t)
		proxied(t)
		b.run("iptables", append([]string{"-D"}, hardening...)...)
		b.eventually("the kernel serves", func() bool { return b.translated("8080") })
		served(t)
	})
	t.Run("a port taken by the container is not the host's", func(t *testing.T) {
		if _, err := b.Serve(t.Context(), "tcp", "127.0.0.1:8080"); err == nil {
			t.Error("another program takes a published port")
		}
		b.fails("in use", "run", "--rm", "--network", "web", "-p", "9000:80", first(b.docker.Image(t.Context())), "true")
	})

	// A neighbour that takes 127.0.0.1 for an address of the host's.
	for _, argv := range [][]string{
		{"sysctl", "-w", "net.ipv4.conf.all.route_localnet=1"},
		{"ip", "addr", "del", "127.0.0.1/8", "dev", "lo"},
		{"ip", "route", "add", "127.0.0.1/32", "via", host4.String()},
	} {
		if out, err := b.client.Run(t.Context(), argv[0], argv[1:]...); err != nil {
			t.Fatalf("%v: %s %v", argv, out, err)
		}
	}
	closed := func(t *testing.T) {
		t.Helper()
		lab.Dropped(t, rogue, "tcp", "127.0.0.1:9000")
		lab.Dropped(t, b.client, "tcp", "127.0.0.1:9000")
		lab.Dropped(t, b.client, "tcp", "127.0.0.1:8080")
	}
	t.Run("the host's own services are closed", closed)

	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("without the daemon", func(t *testing.T) {
		served(t)
		proxied(t)
	})
	t.Run("closed without the daemon", closed)
	unguard := func() {
		for _, port := range b.portsOf(onWeb) {
			b.run("tc", "qdisc", "del", "dev", port, "clsact")
		}
	}
	unguard()
	t.Run("closed without guards", closed)
	b.startPlugin()
	b.guarded(t, onWeb, 3)
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.flushRules()
	t.Run("closed without rules", closed)
	unguard()
	t.Run("open without both", func(t *testing.T) { lab.Reaches(t, rogue, "tcp", "127.0.0.1:9000") })

	b.startPlugin()
	t.Run("mended", func(t *testing.T) {
		served(t)
		proxied(t)
		closed(t)
		b.guarded(t, onWeb, 3)
		unguard()
		b.eventually("the guards are back", func() bool { return b.guards(onWeb) == 3 })
	})
	t.Run("gone with the containers", func(t *testing.T) {
		b.do("rm", "-f", web.Name, udp.Name, adopting.Name)
		for _, a := range []string{"127.0.0.1:8080", "127.0.0.1:8090", "[::1]:8080"} {
			lab.Refused(t, b.Host, "tcp", a)
		}
	})
}

// TestUnguardedBridge: with a port of somebody else on the bridge the proxy serves 127.0.0.1, and status says so.
func TestUnguardedBridge(t *testing.T) {
	b := up(t, options{})
	b.network("web")
	onWeb := b.bridge("web")
	b.serveOn("web", "-p", "8080:80")
	b.byGateway(t, "tcp", "127.0.0.1:8080", onWeb)
	b.run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "nic1")
	b.run("ip", "link", "set", "nic0", "master", onWeb)
	b.eventually("the bridge is closed", func() bool { return b.localnet(onWeb) == "0" })
	if status := b.run(binary(t), "status"); !strings.Contains(status, "by the proxy, which is slower: nic0") {
		t.Errorf("status: %s", status)
	}
	b.byGateway(t, "tcp", "127.0.0.1:8080", onWeb)
	b.run("ip", "link", "del", "nic0")
	b.eventually("the bridge is open again", func() bool { return b.localnet(onWeb) == "1" })
	b.byGateway(t, "tcp", "127.0.0.1:8080", onWeb)
}
