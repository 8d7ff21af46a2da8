//go:build engine

package managed

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/docs"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// startFirewalld starts the bus and firewalld.
func startFirewalld(t *testing.T, h *lab.Host) {
	t.Helper()
	if _, err := h.StartDBus(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartFirewalld(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// preset has the host forward both families before we come: what keeps one closed that forwards because of us would stay.
func preset(t *testing.T, h *lab.Host) {
	t.Helper()
	if _, err := h.Run(t.Context(), "sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"); err != nil {
		t.Fatal(err)
	}
}

// zone returns firewalld's zone of a link at runtime, "" for none.
func (b *bed) zone(link string) string {
	out, err := b.Run(b.t.Context(), "firewall-cmd", "--get-zone-of-interface="+link)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// mounts are the host's, without those that the engine makes by itself.
func (b *bed) mounts() []string {
	b.t.Helper()
	var out []string
	for line := range strings.Lines(b.run("findmnt", "-rno", "TARGET")) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, "/netns/") && !strings.HasSuffix(line, "/propagated-mount") && !strings.HasSuffix(line, "/merged") && !strings.HasSuffix(line, "/docker/netns") {
			out = append(out, line)
		}
	}
	return out
}

// pid is the process id of the daemon on the host.
func (b *bed) pid() string {
	b.t.Helper()
	var pid string
	b.eventually("the daemon has a process", func() bool {
		out, err := b.Run(b.t.Context(), "pgrep", "-f", "^/usr/sbin/drawbridge serve")
		pid = strings.TrimSpace(out)
		return err == nil && !strings.Contains(pid, "\n")
	})
	return pid
}

// TestLife: a plugin is made, set, turned on and off, and removed. What its networks are for works behind a firewall of the host.
func TestLife(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) { preset(t, h); startFirewalld(t, h) }})
	script := docs.Left(t, "test/managed.TestLife")
	mounts := b.mounts()
	b.create("DRAWBRIDGE_DEFAULT_ADDRESS_POOL=base=10.77.0.0/16,size=24 base=fd77::/48,size=64", "DRAWBRIDGE_MTU=1400", "DRAWBRIDGE_MTU=")
	b.healthy()
	if diff := cmp.Diff(mounts, b.mounts()); diff != "" {
		t.Errorf("the host has other mounts (-before +now):\n%s", diff)
	}
	b.fails("active", "plugin", "set", name, "DRAWBRIDGE_MTU=1300")
	b.fails("not found", "network", "create", "-d", name+":other", "--ipam-driver", driver, "nothing")
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80")
	host := b.serveOn("name=web,driver-opt=drawbridge.publish=host", "--name", "host", "-p", "8081:80")
	past := b.serveOn("name=web,driver-opt=drawbridge.publish=dnat", "--name", "past", "-p", "8082:80")
	other := b.serveOn("other", "--name", "other")
	web4, web6 := b.addrs(web, "web")
	if !strings.HasPrefix(web4.String(), "10.77.") || !strings.HasPrefix(web6.String(), "fd77:") {
		t.Errorf("addresses are %s and %s: the pools that were set do not count", web4, web6)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()

	t.Run("traffic", func(t *testing.T) {
		for _, a := range []string{at(b.client.Addr4(), 80), at(b.client.Addr6(), 80)} {
			for _, c := range []*lab.Container{web, host, past, other} {
				lab.Reaches(t, c, "tcp", a)
			}
		}
		if peer := lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80)).Peer.Addr(); peer != host4 {
			t.Errorf("outside sees %s, not the host's %s", peer, host4)
		}
		lab.Together(
			func() { lab.Blocked(t, b.client, "tcp", at(host4, 8080)) },
			func() { lab.Blocked(t, b.client, "tcp", at(host6, 8081)) },
			func() { lab.Dropped(t, b.client, "tcp", at(web4, 80)) },
			func() { lab.Dropped(t, b.client, "tcp", at(web6, 80)) },
			func() { lab.Dropped(t, other, "tcp", at(web4, 80)) },
			func() { lab.Dropped(t, other, "tcp", at(web6, 80)) },
		)
		lab.Reaches(t, b.client, "tcp", at(host4, 8082))
		lab.Reaches(t, b.client, "tcp", at(host6, 8082))
		b.types(script.Under("docs/publishing.md", "Published ports and the host's firewall")[0]...)
		b.run("firewall-cmd", "--add-port", "8081/tcp")
		for _, port := range []uint16{8080, 8081} {
			if peer := lab.Reaches(t, b.client, "tcp", at(host4, port)).Peer.Addr(); peer != b.client.Addr4() {
				t.Errorf("port %d: the container sees %s, not the client's %s", port, peer, b.client.Addr4())
			}
			lab.Reaches(t, b.client, "tcp", at(host6, port))
			lab.Reaches(t, b.Host, "tcp", at(host4, port))
		}
		lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
		lab.Reaches(t, b.Host, "tcp", "[::1]:8080")
	})
	t.Run("firewalld", func(t *testing.T) {
		bridges := []string{b.bridge("web"), b.bridge("other")}
		inZone := func() {
			for _, bridge := range bridges {
				b.eventually(bridge+" is in zone docker", func() bool { return b.zone(bridge) == "docker" })
			}
		}
		inZone()
		b.run("firewall-cmd", "--reload")
		inZone()
		b.run("firewall-cmd", "--add-port", "8080/tcp", "--add-port", "8081/tcp")
		lab.Eventually(t, b.client, "tcp", at(host4, 8080))
	})
	t.Run("a taken port", func(t *testing.T) {
		holder, err := b.Serve(t.Context(), "tcp", ":8090")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = holder.Stop() }()
		image, err := b.docker.Image(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.fails("probe (pid ", "run", "--rm", "--network", "web", "-p", "8090:80", image, "true")
	})
	t.Run("a deleted link", func(t *testing.T) {
		if out, err := b.Run(t.Context(), "sh", "-c", "ip -o link show master "+b.bridge("other")+" | sed 's/^[0-9]*: //; s/@.*//' | xargs -n 1 ip link delete"); err != nil {
			t.Fatal(out, err)
		}
		b.eventually("the container has its link back", func() bool {
			_, err := lab.Get(t.Context(), other, lab.Request{Network: "tcp", Addr: at(b.client.Addr4(), 80), Timeout: time.Second})
			return err == nil
		})
	})
	t.Run("off and on", func(t *testing.T) {
		b.fails("in use", "plugin", "disable", name)
		b.do("plugin", "disable", "-f", name)
		if out, err := b.Run(t.Context(), "pgrep", "-fa", "drawbridge (serve|relay)"); err == nil {
			t.Errorf("processes are left: %s", out)
		}
		if _, err := os.Stat(b.Path("/run/drawbridge/control.sock")); err == nil {
			t.Error("the control socket is left")
		}
		lab.Reaches(t, b.client, "tcp", at(host4, 8082))
		lab.Reaches(t, b.client, "tcp", at(host6, 8082))
		lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80))
		lab.Together( // these need a socket, and nobody has it
			func() { lab.Refused(t, b.client, "tcp", at(host4, 8081)) },
			func() { lab.Refused(t, b.client, "tcp", at(host6, 8081)) },
			func() { lab.Dropped(t, b.client, "tcp", at(web4, 80)) },
			func() { lab.Dropped(t, other, "tcp", at(web4, 80)) },
		)
		b.do("plugin", "set", name, "DRAWBRIDGE_LOG_LEVEL=info")
		b.do("plugin", "enable", name)
		b.healthy()
		for _, port := range []uint16{8080, 8081, 8082} {
			lab.Eventually(t, b.client, "tcp", at(host4, port))
			lab.Eventually(t, b.client, "tcp", at(host6, port))
		}
	})
	t.Run("the engine is asked", func(t *testing.T) {
		if out := b.run(b.program(), "gc", "--dry-run"); !strings.Contains(out, "nothing") {
			t.Errorf("Docker has forgotten: %s", out)
		}
	})
	t.Run("crash", func(t *testing.T) {
		before := b.pid()
		b.run("kill", "-9", before)
		b.eventually("the engine has started another daemon", func() bool {
			out, err := b.Run(t.Context(), "pgrep", "-f", "^/usr/sbin/drawbridge serve")
			return err == nil && strings.TrimSpace(out) != before
		})
		b.healthy()
		for _, port := range []uint16{8080, 8081, 8082} {
			lab.Eventually(t, b.client, "tcp", at(host4, port))
		}
		b.serveOn("web", "--name", "later")
	})
	b.do("rm", "-f", "web", "host", "past", "other", "later")
	b.do("network", "rm", "web", "other")
	b.nothingLeft()
	b.do("plugin", "disable", name)
	b.do("plugin", "rm", name)
	if out := b.do("plugin", "ls", "-q"); out != "" {
		t.Errorf("plugins are left: %s", out)
	}
	b.eventually("the host has the mounts of before", func() bool { return cmp.Equal(mounts, b.mounts()) })
}

