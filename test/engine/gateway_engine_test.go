//go:build engine

package engine

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// publishedOn checks that the container's port 80 is published at 8080 once in each family that the
// network has, on this network and by nothing else of ours, and that everybody reaches it. An empty name stands
// for a network of Docker's own: then it publishes, and we nothing.
func (b *bed) publishedOn(t *testing.T, c *lab.Container, network string) {
	t.Helper()
	var want, got []string
	if network != "" {
		addrs, err := c.Addrs(t.Context(), network)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			want = append(want, at(a, 80))
		}
		b.defaultRoute(t, c, network)
	}
	for _, p := range b.ports() {
		if p.HostPort != 8080 || p.ContainerPort != 80 {
			t.Errorf("published besides: %+v", p)
		}
		got = append(got, at(mustAddr(t, p.ContainerAddress), p.ContainerPort))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published on %q (-want +got):\n%s", network, diff)
	}
	lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080)) // after a restart the server is not there at once
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	if network == "" || len(want) == 2 {
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	}
}

// defaultRoute checks that the container's way out leads over the network.
func (b *bed) defaultRoute(t *testing.T, c *lab.Container, network string) {
	t.Helper()
	gateways := b.do("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Gateway}} {{end}}", network)
	routes, err := c.Run(t.Context(), "/bin/busybox", "ip", "route", "show", "default")
	if err != nil || !strings.Contains(routes, "via "+strings.Fields(gateways)[0]+" ") {
		t.Errorf("the default route is %q (%v), not by one of %s", routes, err, gateways)
	}
}

// TestGatewayMoves connects a container to networks that take its gateway over, which engines before 28 decide by
// the networks' names, and gives it back in every way.
func TestGatewayMoves(t *testing.T) {
	b := up(t, options{})
	for _, name := range []string{"aaa", "mmm", "zzz"} {
		b.network(name, "--ipv6")
	}
	c := b.serveOn("mmm", "-p", "8080:80", "--restart", "always")
	b.publishedOn(t, c, "mmm")
	for _, step := range []struct{ verb, network, gateway string }{
		{"connect", "zzz", "mmm"},
		{"connect", "aaa", "aaa"},
		{"disconnect", "zzz", "aaa"},
		{"disconnect", "aaa", "mmm"},
		{"connect", "aaa", "aaa"},
		{"connect", "zzz", "aaa"},
		{"disconnect", "mmm", "aaa"},
		{"disconnect", "aaa", "zzz"},
		{"connect", "mmm", "mmm"},
		{"connect", "aaa", "aaa"},
	} {
		if !t.Run(step.verb+" "+step.network, func(t *testing.T) {
			b.do("network", step.verb, step.network, c.Name)
			b.publishedOn(t, c, step.gateway)
		}) {
			return
		}
	}
	t.Run("container restarted", func(t *testing.T) {
		for range 3 { // the engine joins the networks in another order each time
			b.do("restart", "-t", "0", c.Name)
			b.publishedOn(t, c, "aaa")
		}
	})
	t.Run("our daemon killed and restarted", func(t *testing.T) {
		if err := b.plugin.Kill(); err != nil {
			t.Fatal(err)
		}
		b.startPlugin()
		b.publishedOn(t, c, "aaa")
	})
	t.Run("engine restarted", func(t *testing.T) {
		if err := b.docker.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.eventually("the container runs", func() bool { return b.do("inspect", "-f", "{{.State.Running}}", c.Name) == "true" })
		b.publishedOn(t, c, "aaa")
	})
	b.do("rm", "-f", c.Name)
	if ports := b.ports(); len(ports) > 0 {
		t.Errorf("ports are left: %+v", ports)
	}
	b.do("network", "rm", "aaa", "mmm", "zzz")
}

// TestGatewayBetweenDrivers: the gateway moves between a network of ours and one of Docker's own driver, and the host's port
// with it.
func TestGatewayBetweenDrivers(t *testing.T) {
	b := up(t, options{})
	b.do("network", "create", "mmm") // Docker's own
	b.network("aaa")
	b.network("zzz")
	b.network("dual", "--ipv6")
	for _, theirs := range []string{"mmm", "bridge"} {
		t.Run(theirs, func(t *testing.T) {
			c := b.serveOn(theirs, "-p", "8080:80")
			for _, step := range []struct{ verb, network, gateway string }{
				{"connect", "zzz", ""},
				{"disconnect", theirs, "zzz"},
				{"connect", theirs, ""},
				{"disconnect", "zzz", ""},
				{"connect", "aaa", "aaa"},
				{"disconnect", theirs, "aaa"},
				{"connect", theirs, "aaa"},
				{"restart", "", "aaa"},
				{"disconnect", "aaa", ""},
				{"connect", "dual", "dual"}, // two families come before one
				{"restart", "", "dual"},
				{"disconnect", "dual", ""},
				{"connect", "zzz", ""},
				{"restart", "", ""},
			} {
				if !t.Run(step.verb+" "+step.network, func(t *testing.T) {
					if step.verb == "restart" {
						b.do("restart", "-t", "0", c.Name)
					} else {
						b.do("network", step.verb, step.network, c.Name)
					}
					b.publishedOn(t, c, step.gateway)
				}) {
					return
				}
			}
			b.do("rm", "-f", c.Name)
			lab.Refused(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		})
	}
}

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
