//go:build engine

package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// mtus starts a container on a network and returns the MTU of its link, of the link's end on the host and of the bridge; one
// number if they are equal.
func (b *bed) mtus(t *testing.T, network string) string {
	t.Helper()
	c := b.serveOn(network)
	defer b.do("rm", "-f", c.Name)
	bridge := b.bridge(network)
	seen := []string{b.run("cat", "/sys/class/net/"+bridge+"/mtu")}
	ports := strings.Fields(b.run("ls", "/sys/class/net/"+bridge+"/brif"))
	if len(ports) != 1 {
		t.Errorf("ports of %s: %v", bridge, ports)
	}
	for _, p := range ports {
		seen = append(seen, b.run("cat", "/sys/class/net/"+p+"/mtu"))
	}
	inside, err := c.Run(t.Context(), "/bin/busybox", "cat", "/sys/class/net/eth0/mtu")
	if err != nil {
		t.Fatal(err)
	}
	seen = append(seen, inside)
	if len(slices.Compact(slices.Clone(seen))) == 1 {
		return strings.TrimSpace(seen[0])
	}
	return fmt.Sprint(seen)
}

// TestDefaultMTU: where nobody gives an MTU, it is that of the link by which the host's packets leave when the network is made.
func TestDefaultMTU(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) {
		for _, argv := range []string{"link set ext0 mtu 1400", "route add default via 198.51.100.2 dev ext0 metric 100"} {
			if _, err := h.Run(t.Context(), "ip", strings.Fields(argv)...); err != nil {
				t.Fatal(err)
			}
		}
	}})
	b.network("first")
	first := b.do("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "first")
	beside := strings.Replace(first, ".0/24", ".77", 1)
	for _, step := range []struct{ name, script, args, want string }{
		{"the default route's", "", "", "1400"},
		{"the user's", "", "-o com.docker.network.driver.mtu=1200", "1200"},
		{"in both families", "", "--ipv6", "1400"},
		{"the loopback link leads nowhere", "route add default dev lo metric 1", "", "1400"},
		{"nor does a bridge of ours", "route add default via " + beside + " metric 2", "", "1400"},
		{"a better route to the outside", "link add up0 mtu 1450 type veth peer name up1\n link set up1 up\n link set up0 up\n route add default dev up0 metric 50", "", "1450"},
		{"a route's own", "route replace default dev up0 metric 50 mtu 1350", "", "1350"},
		{"too little for IPv6", "route replace default dev up0 metric 50 mtu 1000", "--ipv6", "1280"},
		{"not too little for IPv4", "", "", "1000"},
		{"the next one when that is gone", "link del up0", "", "1400"},
		{"IPv6's where IPv4 has none", "route del default metric 100\n -6 route add default via 2001:db8:1::2 metric 100", "", "1400"},
		{"the kernel's where there is none", "-6 route del default metric 100", "--ipv6", "1500"},
	} {
		t.Run(step.name, func(t *testing.T) {
			b.ip(step.script)
			b.network("net", strings.Fields(step.args)...)
			if got := b.mtus(t, "net"); got != step.want {
				t.Errorf("MTU %s, want %s", got, step.want)
			}
			b.do("network", "rm", "net")
		})
	}
	t.Run("a network keeps what it was made with", func(t *testing.T) {
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		b.serve = []string{"--mtu", "1300"}
		b.startPlugin()
		if got := b.mtus(t, "first"); got != "1400" {
			t.Errorf("MTU %s", got)
		}
	})
	t.Run("the daemon's", func(t *testing.T) {
		b.ip("route add default via 198.51.100.2 dev ext0 metric 100")
		b.network("second", "--ipv6")
		b.network("third", "-o", "com.docker.network.driver.mtu=1200")
		if got := b.mtus(t, "second") + " " + b.mtus(t, "third"); got != "1300 1200" {
			t.Errorf("MTUs %s", got)
		}
		b.fails("1280", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6", "-o", "com.docker.network.driver.mtu=1200", "fourth")
	})
}
