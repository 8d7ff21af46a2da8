//go:build engine

package engine

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestNoUserlandProxy: no proxy serves 127.0.0.1, the kernel does, and what listens there stays the host's.
func TestNoUserlandProxy(t *testing.T) {
	b := up(t, options{serve: []string{"--userland-proxy=false"}})
	b.network("web", "--ipv6")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:81", "--cap-add", "NET_ADMIN")
	neighbour := b.serveOn("web")
	if _, err := b.Serve(t.Context(), "tcp", "127.0.0.1:9000"); err != nil {
		t.Fatal(err)
	}
	udp, err := b.docker.Serve(t.Context(), []string{"--network", "web", "-p", "5353:53/udp"}, "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()

	for _, a := range []string{"127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.1:8081"} {
		b.byGateway(t, "tcp", a, b.bridge("web"))
	}
	lab.Reaches(t, b.Host, "udp", "127.0.0.1:5353")
	lab.Reaches(t, b.client, "tcp", at(host4, 8080))
	lab.Reaches(t, b.client, "tcp", at(host6, 8080))
	lab.Reaches(t, b.client, "udp", at(host4, 5353))
	lab.Reaches(t, neighbour, "tcp", at(host4, 8080))
	lab.Reaches(t, web, "tcp", at(host4, 8080))
	lab.Refused(t, b.Host, "tcp", "[::1]:8080")
	lab.Blocked(t, b.client, "tcp", at(host4, 8081))
	b.fails("already published", "run", "--rm", "--network", "web", "-p", "8080:80", "lab", "true")
	if _, err := b.Serve(t.Context(), "tcp", ":8080"); err == nil {
		t.Error("another program takes a published port")
	}
	t.Run("loopback of the host is closed to containers", func(t *testing.T) {
		lab.Dropped(t, b.rogueOn("web"), "tcp", "127.0.0.1:9000")
		b.guarded(t, b.bridge("web"), 4)
	})
	t.Run("restarted right after a client of the socket", func(t *testing.T) {
		b.network("asks", "-o", "drawbridge.publish=host")
		b.do("run", "-d", "--name", "asked", "--network", "asks", "-p", "8090:80", "lab", "httpd", "-f", "-p", "80", "-h", "/etc")
		page := func() {
			t.Helper()
			// A container that does not listen yet refuses the relay, which then resets the client.
			got, err := b.client.Run(t.Context(), "curl", "-sS", "--retry", "10", "--retry-all-errors", "http://"+at(host4, 8090)+"/passwd")
			if err != nil || !strings.Contains(got, "root") {
				t.Errorf("the client gets %q: %v", got, err)
			}
		}
		// The server is the one that closes, and the kernel remembers that port for a minute.
		page()
		b.do("restart", "-t", "0", "asked")
		page()
	})
	t.Run("gone with the containers", func(t *testing.T) {
		b.do("rm", "-f", web.Name, udp.Name)
		lab.Refused(t, b.Host, "tcp", "127.0.0.1:8080")
	})
}

// TestNoIP6Tables: no rule of IPv6 is made, and published ports are served by the proxy there.
func TestNoIP6Tables(t *testing.T) {
	b := up(t, options{serve: []string{"--ip6tables=false"}})
	before := b.run("ip6tables-save")
	b.network("web", "--ipv6")
	web := b.serveOn("web", "-p", "8080:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	lab.Dropped(t, b.client, "tcp", at(b.addr(web, "web"), 80))

	// Limits that no rule of IPv6 keeps: nobody from outside comes that way.
	b.network("near", "-o", "drawbridge.publish.from=0.0.0.0/0,::/0")
	b.serveOn("near", "-p", "8081:80", "-p", "[::]:8082:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081))
	lab.Dropped(t, b.client, "tcp", at(b.client.Host.Addr6(), 8082))
	lab.Reaches(t, b.Host, "tcp", "[::1]:8082")
	if after := b.run("ip6tables-save"); rulesOf(before) != rulesOf(after) {
		t.Errorf("IPv6 rules before:\n%s\nafter:\n%s", before, after)
	}
}

// rulesOf leaves out counters and comments of iptables-save.
func rulesOf(text string) string {
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "-A") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// TestBadFlags: each mistake is one sentence, and exit code 2.
func TestBadFlags(t *testing.T) {
	b := up(t, options{})
	for _, c := range []struct{ args, want string }{
		{"--iptables=false --userland-proxy=false", "leave --userland-proxy on"},
		{"--firewall-backend=x", "is not auto, iptables or nftables"},
		{"--default-address-pool base=fd00::/48,size=40", "does not fit into base"},
		{"--default-address-pool base=10.0.0.0/8", "has no size"},
		{"--ip x", `--ip "x" is not an address of a host`},
		{"--icc=maybe", "is neither true nor false"},
	} {
		_, err := b.Run(t.Context(), binary(t), append([]string{"serve"}, strings.Fields(c.args)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "exit status 2") {
			t.Errorf("serve %s: %v, want %q", c.args, err, c.want)
		}
	}
}
