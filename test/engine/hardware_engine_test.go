//go:build engine

package engine

import (
	"net"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestHardwareAddresses: neighbours, DHCP servers and licences know a container by its MAC. It stays the same as long as the
// network and the address do, is nobody's own product's, and is not shared.
func TestHardwareAddresses(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6", "--subnet", "10.49.0.0/24", "--subnet", "fd49::/64")
	b.network("other")
	mac := func(c *lab.Container, link string) string {
		t.Helper()
		text, err := c.Run(t.Context(), "/bin/busybox", "cat", "/sys/class/net/"+link+"/address")
		if err != nil {
			t.Fatal(err)
		}
		hw, err := net.ParseMAC(strings.TrimSpace(text))
		if err != nil || hw[0]&3 != 2 {
			t.Errorf("MAC %q is not a locally administered unicast address (%v)", text, err)
		}
		return hw.String()
	}
	c, neighbour := b.serveOn("web", "--ip", "10.49.0.49"), b.serveOn("web")
	first := mac(c, "eth0")
	if mac(neighbour, "eth0") == first {
		t.Error("two containers share a MAC")
	}
	for _, how := range [][]string{{"restart", "-t", "0", c.Name}, {"stop", "-t", "0", c.Name}} {
		b.do(how...)
		b.do("start", c.Name)
		if again := mac(c, "eth0"); again != first {
			t.Errorf("after docker %s the MAC is %s, not %s", how[0], again, first)
		}
	}
	lab.Eventually(t, neighbour, "tcp", "10.49.0.49:80")
	b.do("network", "connect", "other", c.Name)
	if mac(c, "eth1") == first {
		t.Error("the same MAC on both networks")
	}
	b.do("rm", "-f", c.Name)
	c = b.serveOn("web", "--ip", "10.49.0.49", "--ip6", "fd49::9999")
	if again := mac(c, "eth0"); again != first {
		t.Errorf("another container with the address has %s, not %s", again, first)
	}
	lab.Reaches(t, neighbour, "tcp", "10.49.0.49:80") // at once

	t.Run("the host's ends say whose they are", func(t *testing.T) {
		endpoint := b.do("inspect", "-f", "{{(index .NetworkSettings.Networks \"web\").EndpointID}}", c.Name)
		network := b.do("network", "inspect", "-f", "{{.Id}}", "web")
		links, err := b.Links(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if bridge := links[b.bridge("web")]; !strings.Contains(bridge, network[:12]) {
			t.Errorf("the bridge is %s, without network %s", bridge, network[:12])
		}
		found := false
		for name, link := range links {
			if strings.HasPrefix(name, "veth") && strings.Contains(link, endpoint[:12]) {
				found = strings.Contains(link, network[:12]) && strings.Contains(link, "master "+b.bridge("web"))
			}
		}
		if !found {
			t.Errorf("no link names endpoint %s and network %s: %v", endpoint[:12], network[:12], links)
		}
	})
}
