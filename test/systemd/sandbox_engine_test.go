//go:build engine

package systemd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestSandbox has the daemon and the relay do all that they ever do, with each way to write rules. A system call that the units' filters
// forbid kills here, where it fails on a host.
func TestSandbox(t *testing.T) {
	for _, c := range []struct {
		name, root, variant, backend string
		firewalld                    bool
	}{
		{"nftables and firewalld", lab.Trixie, "nft", "nftables", true},
		{"iptables", lab.Own, "nft", "iptables", false},
		{"legacy iptables", lab.Trixie, "legacy", "iptables", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := up(t, lab.Options{Root: c.root, IPTables: c.variant})
			b.install()
			for _, unit := range []string{daemon, relay} {
				b.setting(unit, "sharp", "SystemCallErrorNumber=\nEnvironment=DRAWBRIDGE_FIREWALL_BACKEND="+c.backend)
			}
			if c.firewalld {
				b.run("systemctl", "start", "firewalld")
			}
			b.run("systemctl", "start", "drawbridge", "docker")
			if c.firewalld { // which the daemon has reloaded at its first start
				b.run("firewall-cmd", "--add-port=8000-8999/tcp", "--add-port=8000-8999/udp", "--add-port=80/tcp", "--add-port=9868/sctp")
			}
			b.eventually("the relay runs, which the daemon has systemd start", func() bool { return b.property(relay, "MainPID") != "0" })
			pids := b.property(daemon, "MainPID") + " " + b.property(relay, "MainPID")
			b.works(c.firewalld)
			b.names()
			b.repairs()
			b.files()
			for _, args := range [][]string{{"verify"}, {"status"}, {"ports"}, {"gc", "--dry-run"}, {"rules"}} {
				b.run(program, args...)
			}
			if now := b.property(daemon, "MainPID") + " " + b.property(relay, "MainPID"); now != pids {
				t.Errorf("daemon and relay were the processes %s, and are %s", pids, now)
			}
			b.do("rm", "-f", "web", "low", "learned", "server")
			b.do("network", "rm", "web", "behind", "apart", "inside", "quick")
			b.run(program, "verify")
		})
	}
}

// works makes networks and containers with all that Docker asks of a driver.
func (b *bed) works(firewalld bool) {
	t := b.t
	b.network("web", "--ipv6", "-o", "drawbridge.publish=dnat")
	b.network("behind", "--ipv6", "-o", "drawbridge.publish=host")
	b.network("quick", "-o", "drawbridge.publish=learned")
	b.network("apart", "-o", "com.docker.network.bridge.enable_icc=false")
	b.network("inside", "--internal")
	web := b.serve("web", "--name", "web", "-p", "8080:80", "-p", "8080:80/udp")
	b.do("network", "connect", "inside", "web")
	b.do("network", "connect", "apart", "web")
	b.serve("behind", "--name", "low", "-p", "80:80")
	b.serve("quick", "--name", "learned", "-p", "8082:80")
	if _, err := b.docker.Serve(t.Context(), []string{"--network", "web", "--name", "server", "-p", "9868:3868/sctp"}, "sctp", ":3868"); err != nil {
		t.Fatal(err)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	for _, addr := range []string{at(host4, 8080), at(host6, 8080), at(host4, 80), at(host6, 80), at(host4, 8082)} {
		if r := lab.Reaches(t, b.client, "tcp", addr); r.Peer.Addr() != b.client.Addr4() && r.Peer.Addr() != b.client.Addr6() {
			t.Errorf("%s: the container sees %v", addr, r.Peer)
		}
	}
	b.asks(at(host4, 80), at(host6, 80))
	lab.Reaches(t, b.client, "sctp", at(host4, 9868))
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		lab.Reaches(t, b.Host, "tcp", addr)
	}
	outside, err := b.client.Serve(t.Context(), "tcp", at(b.client.Addr4(), 5000))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Stop() }()
	lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 5000))
	addrs, err := web.Addrs(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	lab.Dropped(t, b.client, "tcp", at(addrs[0], 80))
	if firewalld {
		b.eventually("all bridges are in zone docker", func() bool {
			return strings.Count(b.run("firewall-cmd", "--zone=docker", "--list-interfaces"), "br-") == 5
		})
	}
}

