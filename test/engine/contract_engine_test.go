//go:build engine

package engine

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// engine28 speaks to the plugin as Docker 28 and later do, which Debian does not have: the sandbox exists when
// Join names it, the ports come when the link is up, and each family may have a gateway of its own.
type engine28 struct{ *bed }

func (e engine28) call(method, body string) string {
	e.t.Helper()
	out := e.run("curl", "-s", "-X", "POST", "--unix-socket", "/run/docker/plugins/drawbridge.sock", "-d", body, "http://plugin/NetworkDriver."+method)
	if strings.Contains(out, `"Err":"`) && !strings.Contains(out, `"Err":""`) {
		e.t.Fatalf("%s %s: %s", method, body, out)
	}
	return out
}

// longID makes an id of Docker's length.
func longID(short string) string { return short + strings.Repeat("0", 64-len(short)) }

// create makes a network of one family.
func (e engine28) create(id, pool, gateway string) {
	e.t.Helper()
	v6 := strings.Contains(pool, ":")
	data := fmt.Sprintf(`[{"AddressSpace":"l","Pool":"%s","Gateway":"%s"}]`, pool, gateway)
	body := `{"NetworkID":"%s","Options":{"com.docker.network.enable_ipv4":%t,"com.docker.network.enable_ipv6":%t,"com.docker.network.generic":{}},"IPv4Data":%s,"IPv6Data":%s}`
	if v6 {
		e.call("CreateNetwork", fmt.Sprintf(body, longID(id), false, true, "null", data))
	} else {
		e.call("CreateNetwork", fmt.Sprintf(body, longID(id), true, false, data, "null"))
	}
}

// attach joins a network namespace to a network and does the engine's part with the link.
func (e engine28) attach(netns, network, endpoint, addr, gateway, name string) {
	e.t.Helper()
	field := "Address"
	if strings.Contains(addr, ":") {
		field = "AddressIPv6"
	}
	e.call("CreateEndpoint", fmt.Sprintf(`{"NetworkID":"%s","EndpointID":"%s","Interface":{"%s":"%s"},"Options":{}}`, longID(network), longID(endpoint), field, addr))
	reply := e.call("Join", fmt.Sprintf(`{"NetworkID":"%s","EndpointID":"%s","SandboxKey":"/var/run/docker/netns/%s","Options":{"com.docker.network.endpoint.exposedports":[],"com.docker.network.portmap":[]}}`, longID(network), longID(endpoint), netns))
	if !strings.Contains(reply, gateway) {
		e.t.Errorf("Join names no gateway %s: %s", gateway, reply)
	}
	link := "dbr" + longID(endpoint)[:12]
	e.run("ip", "link", "set", link, "netns", netns, "name", name)
	in := func(args ...string) { e.run("ip", append([]string{"-n", netns}, args...)...) }
	in("link", "set", name, "up")
	if field == "Address" {
		in("addr", "add", addr, "dev", name)
	} else {
		in("addr", "add", addr, "dev", name, "nodad")
	}
	in("route", "add", "default", "via", gateway)
}

func (e engine28) program(network, endpoint, options string) {
	e.t.Helper()
	e.call("ProgramExternalConnectivity", fmt.Sprintf(`{"NetworkID":"%s","EndpointID":"%s","Options":{%s}}`, longID(network), longID(endpoint), options))
}

// sandbox is a container that this engine made.
type sandbox struct {
	*lab.Host
	netns string
}

func (s sandbox) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return s.Host.Command(ctx, "ip", append([]string{"netns", "exec", s.netns, name}, args...)...)
}

// TestSplitGateways: a container with an IPv4-only and an IPv6-only network publishes each family by its own.
func TestSplitGateways(t *testing.T) {
	b := up(t, options{})
	e := engine28{b}
	if reply := e.call("GwAllocCheck", `{"Options":{"com.docker.network.internal":true,"com.docker.network.generic":{"com.docker.network.bridge.gateway_mode_ipv6":"isolated"}}}`); !strings.Contains(reply, `"SkipIPv6":true`) || strings.Contains(reply, `"SkipIPv4":true`) {
		t.Errorf("GwAllocCheck: %s", reply)
	}
	b.run("ip", "netns", "add", "box")
	b.run("ip", "-n", "box", "link", "set", "lo", "up")
	e.create("4444aaaa4444", "10.44.0.0/24", "10.44.0.1/24")
	e.create("6666aaaa6666", "fd66::/64", "fd66::1/64")
	four, six := []string{"4444aaaa4444", "4e4e4e4e4e4e"}, []string{"6666aaaa6666", "6e6e6e6e6e6e"}
	e.attach("box", four[0], four[1], "10.44.0.2/24", "10.44.0.1", "eth0")
	e.attach("box", six[0], six[1], "fd66::2/64", "fd66::1", "eth1")
	box := sandbox{b.Host, "box"}
	if _, err := b.Start("box", []string{"ip", "netns", "exec", "box", b.Probe(), "serve", "-name", "box", "tcp", ":80", ":81"}, nil); err != nil {
		t.Fatal(err)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	// Docker 29 sends the list in any order; one port comes twice.
	ports := `"com.docker.network.portmap":[{"Proto":6,"Port":81,"HostPort":0},{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080},{"Proto":6,"Port":80,"HostPort":8080,"HostPortEnd":8080}]`
	e.program(four[0], four[1], ports)
	lab.Eventually(t, b.client, "tcp", at(host4, 8080))
	lab.Refused(t, b.client, "tcp", at(host6, 8080))

	e.program(four[0], four[1], ports+`,"com.docker.network.driver.private.no_proxy_6to4":true`) // again, with no Revoke between
	e.program(six[0], six[1], ports)
	same(t, lab.Reaches(t, b.client, "tcp", at(host4, 8080)).Peer.Addr(), b.client.Addr4())
	same(t, lab.Reaches(t, b.client, "tcp", at(host6, 8080)).Peer.Addr(), b.client.Addr6())
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	lab.Reaches(t, b.Host, "tcp", "[::1]:8080")
	outside, err := b.client.Serve(t.Context(), "tcp", ":90")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Stop()
	same(t, lab.Reaches(t, box, "tcp", at(b.client.Addr4(), 90)).Peer.Addr(), host4)
	same(t, lab.Reaches(t, box, "tcp", at(b.client.Addr6(), 90)).Peer.Addr(), host6)
	rows := map[string]int{}
	for _, p := range b.ports() {
		rows[fmt.Sprintf("%s %d", p.HostAddress, p.ContainerPort)]++
	}
	for _, want := range []string{"0.0.0.0 80", "0.0.0.0 81", ":: 80", ":: 81"} {
		if rows[want] != 1 {
			t.Errorf("%s is published %d times: %v", want, rows[want], rows)
		}
	}

	t.Run("the IPv6 gateway leaves", func(t *testing.T) {
		ids := fmt.Sprintf(`{"NetworkID":"%s","EndpointID":"%s"}`, longID(six[0]), longID(six[1]))
		e.call("RevokeExternalConnectivity", ids)
		e.call("Leave", ids)
		e.call("Leave", ids) // Docker 29 may repeat it
		e.call("DeleteEndpoint", ids)
		e.program(four[0], four[1], ports)
		lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		lab.Refused(t, b.client, "tcp", at(host6, 8080))
		lab.Reaches(t, b.Host, "tcp", "[::1]:8080")
	})
}
