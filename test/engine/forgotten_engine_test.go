//go:build engine

package engine

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestForgotten: containers that are removed while the daemon does not serve do not keep their ports and addresses. It refuses, and
// is not away, since Docker would try again for 15 seconds with each call.
func TestForgotten(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6", "--subnet", "10.44.0.0/24")
	gone := b.serveOn("web", "-p", "8080:80", "--ip", "10.44.0.44")
	alive := b.serveOn("web", "-p", "8081:80")
	if err := b.plugin.Kill(); err != nil {
		t.Fatal(err)
	}
	const file = "/var/lib/drawbridge/state.db"
	b.run("mv", file, file+".away")
	b.startPluginAtOnce()
	b.eventually("the plugin refuses", func() bool {
		out, err := b.Run(t.Context(), binary(t), "status")
		return err != nil && strings.Contains(out+err.Error(), "is missing or empty")
	})
	b.do("rm", "-f", gone.Name) // Docker gives up on each call and forgets
	b.run("mv", file+".away", file)
	b.eventually("the plugin goes on", func() bool {
		_, err := b.Run(t.Context(), binary(t), "status")
		return err == nil
	})
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081))

	again := b.serveOn("web", "-p", "8080:80") // at once
	if r := lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080)); !strings.HasPrefix(again.Name, r.Server) {
		t.Errorf("%s answers, not %s", r.Server, again.Name)
	}
	b.serveOn("web", "--ip", "10.44.0.44")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081))
	if n := len(b.ports()); n != 4 {
		t.Errorf("ports: %+v", b.ports())
	}
	_ = alive
}

// TestStaticAddressRestart: neighbours reach a container again as soon as it is back.
func TestStaticAddressRestart(t *testing.T) {
	b := up(t, options{})
	b.network("fixed", "--subnet", "10.43.0.0/24", "--ipv6")
	peer := b.serveOn("fixed", "--ip", "10.43.0.9")
	server := b.serveOn("fixed", "--ip", "10.43.0.88", "-p", "8080:80")
	lab.Reaches(t, peer, "tcp", "10.43.0.88:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	b.do("restart", "-t", "0", server.Name)
	b.listens(server)
	lab.Reaches(t, peer, "tcp", "10.43.0.88:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
}

// TestFlushedMangle: what is accepted in filter does not rely on what mangle drops. With a latch nothing new would come that far.
func TestFlushedMangle(t *testing.T) {
	b := up(t, options{serve: []string{"--latch", "off"}})
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	b.network("inner", "--internal")
	web, other, inner := b.serveOn("web", "-p", "8080:80"), b.serveOn("other"), b.serveOn("inner")
	rogue := b.serveOn("inner", "--cap-add", "NET_ADMIN")
	gateway := b.do("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "inner")
	if _, err := rogue.Run(t.Context(), "/bin/busybox", "ip", "route", "add", "default", "via", gateway); err != nil {
		t.Fatal(err)
	}
	if err := b.plugin.Stop(); err != nil { // it would mend what is flushed
		t.Fatal(err)
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		b.run(tables, "-P", "FORWARD", "DROP")
		b.run(tables, "-t", "mangle", "-F")
	}
	lab.Dropped(t, b.client, "tcp", at(b.addr(web, "web"), 81))
	lab.Dropped(t, b.client, "tcp", at(b.addr6(web, "web"), 81))
	lab.Dropped(t, other, "tcp", at(b.addr(web, "web"), 81))
	lab.Dropped(t, b.client, "tcp", at(b.addr(inner, "inner"), 80))
	lab.Blocked(t, inner, "tcp", at(b.addr(web, "web"), 80))
	lab.Dropped(t, rogue, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
}

// TestFlushHeals: rules that somebody flushed come back by themselves, far sooner than the next comparison that is due.
func TestFlushHeals(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	web := b.serveOn("web", "-p", "8080:80")
	flushes := map[string][]string{
		"filter":   {"iptables", "-F"},
		"nat":      {"iptables", "-t", "nat", "-F"},
		"nat IPv6": {"ip6tables", "-t", "nat", "-F"},
		"all":      {"nft", "flush", "ruleset"},
	}
	for name, flush := range flushes {
		b.run(flush[0], flush[1:]...)
		began := time.Now()
		b.eventually(name, func() bool { return b.open(web) })
		t.Logf("%s: healed after %v", name, time.Since(began))
	}
}

// open reports whether the web container is reached by its published port in both families, and by no other way.
func (b *bed) open(web *lab.Container) bool {
	reached := func(addr string) bool {
		_, err := lab.Get(b.t.Context(), b.client, lab.Request{Network: "tcp", Addr: addr, Timeout: 300 * time.Millisecond})
		return err == nil
	}
	return reached(at(b.client.Host.Addr4(), 8080)) && reached(at(b.client.Host.Addr6(), 8080)) &&
		!reached(at(b.addr(web, "web"), 81)) && !reached(at(b.addr6(web, "web"), 81))
}

// TestFlushedFilter: Docker's bridges stay closed when the rules by which they are known are gone.
func TestFlushedFilter(t *testing.T) {
	b := up(t, options{})
	b.do("network", "create", "-o", "com.docker.network.bridge.name=named0", "named")
	b.network("web")
	web, theirs, named := b.serveOn("web"), b.serveOn("bridge"), b.serveOn("named")
	b.run("iptables", "-F")
	b.network("more") // a pass
	lab.Blocked(t, web, "tcp", at(b.addr(theirs, "bridge"), 80))
	lab.Blocked(t, web, "tcp", at(b.addr(named, "named"), 80))
}

// TestBootOrder: the daemon is started first and turns forwarding on, so that dockerd finds it on and
// leaves FORWARD open. Docker's containers must not be open to the outside for it, not after a purge either.
func TestBootOrder(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) {
		if _, err := h.Run(t.Context(), "sysctl", "-w", "net.ipv4.ip_forward=0"); err != nil {
			t.Fatal(err)
		}
	}, docker: []string{"--ip-forward=false"}})
	b.network("web")
	if err := b.docker.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.run("iptables", "-P", "FORWARD", "ACCEPT")
	b.run("sysctl", "-w", "net.ipv4.ip_forward=0")
	b.startPlugin()
	if err := b.docker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.outside()
	theirs := b.serveOn("bridge", "-p", "7001:80")
	closed := func() {
		t.Helper()
		lab.Reaches(t, theirs, "tcp", at(b.client.Addr4(), 80))
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 7001))
		lab.Dropped(t, b.client, "tcp", at(b.addr(theirs, "bridge"), 81))
	}
	closed()
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	if said := b.run(binary(t), "purge"); !strings.Contains(said, "So that the host is no router") {
		t.Errorf("purge says\n%s", said)
	}
	b.nothingLeft()
	closed()
}

