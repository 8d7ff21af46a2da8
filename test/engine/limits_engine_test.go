//go:build engine

package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// limited are the ports of containers that only the link ext1 leads to, by mode.
var limited = map[string]uint16{"dnat": 8080, "host": 8081, "learned": 8082}

// TestLimitedToALinkThatComesLater: a port to which one link alone leads is closed while that is not there. Once it is, who is behind it is served and
// nobody else; and so it is when the link went, and another one came under its name.
func TestLimitedToALinkThatComesLater(t *testing.T) {
	b := up(t, options{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for mode, port := range limited {
		b.network("by-"+mode, "--ipv6", "-o", "drawbridge.publish="+mode, "-o", "drawbridge.publish.iface=ext1")
		b.serveBoth("by-"+mode, port)
	}
	b.keepsOut(b.client.Host)

	ext1, err := b.AddUplink(t.Context(), "ext1")
	must(err)
	late, err := b.AddClient(t.Context(), "late", lab.ClientOptions{Uplink: ext1.Name})
	must(err)
	b.letsIn(late)
	b.keepsOut(b.client.Host, ext1)

	first := b.number(ext1)
	must(b.Unplug(t.Context(), ext1))
	b.keepsOut(b.client.Host)
	must(b.Plug(t.Context(), ext1))
	if again := b.number(ext1); again == first {
		t.Fatalf("%s is number %s as before", ext1.Name, again)
	}
	b.letsIn(late)
	b.keepsOut(b.client.Host, ext1)
}

// serveBoth starts a container that answers by TCP and UDP on one port of the host.
func (b *bed) serveBoth(network string, port uint16) {
	b.t.Helper()
	c := b.serveOn(network, "-p", fmt.Sprintf("%d:80/tcp", port), "-p", fmt.Sprintf("%d:80/udp", port))
	b.do("exec", "-d", c.Name, c.Probe(), "serve", "udp", ":80")
	lab.Eventually(b.t, c, "udp", "127.0.0.1:80")
}

// letsIn checks that a client is served, and that containers see who he is. He comes twice: who is learned comes by another way then.
func (b *bed) letsIn(c *lab.Client) {
	b.t.Helper()
	for range 2 {
		b.together(c.Host, func(proto string, to netip.AddrPort) {
			r, err := lab.Get(b.t.Context(), c, lab.Request{Network: proto, Addr: to.String(), Timeout: lab.PassTimeout})
			if want := clientAddr(c, to.Addr().Is6()); err != nil || r.Peer.Addr() != want {
				b.t.Errorf("%s %v is not reached by %v: %v, %v", proto, to, want, r, err)
			}
		})
	}
}

// keepsOut checks that the client by ext0 gets no answer, by whichever of the host's addresses.
func (b *bed) keepsOut(uplinks ...*lab.Uplink) {
	b.t.Helper()
	for _, u := range uplinks {
		b.together(u, func(proto string, to netip.AddrPort) { lab.Dropped(b.t, b.client, proto, to.String()) })
	}
}

// together checks the limited ports at the host's addresses on a link, and ends the test if one is not as it should be.
func (b *bed) together(u *lab.Uplink, check func(proto string, to netip.AddrPort)) {
	b.t.Helper()
	var checks []func()
	for _, port := range limited {
		for _, addr := range u.Addrs {
			for _, proto := range []string{"tcp", "udp"} {
				checks = append(checks, func() { check(proto, netip.AddrPortFrom(addr.Addr(), port)) })
			}
		}
	}
	lab.Together(checks...)
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// number is that by which the kernel knows a link.
func (b *bed) number(u *lab.Uplink) string {
	b.t.Helper()
	return strings.TrimSpace(b.run("cat", "/sys/class/net/"+u.Name+"/ifindex"))
}
