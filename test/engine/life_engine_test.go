//go:build engine

package engine

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestPersistence: killed and started again, with traffic meanwhile.
func TestPersistence(t *testing.T) {
	b := up(t, options{})
	b.outside()
	b.network("web", "--ipv6", "--subnet", "10.77.0.0/24")
	b.network("other")
	server := b.serveOn("web", "-p", "8080:80", "-p", "81", "--ip", "10.77.0.77")
	stranger := b.serveOn("other")
	ports, rules := b.ports(), b.run(binary(t), "rules")
	held := []*flow{
		b.hold("to a published port", b.client, at(b.client.Host.Addr4(), 8080)),
		b.hold("to a published port in IPv6", b.client, at(b.client.Host.Addr6(), 8080)),
		b.hold("outwards through masquerade", server, at(b.client.Addr4(), 80)),
		b.hold("outwards through masquerade in IPv6", server, at(b.client.Addr6(), 80)),
		b.hold("between networks by a published port", stranger, at(b.client.Host.Addr4(), 8080)),
	}
	goOn := func(t *testing.T) {
		t.Helper()
		for _, f := range held {
			f.goesOn(t)
		}
	}

	if err := b.plugin.Kill(); err != nil {
		t.Fatal(err)
	}
	t.Run("while it is down", func(t *testing.T) {
		goOn(t)
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
		lab.Reaches(t, server, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, stranger, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Dropped(t, b.client, "tcp", at(b.addr(server, "web"), 81))
		lab.Dropped(t, stranger, "tcp", at(b.addr(server, "web"), 80))
	})
	b.startPlugin()
	t.Run("connections are held", goOn)
	t.Run("connections are held over an end in good order", func(t *testing.T) {
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		goOn(t)
		b.startPlugin()
		goOn(t)
	})
	t.Run("after", func(t *testing.T) {
		if diff := cmp.Diff(ports, b.ports()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(rules, b.run(binary(t), "rules")); diff != "" {
			t.Error(diff)
		}
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
		b.fails("in use", "run", "--rm", "--network", "web", "--ip", "10.77.0.77", "lab", "true")
		lab.Reaches(t, b.serveOn("web"), "tcp", "10.77.0.77:80")
		b.do("rm", "-f", server.Name)
		lab.Refused(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	})
	t.Run("the host was rebooted", func(t *testing.T) {
		// All that the kernel had is gone; the state file is left.
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		b.run(binary(t), "purge", "--keep-state", "--force")
		b.startPlugin()
		if _, err := b.Run(t.Context(), "ip", "link", "show", b.bridge("web")); err != nil {
			t.Error("the bridge is not back")
		}
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), b.publishedBy(b.serveOn("web", "-p", "80"))))
	})
}

// publishedBy returns the only IPv4 host port of a container.
func (b *bed) publishedBy(c *lab.Container) uint16 {
	b.t.Helper()
	for _, p := range b.ports() {
		if p.ContainerAddress == b.addr(c, "web").String() {
			return p.HostPort
		}
	}
	b.t.Fatalf("no port of %s in %+v", c.Name, b.ports())
	return 0
}

// TestEngineKilled: dockerd dies and comes back; what it had started is cleaned up.
func TestEngineKilled(t *testing.T) {
	b := up(t, options{before: preset(t)})
	b.network("web", "--ipv6")
	b.serveOn("web", "--name", "server", "-p", "8080:80", "--restart", "always")
	if err := b.docker.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.docker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.eventually("the container serves again", func() bool {
		_, err := lab.Get(t.Context(), b.client, lab.Request{Network: "tcp", Addr: at(b.client.Host.Addr4(), 8080)})
		return err == nil
	})
	if n := len(b.ports()); n != 2 {
		t.Errorf("ports: %+v", b.ports())
	}
	b.do("rm", "-f", "server")
	b.do("network", "rm", "web")
	b.nothingLeft()
}