// TestLegacyIptables: on a host whose iptables is the legacy variant our rules are where Docker's are, also when the plugin is started before
// Docker has any, as at a boot. The plugin's own default is the other one.
func TestLegacyIptables(t *testing.T) {
	b := up(t, options{lab: lab.Options{IPTables: "legacy"}, before: func(h *lab.Host) { preset(t, h) }})
	b.create()
	b.healthy()
	b.network("web", "--ipv6")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80", "--restart", "always")
	works := func() {
		t.Helper()
		lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
		lab.Eventually(t, web, "tcp", at(b.client.Addr4(), 80))
		for _, program := range []string{"iptables", "ip6tables"} {
			if out := b.run(program + "-legacy-save"); !strings.Contains(out, "-j DRAWBRIDGE-FORWARD") {
				t.Errorf("%s-legacy lacks our rules:\n%s", program, out)
			}
			if out := b.run(program + "-nft-save"); strings.Contains(out, "DRAWBRIDGE") {
				t.Errorf("%s-nft has rules of ours:\n%s", program, out)
			}
		}
	}
	works()
	if err := b.docker.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"iptables-legacy", "ip6tables-legacy"} {
		for _, table := range []string{"filter", "nat", "mangle"} {
			b.run(program, "-t", table, "-F")
			b.run(program, "-t", table, "-X")
		}
	}
	b.run("nft", "flush", "ruleset")
	if err := b.docker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	works()
	b.run(b.program(), "verify")
	b.do("rm", "-f", "web")
	b.do("network", "rm", "web")
	b.nothingLeft()
}