// TestStartFailures: each says in one sentence what is wrong.
func TestStartFailures(t *testing.T) {
	b := up(t, options{})
	b.network("web")
	c := b.serveOn("web")
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	fails := func(words string, args ...string) {
		t.Helper()
		_, err := b.Run(t.Context(), "timeout", append([]string{"60", binary(t), "serve"}, args...)...)
		if code := exitCode(err); code != 1 || !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "goroutine") {
			t.Errorf("%v exits %d without saying %q: %v", args, code, words, err)
		}
	}
	fails("drawbridge purge --rules-only", "--iptables=false")
	if err := os.WriteFile(b.Path("/run/bad.db"), []byte(strings.Repeat("nonsense", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := b.Start("refusing", []string{binary(t), "serve", "--state", "/run/bad.db"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.fails("state file /run/bad.db is damaged", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "other")
	if _, err := b.Run(t.Context(), binary(t), "status"); exitCode(err) != 1 {
		t.Errorf("status exits %d: %v", exitCode(err), err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	fails("must be absolute", "--plugin-socket", "relative.sock")

	b.run(binary(t), "purge", "--rules-only")
	rules, err := b.Rules(t.Context())
	if err != nil || strings.Contains(rules, "DRAWBRIDGE") {
		t.Errorf("rules are left: %v\n%s", err, rules)
	}
	b.serve = []string{"--iptables=false"}
	b.startPlugin()
	lab.Reaches(t, b.Host, "tcp", at(b.addr(c, "web"), 80)) // the container kept its link
}

// TestNoIPTablesInstalled: a host without iptables is told what to install, or has nftables.
func TestNoIPTablesInstalled(t *testing.T) {
	b := up(t, options{})
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	if said := b.run("env", "PATH=/nowhere", binary(t), "purge", "--rules-only"); strings.Contains(said, "no iptables") {
		t.Errorf("with PATH=/nowhere: %s", said)
	}
	poor := func(args ...string) *lab.Process {
		t.Helper()
		p, err := b.Start("poor", append([]string{
			"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /usr/sbin && exec "$@"`, "sh", binary(t), "serve",
		}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := poor("--firewall-backend", "iptables")
	b.fails("install the package iptables", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "web")
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	p = poor()
	b.network("alone")
	if status := b.run(binary(t), "status"); !strings.Contains(status, "nftables") {
		t.Errorf("without iptables: %s", status)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	b.startPlugin()
	b.network("web")
}