// reaped returns when the links that were removed are deleted, a moment after the answer.
func (b *bed) reaped() {
	b.t.Helper()
	b.eventually("removed links are deleted", func() bool {
		links, err := b.Links(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		for _, link := range links {
			if strings.Contains(link, fmt.Sprint("group ", state.GroupDoomed)) || strings.Contains(link, fmt.Sprint("group ", state.GroupDoomedBridge)) {
				return false
			}
		}
		return true
	})
}

// nothingLeft checks that no link, rule or set of ours is on the host.
func (b *bed) nothingLeft() {
	b.t.Helper()
	b.reaped()
	rules, err := b.Rules(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(rules) {
		if strings.Contains(strings.ToLower(line), "drawbridge") {
			b.t.Errorf("left: %s", line)
		}
	}
	if sets := b.run("ipset", "list", "-n"); strings.Contains(sets, "DRAWBRIDGE") {
		b.t.Errorf("sets are left: %s", sets)
	}
	if table := b.table(); table != "" {
		b.t.Errorf("a table of nftables is left: %s", table)
	}
	links, err := b.Links(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for name, link := range links {
		if strings.Contains(fmt.Sprint(link), "drawbridge") {
			b.t.Errorf("left: link %s %s", name, link)
		}
	}
}

// TestNothingForeignChanges compares rules, sysctls and links before and after, and
// while networks are there what is not ours.
func TestNothingForeignChanges(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := up(t, options{lab: lab.Options{IPTables: variant}, before: func(h *lab.Host) {
				preset(t)(h)
				for _, rule := range []string{
					"iptables -A INPUT -p tcp --dport 22 -m comment --comment theirs -j ACCEPT",
					"iptables -A FORWARD -i ext7 -j ACCEPT",
					"iptables -P FORWARD DROP",
					"iptables -t nat -A PREROUTING -p tcp --dport 7 -j REDIRECT --to-ports 8",
					"iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
					"ip6tables -A INPUT -p tcp --dport 22 -j ACCEPT",
					"ip6tables -P FORWARD DROP",
				} {
					words := strings.Fields(rule)
					if _, err := h.Run(t.Context(), words[0], words[1:]...); err != nil {
						t.Fatal(err)
					}
				}
			}})
			b.outside()
			b.do("network", "create", "builtin")
			theirs := b.serveOn("builtin", "-p", "7001:80")
			rules, sysctls, links := b.observe()

			b.network("web", "--ipv6")
			b.network("inner", "--internal")
			c := b.serveOn("web", "-p", "8080:80")
			t.Run("while networks are there", func(t *testing.T) {
				if diff := cmp.Diff(foreign(rules), foreign(first(b.Rules(t.Context())))); diff != "" {
					t.Errorf("foreign rules (-before +now):\n%s", diff)
				}
				lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080)) // for all that FORWARD drops
				lab.Reaches(t, c, "tcp", at(b.client.Addr4(), 80))
				lab.Reaches(t, c, "tcp", at(b.client.Addr6(), 80))
				lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 7001)) // Docker's own work as before
				lab.Reaches(t, theirs, "tcp", at(b.client.Addr4(), 80))
			})
			b.do("rm", "-f", c.Name)
			b.do("network", "rm", "web", "inner")
			rules2, sysctls2, links2 := b.observe()
			for what, diff := range map[string]string{
				"rules": cmp.Diff(foreign(rules), foreign(rules2)), "links": cmp.Diff(links, links2),
				"sysctls": cmp.Diff(withoutForwarding(sysctls), withoutForwarding(sysctls2)),
			} {
				if diff != "" {
					t.Errorf("%s (-before +after):\n%s", what, diff)
				}
			}
			b.nothingLeft()
		})
	}
}

func (b *bed) observe() (rules string, sysctls, links map[string]string) {
	b.t.Helper()
	b.reaped()
	rules, err1 := b.Rules(b.t.Context())
	sysctls, err2 := b.Sysctls(b.t.Context())
	links, err3 := b.Links(b.t.Context())
	if err1 != nil || err2 != nil || err3 != nil {
		b.t.Fatal(err1, err2, err3)
	}
	return rules, sysctls, links
}

func first[T any](v T, _ error) T { return v }

// foreign is what a rule set says without us: without our lines, without DOCKER-USER in the family where dockerd
// has none, and without tables that do nothing, which come to be when somebody looks at them.
func foreign(rules string) string {
	var tables []string
	v6 := false
	for text := range strings.SplitSeq(rules, "*") {
		var kept []string
		idle := true
		for line := range strings.Lines(text) {
			if strings.Contains(strings.ToLower(line), "drawbridge") || v6 && strings.Contains(line, "DOCKER-USER") {
				continue
			}
			idle = idle && !strings.HasPrefix(line, "-A") && !strings.Contains(line, " DROP")
			kept = append(kept, line)
		}
		if !idle {
			tables = append(tables, fmt.Sprintf("v6=%t *%s", v6, strings.Join(kept, "")))
		}
		v6 = v6 || strings.Contains(text, "ip6tables-save")
	}
	slices.Sort(tables)
	return strings.Join(tables, "")
}