// asks: rules in DOCKER-USER are asked about clients of a socket, which takes the relay's right to run a program of BPF.
func (b *bed) asks(addrs ...string) {
	for _, tables := range []string{"iptables", "ip6tables"} {
		b.run(tables, "-I", "DOCKER-USER", "-i", "ext0", "-p", "tcp", "--dport", "80", "-j", "DROP")
	}
	for _, addr := range addrs {
		b.eventually("DOCKER-USER refuses "+addr, func() bool {
			_, err := lab.Get(b.t.Context(), b.client, lab.Request{Network: "tcp", Addr: addr, Timeout: time.Second})
			return err != nil
		})
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		b.run(tables, "-I", "DOCKER-USER", "-i", "ext0", "-p", "tcp", "-j", "ACCEPT")
	}
	for _, addr := range addrs {
		lab.Eventually(b.t, b.client, "tcp", addr)
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		b.run(tables, "-F", "DOCKER-USER")
	}
}

// names: of a port that is taken the error names who has it, whoever that is.
func (b *bed) names() {
	b.run("systemd-run", "--quiet", "--unit=squatter", "--property=User=nobody", b.Probe(), "serve", "tcp", ":7777")
	b.eventually("somebody has the port", func() bool {
		out, _ := b.Run(b.t.Context(), "ss", "-ltnH", "sport = :7777")
		return out != ""
	})
	pid := b.property("squatter.service", "MainPID")
	image, err := b.docker.Image(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	said := b.fails("docker", "run", "--rm", "--network", "web", "-p", "7777:80", image, "true")
	if !strings.Contains(said, pid) {
		b.t.Errorf("docker does not name process %s: %s", pid, said)
	}
	b.run("systemctl", "stop", "squatter")
}

// repairs: what somebody takes away comes back, a container's link too, which takes entering its namespace.
func (b *bed) repairs() {
	end := "veth" + b.do("inspect", "-f", `{{(index .NetworkSettings.Networks "web").EndpointID}}`, "web")[:11]
	pid := b.do("inspect", "-f", "{{.State.Pid}}", "web")
	before := b.run("nsenter", "-t", pid, "-n", "ip", "-br", "addr")
	b.run("ip", "link", "del", end)
	b.eventually("the container's link is back", func() bool {
		_, err := lab.Get(b.t.Context(), b.client, lab.Request{Network: "tcp", Addr: at(b.client.Host.Addr4(), 8080), Timeout: 300 * time.Millisecond})
		return err == nil
	})
	if after := b.run("nsenter", "-t", pid, "-n", "ip", "-br", "addr"); len(strings.Fields(after)) != len(strings.Fields(before)) {
		b.t.Errorf("the container's links were\n%s\nand are\n%s", before, after)
	}
	b.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
	b.eventually("forwarding is on again", func() bool { return b.run("sysctl", "-n", "net.ipv4.ip_forward") == "1" })
	b.run("sh", "-c", "nft delete table inet drawbridge 2>/dev/null || iptables -t mangle -F DRAWBRIDGE-FORWARD")
	b.eventually("the rules are back", func() bool {
		_, err := b.Run(b.t.Context(), program, "verify")
		return err == nil
	})
}

// files checks what the daemon may write, from its place.
func (b *bed) files() {
	writes := func(unit, path string) bool {
		out, err := b.Command(b.t.Context(), "nsenter", "-t", b.property(unit, "MainPID"), "-m", "sh", "-c", fmt.Sprintf("exec 9>>%s", path)).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "Read-only") && !strings.Contains(string(out), "nonexistent") && !strings.Contains(string(out), "Permission denied") {
			b.t.Errorf("%s: %v %s", path, err, out)
		}
		return err == nil
	}
	for path, want := range map[string]bool{
		"/var/lib/drawbridge/x": true, "/run/drawbridge/x": true, "/run/xtables.lock": true, "/proc/sys/net/ipv4/ip_forward": true, "/tmp/x": true,
		"/etc/x": false, "/usr/x": false, "/var/lib/x": false, "/run/x": false, "/run/docker/x": false, "/root/x": false, "/sys/fs/cgroup/cgroup.procs": false,
		"/proc/sys/kernel/core_pattern": false, "/lib/modules/x": false,
	} {
		if got := writes(daemon, path); got != want {
			b.t.Errorf("the daemon may write %s: %v", path, got)
		}
		if got := writes(relay, path); got && path != "/tmp/x" {
			b.t.Errorf("the relay may write %s", path)
		}
	}
	b.run("rm", "-f", "/var/lib/drawbridge/x", "/run/drawbridge/x")
}
