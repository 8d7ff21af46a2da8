//go:build engine

package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// spray sends datagrams from one port of a place to another, hundred times a second, until the test ends.
func (b *bed) spray(from lab.Place, bind, to string) {
	b.t.Helper()
	cmd := from.Command(b.t.Context(), from.Probe(), "spray", "-bind", bind, "udp", to)
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Wait() }) // the end of the test kills it
}

// tracked returns the connections of the host that have the words.
func (b *bed) tracked(t *testing.T, words ...string) []string {
	t.Helper()
	var out []string
	for _, family := range []string{"ipv4", "ipv6"} {
		text, err := b.Run(t.Context(), "conntrack", "-L", "-f", family)
		if err != nil {
			t.Fatal(err)
		}
	lines:
		for line := range strings.Lines(text) {
			for _, w := range words {
				if !strings.Contains(line+" ", w+" ") {
					continue lines
				}
			}
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// TestSteadySenders: datagrams that never pause reach a port as soon as it is published, and never a container that only
// has an address of before.
func TestSteadySenders(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6", "--subnet", "10.45.0.0/24", "--subnet", "fd45::/64")
	const addr4, addr6 = "10.45.0.44", "fd45::44"
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	mine4, mine6 := at(b.client.Addr4(), 40000), at(b.client.Addr6(), 40000)
	b.spray(b.client, mine4, at(host4, 5353))
	b.spray(b.client, mine6, at(host6, 5353))
	b.eventually("both senders are at work", func() bool {
		return len(b.tracked(t, "udp", "sport=40000", "dport=5353")) == 2
	})

	serve := func(args ...string) *lab.Container {
		args = append([]string{"--network", "web", "--ip", addr4, "--ip6", addr6}, args...)
		c, err := b.docker.Serve(t.Context(), args, "udp", ":53", ":77")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := serve("-p", "5353:53/udp")
	for family, from := range map[int]netip.Addr{4: b.client.Addr4(), 6: b.client.Addr6()} {
		b.count(c, family, "-p udp -s "+from.String()+" --dport 53").grows("the sender reaches the port published anew", 3)
	}

	// Somebody whom the container asked, and who does not stop to answer.
	for family, asked := range map[int]netip.Addr{4: b.client.Addr4(), 6: b.client.Addr6()} {
		server, err := b.client.Serve(t.Context(), "udp", at(asked, 9999))
		if err != nil {
			t.Fatal(err)
		}
		from := map[int]string{4: addr4 + ":7777", 6: "[" + addr6 + "]:7777"}[family]
		r, err := lab.Get(t.Context(), c, lab.Request{Network: "udp", Addr: at(asked, 9999), Bind: from})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Stop(); err != nil {
			t.Fatal(err)
		}
		b.spray(b.client, at(asked, 9999), r.Peer.String())
		b.count(c, family, "-p udp --sport 9999 --dport 7777").grows("answers without end arrive", 3)
	}

	b.do("rm", "-f", c.Name)
	again := serve()
	var here, there []counter
	for family, from := range map[int]netip.Addr{4: b.client.Addr4(), 6: b.client.Addr6()} {
		there = append(there, b.count(b.Host, family, "-p udp -s "+from.String()))
		here = append(here, b.count(again, family, "-p udp -s "+from.String()))
	}
	for i := range there {
		there[i].grows("the senders go on", 50)
		here[i].none(t, "flows of the container of before")
	}
	for _, a := range []string{addr4, addr6} {
		if flows := b.tracked(t, "="+a); len(flows) > 0 {
			t.Errorf("still tracked:\n%s", strings.Join(flows, "\n"))
		}
	}
	t.Run("and the next one that publishes gets them", func(t *testing.T) {
		b.do("rm", "-f", again.Name)
		c := serve("-p", "5353:53/udp")
		for family, from := range map[int]netip.Addr{4: b.client.Addr4(), 6: b.client.Addr6()} {
			b.count(c, family, "-p udp -s "+from.String()+" --dport 53").grows("the sender reaches the next container", 3)
		}
	})
}

// TestRevokedPorts: who is connected by a port is cut when it is revoked, though the container and its address stay; the connections
// of all others go on.
func TestRevokedPorts(t *testing.T) {
	b := up(t, options{})
	b.outside()
	b.network("mmm", "--ipv6")
	b.network("routed", "--ipv6", "--subnet", "10.46.0.0/24", "--subnet", "fd46::/64",
		"-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "-o", "com.docker.network.bridge.gateway_mode_ipv6=routed")
	b.network("aaa", "--ipv6") // takes gateways over, by its name
	host4, host6 := at(b.client.Host.Addr4(), 8080), at(b.client.Host.Addr6(), 8080)

	for _, network := range []string{"mmm", "routed"} {
		t.Run(network, func(t *testing.T) {
			c, neighbour := b.serveOn(network, "-p", "8080:80"), b.serveOn(network, "-p", "8081:80")
			to4, to6, other := host4, host6, at(b.client.Host.Addr4(), 8081)
			if network == "routed" {
				to4, to6, other = at(b.addr(c, network), 80), at(b.addr6(c, network), 80), at(b.addr(neighbour, network), 80)
			}
			cut := []*flow{
				b.hold("by the port", b.client, to4, "-timeout", "3s"),
				b.hold("by the port in IPv6", b.client, to6, "-timeout", "3s"),
			}
			if network == "mmm" {
				cut = append(cut, b.hold("by the proxy", b.Host, "127.0.0.1:8080", "-timeout", "3s"))
			}
			stay := []*flow{
				b.hold("to a neighbour's port", b.client, other),
				b.hold("from a neighbour by its address", neighbour, at(b.addr(c, network), 80)),
				b.hold("from the host to its address", b.Host, at(b.addr(c, network), 80)),
				b.hold("from a neighbour in IPv6", neighbour, at(b.addr6(c, network), 81)),
			}
			if network == "mmm" {
				stay = append(stay, b.hold("outwards", neighbour, at(b.client.Addr4(), 80)))
			}
			b.do("network", "connect", "aaa", c.Name)
			for _, f := range cut {
				f.ends(t)
			}
			for _, f := range stay {
				f.goesOn(t)
			}
			if network == "routed" {
				lab.Dropped(t, b.client, "tcp", to4)
				lab.Dropped(t, b.client, "tcp", to6)
			}
			again := b.hold("by the port of the other network", b.client, host4, "-timeout", "3s")
			b.do("network", "disconnect", "aaa", c.Name)
			again.ends(t)
			lab.Reaches(t, b.client, "tcp", to4)
			last := b.hold("until the container loses its last network", b.client, to6, "-timeout", "3s")
			b.do("network", "disconnect", network, c.Name)
			last.ends(t)
			stay[0].goesOn(t)
			b.do("rm", "-f", c.Name, neighbour.Name)
		})
	}
}

// TestInvalid: what conntrack can assign to no connection comes in nowhere, and leaves nowhere untranslated.
func TestInvalid(t *testing.T) {
	b := up(t, options{})
	b.outside()
	b.network("web", "--ipv6", "--subnet", "10.47.0.0/24", "--subnet", "fd47::/64")
	b.network("routed", "--ipv6", "--subnet", "10.48.0.0/24", "--subnet", "fd48::/64",
		"-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "-o", "com.docker.network.bridge.gateway_mode_ipv6=routed")
	c, open := b.serveOn("web", "-p", "8080:80"), b.serveOn("routed", "-p", "80")
	for _, f := range []struct {
		family                      int
		subnet                      string
		client, host, inner, routed netip.Addr
	}{
		{4, "10.47.0.0/24", b.client.Addr4(), b.client.Host.Addr4(), b.addr(c, "web"), b.addr(open, "routed")},
		{6, "fd47::/64", b.client.Addr6(), b.client.Host.Addr6(), b.addr6(c, "web"), b.addr6(open, "routed")},
	} {
		t.Run(fmt.Sprint("IPv", f.family), func(t *testing.T) {
			segment := func(from lab.Place, flags, bind, to string) {
				t.Helper()
				if out, err := from.Command(t.Context(), from.Probe(), "segment", flags, bind, to).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			held := b.hold("from outside", b.client, at(f.host, 8080), "-bind", at(f.client, 41000))
			const nonsense = "-p tcp --tcp-flags ALL SYN,FIN"
			in := b.count(c, f.family, nonsense)
			inSYN := b.count(c, f.family, "-p tcp --tcp-flags ALL SYN --sport 41003")
			segment(b.client, "SYN,FIN", at(f.client, 41000), at(f.host, 8080)) // into the connection
			segment(b.client, "SYN,FIN", at(f.client, 41001), at(f.host, 8080))
			segment(b.client, "SYN,FIN", at(f.client, 41002), at(f.inner, 80))
			segment(b.client, "SYN", at(f.client, 41003), at(f.host, 8080))
			b.eventually("a proper segment arrives", func() bool { return inSYN.packets() > 0 }) // and it was the last
			in.none(t, "invalid segments, inwards")
			held.goesOn(t)

			in = b.count(open, f.family, nonsense)
			inSYN = b.count(open, f.family, "-p tcp --tcp-flags ALL SYN --sport 41003")
			segment(b.client, "SYN,FIN", at(f.client, 41001), at(f.routed, 80)) // the address and port are open
			segment(b.client, "SYN", at(f.client, 41003), at(f.routed, 80))
			b.eventually("a proper segment arrives at the routed network", func() bool { return inSYN.packets() > 0 })
			in.none(t, "invalid segments to a routed network")

			out := b.count(b.client, f.family, "-s "+f.subnet)
			translated := b.count(b.client, f.family, "-p tcp --tcp-flags ALL SYN -s "+f.host.String()+" --dport 80")
			segment(c, "ACK,URG", at(f.inner, 80), at(f.client, 41000)) // an answer out of the window, on most kernels
			segment(c, "SYN,FIN", at(f.inner, 5000), at(f.client, 80))
			segment(c, "RST", at(f.inner, 80), at(f.client, 41009))
			segment(c, "SYN", at(f.inner, 5001), at(f.client, 80))
			b.eventually("a proper segment leaves", func() bool { return translated.packets() > 0 })
			out.none(t, "the container's own address")
			held.goesOn(t)
		})
	}
}