// preset turns IPv6 forwarding on as dockerd does with IPv4's, so that it is not ours.
func preset(t *testing.T) func(*lab.Host) {
	return func(h *lab.Host) {
		if _, err := h.Run(t.Context(), "sysctl", "-w", "net.ipv6.conf.all.forwarding=1"); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutForwarding drops the switches that docs/host.md lists.
func withoutForwarding(sysctls map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range sysctls {
		if !strings.Contains(key, "forward") {
			out[key] = value
		}
	}
	return out
}

// TestPurge takes everything away, without a state file too, on both variants of iptables.
func TestPurge(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := up(t, options{serve: translated, lab: lab.Options{IPTables: variant}, before: func(h *lab.Host) { startFirewalld(t, h) }})
			b.network("web", "--ipv6")
			b.serveOn("web", "-p", "8080:80")
			link := b.bridge("web")
			if _, err := b.Run(t.Context(), binary(t), "purge"); err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("purge beside the daemon: %v", err)
			}
			if err := b.plugin.Stop(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // with and without a state file
				if _, err := b.Run(t.Context(), binary(t), "purge"); err == nil || !strings.Contains(err.Error(), "--force") {
					t.Errorf("purge with containers: %v", err)
				}
				b.run("rm", "-f", "/var/lib/drawbridge/state.db")
			}
			b.run(binary(t), "purge", "--force")
			b.nothingLeft()
			if z := b.zone(link); z != "" {
				t.Errorf("the bridge is still in zone %s", z)
			}
			b.run(binary(t), "purge") // once more
		})
	}
}

// TestPurgeOfForgotten: a container that the state still has, and that is gone, keeps no purge from its work.
func TestPurgeOfForgotten(t *testing.T) {
	b := up(t, options{})
	b.network("web")
	link := b.hostEnd(b.serveOn("web", "-p", "8080:80"), "web")
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.run("ip", "link", "delete", link) // as it goes with the container's namespace
	b.run(binary(t), "purge")
	b.nothingLeft()
}

// TestServe: readiness, signals, sockets, a second daemon.
func TestServe(t *testing.T) {
	b := up(t, options{})
	for _, path := range []string{"/run/docker/plugins/drawbridge.sock", "/run/drawbridge/control.sock"} {
		info, err := os.Stat(b.Path(path))
		if err != nil || info.Mode().Perm() != 0o600 || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	if _, err := b.Run(t.Context(), binary(t), "serve"); err == nil || !strings.Contains(err.Error(), "another drawbridge daemon serves this host: stop it first") {
		t.Errorf("a second daemon: %v", err)
	}
	b.network("web")
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/docker/plugins/drawbridge.sock", "/run/drawbridge/control.sock"} {
		if _, err := os.Stat(b.Path(path)); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	_, err := b.Run(t.Context(), binary(t), "status")
	if code := exitCode(err); code != 3 {
		t.Errorf("status without a daemon exits %d: %v", code, err)
	}

	t.Run("systemd is told", func(t *testing.T) {
		notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b.Path("/run/notify.sock"), Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer notify.Close()
		p, err := b.Start("notified", []string{binary(t), "serve"}, []string{"NOTIFY_SOCKET=/run/notify.sock"})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, notify, "READY=1")
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		expect(t, notify, "STOPPING=1")
	})
	t.Run("bad flags", func(t *testing.T) {
		for _, args := range [][]string{
			{"serve", "--ip", "nonsense"},
			{"serve", "--mtu", "-5"},
			{"serve", "--default-address-pool", "base=10.0.0.0/8"},
			{"serve", "--firewall-backend", "ebtables"},
			{"serve", "--log-level", "loud"},
			{"serve", "extra"},
			{"frobnicate"},
			{"ports", "--nonsense"},
		} {
			_, err := b.Run(t.Context(), binary(t), args...)
			if code := exitCode(err); code != 2 {
				t.Errorf("%v exits %d: %v", args, code, err)
			}
		}
	})
}

func expect(t *testing.T, c *net.UnixConn, want string) {
	t.Helper()
	buffer := make([]byte, 256)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buffer)
	if err != nil || !strings.Contains(string(buffer[:n]), want) {
		t.Errorf("systemd is told %q (%v), not %s", buffer[:n], err, want)
	}
}