// nothingLeft checks that no link, rule, set or table of ours is on the host.
func (b *bed) nothingLeft() {
	b.t.Helper()
	left := func() string {
		ctx := context.WithoutCancel(b.t.Context())
		var out strings.Builder
		rules, err := b.Rules(ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		for line := range strings.Lines(rules + b.run("ipset", "list", "-n") + b.run("nft", "list", "tables") + b.run("ip", "-d", "link")) {
			if strings.Contains(strings.ToLower(line), "drawbridge") {
				out.WriteString(line)
			}
		}
		return out.String()
	}
	b.eventually("nothing is left on the host", func() bool { return left() == "" || b.t.Failed() })
}

// TestSettings: a setting that means nothing is told where the engine tells what plugins say, and every one can be taken back.
func TestSettings(t *testing.T) {
	b := up(t, options{docker: []string{"--ip-forward=false"}})
	b.do("plugin", "create", name, built(t))
	b.fails("not found", "plugin", "set", name, "DRAWBRIDGE_STATE=/tmp/state.db")
	b.do("plugin", "set", name, "DRAWBRIDGE_ICC=perhaps")
	b.fails("connect: no such file", "plugin", "enable", name)
	if !strings.Contains(b.docker.Log(), "DRAWBRIDGE_ICC: ") || !strings.Contains(b.docker.Log(), "is neither true nor false") {
		t.Error("the engine's log does not say what is wrong")
	}
	b.do("plugin", "set", name, "DRAWBRIDGE_ICC=")
	b.do("plugin", "enable", name)
	b.healthy()
	if got := b.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"); got != "0\n0\n" {
		t.Errorf("before the first network forwarding is %q", got)
	}
	b.network("web", "--ipv6")
	if got := b.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"); got != "1\n1\n" {
		t.Errorf("forwarding is %q", got)
	}
	lab.Reaches(t, b.serveOn("web", "--name", "web"), "tcp", at(b.client.Addr6(), 80))
	b.do("rm", "-f", "web")
	b.do("network", "rm", "web")
	b.do("plugin", "disable", name)
	// It was we who turned forwarding on: what keeps the host from being a router stays until then.
	b.run(b.program(), "purge", "--state", filepath.Join(b.home(), "propagated-mount/state.db"))
	b.nothingLeft()
	b.do("plugin", "rm", name)
}

// TestStateMoves: a plugin that is made anew goes on with the state of the one before, if it is given that as the documentation says.
func TestStateMoves(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) { preset(t, h) }})
	lines := docs.Left(t, "test/managed.TestStateMoves").Under("docs/managed-plugin.md", "Without a registry")[0]
	again := slices.Index(lines, "docker plugin enable drawbridge") + 1
	b.create()
	b.network("web", "--ipv6")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80")
	b.types(append([]string{"home=" + b.home()}, lines[:again]...)...)
	if out, err := b.Run(t.Context(), b.program(), "status"); err == nil {
		t.Errorf("without its state, and with a container that has a link, it is content: %s", out)
	}
	b.fails("missing or empty", "network", "create", "-d", driver, "--ipam-driver", driver, "other")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	b.types(lines[again:]...)
	b.healthy()
	lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80))
	b.run(b.program(), "verify")
	b.do("rm", "-f", "web")
	b.do("network", "rm", "web")
	b.nothingLeft()
}
