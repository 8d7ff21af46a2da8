//go:build engine

package engine

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestLook: what scripts read. The keys are part of the interface.
func TestLook(t *testing.T) {
	b := up(t, options{})
	if got := strings.TrimSpace(b.run(binary(t), "ports", "--json")); got != "[]" {
		t.Errorf("no ports are %s, not an empty list", got)
	}
	b.network("web", "--ipv6")
	b.serveOn("web", "-p", "8080:80")

	status := object(t, b.run(binary(t), "status", "--json"))
	keys(t, status, "applied", "backend", "endpoints", "errors", "networks", "notes", "pools", "ports", "relay", "revision", "since", "version")
	want := map[string]any{"networks": 1.0, "endpoints": 1.0, "ports": 2.0, "pools": 2.0, "errors": []any{}, "notes": []any{}}
	for key, value := range want {
		if diff := cmp.Diff(value, status[key]); diff != "" {
			t.Errorf("status %s: %s", key, diff)
		}
	}
	var ports []map[string]any
	if err := json.Unmarshal([]byte(b.run(binary(t), "ports", "--json")), &ports); err != nil || len(ports) != 2 {
		t.Fatalf("%v in %v", err, ports)
	}
	for _, p := range ports {
		keys(t, p, "bridge", "containerAddress", "containerPort", "endpoint", "hostAddress", "hostPort", "mode", "network", "protocol", "why")
		if p["bridge"] != b.bridge("web") || p["hostPort"] != 8080.0 || p["containerPort"] != 80.0 || p["protocol"] != "tcp" {
			t.Errorf("port %v", p)
		}
	}
	rules := object(t, b.run(binary(t), "rules", "--json"))
	keys(t, rules, "rules")
	if text := b.run(binary(t), "rules"); rules["rules"] != text || !strings.Contains(text, b.bridge("web")) {
		t.Errorf("rules are\n%s\nand in JSON\n%v", text, rules["rules"])
	}
	version := object(t, b.run(binary(t), "version", "--json"))
	keys(t, version, "version")
	if text := b.run(binary(t), "version"); text != "drawbridge "+version["version"].(string)+"\n" || version["version"] != status["version"] {
		t.Errorf("versions: %q, %v, %v", text, version, status["version"])
	}
	if text := b.run(binary(t), "ports"); !strings.Contains(text, "8080") {
		t.Errorf("ports prints\n%s", text)
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

func keys(t *testing.T, got map[string]any, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// TestStatusIsHealthy asks right after each change. One that the kernel has nothing to do with is no fault.
func TestStatusIsHealthy(t *testing.T) {
	b := up(t, options{})
	healthy := func(after string) {
		t.Helper()
		if out, err := b.Run(t.Context(), binary(t), "status"); err != nil {
			t.Errorf("after %s: %v\n%s", after, err, out)
		}
	}
	healthy("the start")
	b.network("web", "--ipv6")
	healthy("network create")
	c := b.serveOn("web", "-p", "8080:80")
	healthy("run")
	b.do("stop", "-t", "0", c.Name)
	healthy("stop")
	b.do("start", c.Name)
	healthy("start")
	b.do("rm", "-f", c.Name)
	healthy("rm")
	b.network("inner", "--internal")
	healthy("network create --internal")
	c = b.serveOn("inner")
	healthy("run on an internal network")
	b.do("network", "connect", "web", c.Name)
	healthy("network connect")
	b.do("network", "disconnect", "web", c.Name)
	healthy("network disconnect")
	b.do("rm", "-f", c.Name)
	healthy("rm on an internal network")
	b.do("network", "rm", "inner")
	healthy("network rm of the internal one")
	b.do("network", "rm", "web")
	healthy("network rm of the last one")
	b.fails("overlaps", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--subnet", "172.17.0.0/24", "bad")
	healthy("a refused network")
}

// TestEnvironment: a variable stands for every flag, and the flag wins.
func TestEnvironment(t *testing.T) {
	b := up(t, options{})
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	const socket = "DRAWBRIDGE_CONTROL_SOCKET=/run/elsewhere.sock"
	with := func(env string, args ...string) error {
		cmd := b.Command(t.Context(), binary(t), args...)
		cmd.Env = append(cmd.Env, env)
		return cmd.Run()
	}
	p, err := b.Start("environment", []string{binary(t), "serve", "--mtu", "1400"}, []string{
		socket, "DRAWBRIDGE_LOG_LEVEL=error", "DRAWBRIDGE_MTU=1300",
		"DRAWBRIDGE_DEFAULT_ADDRESS_POOL=base=10.91.0.0/16,size=24 base=fd91::/48,size=64",
	})
	if err != nil {
		t.Fatal(err)
	}
	b.plugin = p
	b.eventually("the plugin answers at the socket of the variable", func() bool { return with(socket, "status") == nil })
	b.network("web", "--ipv6")
	if got := b.do("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "web"); got != "10.91.0.0/24 fd91::/64 " {
		t.Errorf("subnets %s", got)
	}
	if mtu := b.run("cat", "/sys/class/net/"+b.bridge("web")+"/mtu"); mtu != "1400\n" {
		t.Errorf("the flag does not win: MTU %s", mtu)
	}
	if log := p.Log(); strings.Contains(log, "level=INFO") || strings.Contains(log, "level=DEBUG") {
		t.Errorf("with level error is logged\n%s", log)
	}
	if code := exitCode(with("DRAWBRIDGE_CONTROL_SOCKET=/run/nobody.sock", "status")); code != 3 {
		t.Errorf("status at a socket of nobody's exits %d", code)
	}
	if err := with("DRAWBRIDGE_CONTROL_SOCKET=/run/nobody.sock", "status", "--control-socket", "/run/elsewhere.sock"); err != nil {
		t.Errorf("the flag does not win: %v", err)
	}
	for _, bad := range []string{"DRAWBRIDGE_LOG_LEVEL=loud", "DRAWBRIDGE_MTU=large", "DRAWBRIDGE_IPTABLES=perhaps", "DRAWBRIDGE_DEFAULT_ADDRESS_POOL=10.0.0.0/8"} {
		if code := exitCode(with(bad, "serve")); code != 2 {
			t.Errorf("%s: serve exits %d", bad, code)
		}
	}
}

// TestMTU is --mtu, which a network's own option overrides.
func TestMTU(t *testing.T) {
	b := up(t, options{serve: []string{"--mtu", "1380"}})
	b.network("web", "--ipv6")
	b.network("own", "-o", "com.docker.network.driver.mtu=1300")
	for network, want := range map[string]string{"web": "1380\n", "own": "1300\n"} {
		c := b.serveOn(network)
		mtu, err := c.Run(t.Context(), "/bin/busybox", "cat", "/sys/class/net/eth0/mtu")
		if bridge := b.run("cat", "/sys/class/net/"+b.bridge(network)+"/mtu"); err != nil || mtu != want || bridge != want {
			t.Errorf("%s: MTU %q in the container (%v), %q of the bridge, want %q", network, mtu, err, bridge, want)
		}
		lab.Reaches(t, b.Host, "tcp", at(b.addr(c, network), 80))
	}
}
