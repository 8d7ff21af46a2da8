//go:build engine

package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// ip runs ip(8) commands, one a line.
func (b *bed) ip(script string) {
	b.t.Helper()
	for line := range strings.Lines(script) {
		if words := strings.Fields(line); len(words) > 0 {
			b.run("ip", words...)
		}
	}
}

// The far server's addresses.
var (
	far4 = netip.MustParseAddr("192.0.2.9")
	far6 = netip.MustParseAddr("2001:db8:9::9")
)

// narrow puts a server behind two routers, the first of which is the client, with a link of MTU 1280 between
// them. The server's own link is wide, so that what it announces does not spare anybody the discovery.
func (b *bed) narrow() {
	b.t.Helper()
	b.ip(`
		netns add router
		netns add far
		-n client link add narrow0 mtu 1280 type veth peer name narrow0 mtu 1280 netns router
		-n router link add wide0 type veth peer name eth0 netns far
		-n client addr add 192.0.2.129/30 dev narrow0
		-n client addr add 2001:db8:8::1/64 dev narrow0 nodad
		-n router addr add 192.0.2.130/30 dev narrow0
		-n router addr add 2001:db8:8::2/64 dev narrow0 nodad
		-n router addr add 192.0.2.1/25 dev wide0
		-n router addr add 2001:db8:9::1/64 dev wide0 nodad
		-n far addr add 192.0.2.9/25 dev eth0
		-n far addr add 2001:db8:9::9/64 dev eth0 nodad
		-n client link set narrow0 up
		-n router link set narrow0 up
		-n router link set wide0 up
		-n far link set eth0 up
		-n far link set lo up
		-n far route add default via 192.0.2.1
		-n far route add default via 2001:db8:9::1
		-n router route add default via 192.0.2.129
		-n router route add default via 2001:db8:8::1
		-n client route add 192.0.2.0/25 via 192.0.2.130
		-n client route add 2001:db8:9::/64 via 2001:db8:8::2`)
	b.ip(fmt.Sprintf("route add 192.0.2.0/24 via %s\n route add 2001:db8:9::/64 via %s", b.client.Addr4(), b.client.Addr6()))
	for _, router := range []string{"client", "router"} {
		b.run("ip", "netns", "exec", router, "sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	}
}

// pour has a place send lines, all at once, to a server that answers each of them with a short one.
func (b *bed) pour(argv []string, lines, length int, to string, within time.Duration) (string, error) {
	b.t.Helper()
	argv = append(argv, b.Probe(), "get", "-timeout", within.String(), "-lines", strconv.Itoa(lines), "-length", strconv.Itoa(length), "tcp", to)
	return b.Run(b.t.Context(), argv[0], argv[1:]...)
}

// talkative starts a container whose answers fill packets: its name is part of them.
func (b *bed) talkative(network string, args ...string) *lab.Container {
	b.t.Helper()
	image, err := b.docker.Image(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	argv := append([]string{"run", "-d", "--network", network}, args...)
	c := b.docker.Container(b.do(append(argv, image, "/probe", "serve", "-name", strings.Repeat("n", 3000), "tcp", ":80")...))
	lab.Eventually(b.t, b.Host, "tcp", at(b.addr(c, network), 80))
	return c
}

// TestPathMTU: what does not fit through a narrow link on the way is told to the container, in either direction of
// the connection and both families; everything but ICMP would hang.
func TestPathMTU(t *testing.T) {
	b := up(t, options{})
	b.narrow()
	far := []string{"ip", "netns", "exec", "far"}
	if _, err := b.Start("far", append(far, b.Probe(), "serve", "-name", "far", "tcp", ":80"), nil); err != nil {
		t.Fatal(err)
	}
	b.network("web", "--ipv6", "-o", "com.docker.network.driver.mtu=1500")
	hosts := map[int]netip.Addr{4: b.client.Host.Addr4(), 6: b.client.Host.Addr6()}
	b.eventually("the far server answers", func() bool {
		_, err := b.pour(b.within(b.client), 1, 5, at(far6, 80), time.Second)
		return err == nil
	})
	// learned is what the container knows of the way to the far server.
	learned := func(c *lab.Container, to netip.Addr) bool {
		enter := b.within(c)
		return contains(b.run(enter[0], append(enter[1:], "ip", "route", "get", to.String())...), "mtu 1280")
	}
	for family, server := range map[int]netip.Addr{4: far4, 6: far6} {
		// Were the server to know of the narrow link, it would say so in what it announces, and the container had nothing
		// to discover.
		forget := func() { b.ip("-4 -n far route flush cache\n -6 -n far route flush cache") }
		t.Run(fmt.Sprint("IPv", family), func(t *testing.T) {
			t.Run("upload", func(t *testing.T) {
				forget()
				c := b.serveOn("web")
				if learned(c, server) {
					t.Error("the container knows the way before")
				}
				if _, err := b.pour(b.within(c), 100, 3000, at(server, 80), patience); err != nil {
					t.Errorf("300 KB do not get out: %v", err)
				}
				if !learned(c, server) {
					t.Error("the container was not told")
				}
			})
			c := b.talkative("web", "-p", "8080:80")
			t.Run("download by a published port", func(t *testing.T) {
				forget()
				if _, err := b.pour(far, 100, 5, at(hosts[family], 8080), patience); err != nil {
					t.Errorf("300 KB do not get out: %v", err)
				}
				if !learned(c, server) {
					t.Error("the container was not told")
				}
			})
			b.do("rm", "-f", c.Name)
			t.Run("without ICMP it does not", func(t *testing.T) {
				drop := map[int][]string{
					4: {"iptables", "-t", "mangle", "-I", "FORWARD", "-p", "icmp", "--icmp-type", "fragmentation-needed", "-j", "DROP"},
					6: {"ip6tables", "-t", "mangle", "-I", "FORWARD", "-p", "ipv6-icmp", "--icmpv6-type", "packet-too-big", "-j", "DROP"},
				}[family]
				b.run(drop[0], drop[1:]...)
				forget()
				c := b.serveOn("web")
				if _, err := b.pour(b.within(c), 100, 3000, at(server, 80), 1500*time.Millisecond); err == nil {
					t.Error("the narrow link is none")
				}
			})
		})
	}
}

// TestSegmentSize: behind an uplink with a smaller MTU than the network's, both sides are told a segment size that fits,
// and what is sent arrives.
func TestSegmentSize(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) {
		for _, argv := range [][]string{{"link", "set", "ext0", "mtu", "1300"}, {"-n", "outside", "link", "set", "ext0", "mtu", "1300"}} {
			if _, err := h.Run(t.Context(), "ip", argv...); err != nil {
				t.Fatal(err)
			}
		}
	}})
	b.outside()
	b.network("web", "--ipv6", "-o", "com.docker.network.driver.mtu=1500")
	c := b.serveOn("web", "-p", "8080:80")
	for _, f := range []struct {
		family, size int
		client, host netip.Addr
	}{{4, 1260, b.client.Addr4(), b.client.Host.Addr4()}, {6, 1240, b.client.Addr6(), b.client.Host.Addr6()}} {
		t.Run(fmt.Sprint("IPv", f.family), func(t *testing.T) {
			for name, way := range map[string]struct {
				from, to lab.Place
				addr     string
			}{
				"outwards":            {c, b.client, at(f.client, 80)},
				"by a published port": {b.client, c, at(f.host, 8080)},
			} {
				t.Run(name, func(t *testing.T) {
					fits := fmt.Sprintf("-m tcpmss --mss %d", f.size)
					syn := b.count(way.to, f.family, "-p tcp --tcp-flags SYN,ACK SYN "+fits)
					any1 := b.count(way.to, f.family, "-p tcp --tcp-flags SYN,ACK SYN")
					answer := b.count(way.from, f.family, "-p tcp --tcp-flags SYN,ACK SYN,ACK "+fits)
					any2 := b.count(way.from, f.family, "-p tcp --tcp-flags SYN,ACK SYN,ACK")
					enter := b.within(way.from)
					if _, err := b.pour(enter, 100, 3000, way.addr, patience); err != nil {
						t.Errorf("300 KB there: %v", err)
					}
					if _, err := b.pour(enter, 12000, 5, way.addr, patience); err != nil {
						t.Errorf("300 KB back: %v", err)
					}
					if n := syn.packets(); n == 0 || n != any1.packets() {
						t.Errorf("%d of %d SYNs have a segment size of %d", n, any1.packets(), f.size)
					}
					if n := answer.packets(); n == 0 || n != any2.packets() {
						t.Errorf("%d of %d answers have a segment size of %d", n, any2.packets(), f.size)
					}
				})
			}
		})
	}
}
