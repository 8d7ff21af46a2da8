//go:build engine

package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// comesBack waits until a place reaches an address again, and says how long that took.
func (b *bed) comesBack(t *testing.T, what string, from lab.Place, addr string) {
	t.Helper()
	began := time.Now()
	for {
		_, err := lab.Get(t.Context(), from, lab.Request{Network: "tcp", Addr: addr, Timeout: 200 * time.Millisecond})
		if err == nil {
			t.Logf("%s: %v", what, time.Since(began).Round(10*time.Millisecond))
			return
		}
		if time.Since(began) > healTime {
			t.Fatalf("%s does not come back: %v\n%s", what, err, b.plugin.Log())
		}
	}
}

// told waits until the log has a line of a repair with the words.
func (b *bed) told(words string) {
	b.t.Helper()
	b.eventually("the log tells of the repair: "+words, func() bool {
		for line := range strings.Lines(b.plugin.Log()) {
			if strings.Contains(line, "repaired") && strings.Contains(line, words) {
				return true
			}
		}
		return false
	})
}

// TestDeletedBridge: a bridge that somebody deletes is back at once, with all that belongs to it.
func TestDeletedBridge(t *testing.T) {
	b := up(t, options{serve: translated, before: func(h *lab.Host) { startFirewalld(t, h) }})
	b.outside()
	b.network("web", "--ipv6")
	b.network("other", "--ipv6")
	b.network("apart", "--ipv6", "-o", "com.docker.network.bridge.enable_icc=false")
	web, peer, stranger := b.serveOn("web", "-p", "8080:80"), b.serveOn("web"), b.serveOn("other")
	db := b.serveOn("name=apart,driver-opt=drawbridge.name=db", "--expose", "80")
	app, third := b.serveOn("name=apart,driver-opt=drawbridge.link=db"), b.serveOn("apart", "-p", "8081:80")
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	held := b.hold("to a published port", b.client, at(host4, 8080))
	// Nobody asks anybody for a MAC address after this.
	lab.Reaches(t, web, "tcp", at(b.addr(peer, "web"), 80))
	lab.Reaches(t, app, "tcp", at(b.addr(db, "apart"), 80))
	zone := b.zone(b.bridge("web"))

	for _, network := range []string{"web", "apart"} {
		b.run("ip", "link", "del", b.bridge(network))
	}
	b.comesBack(t, "published port", b.client, at(host4, 8080))
	b.comesBack(t, "published port in IPv6", b.client, at(host6, 8080))
	b.comesBack(t, "published port of a network without icc", b.client, at(host4, 8081))
	for addr, from := range map[string]lab.Place{
		at(b.addr(web, "web"), 81): peer, at(b.addr6(web, "web"), 81): peer,
		at(b.addr(peer, "web"), 80): b.Host, at(b.addr6(peer, "web"), 80): b.Host,
		at(b.client.Addr4(), 80): web, at(b.client.Addr6(), 80): web,
		at(host4, 8080): stranger, at(host6, 8080): stranger,
		"127.0.0.1:8080": b.Host, "[::1]:8080": b.Host,
		at(b.addr(db, "apart"), 80): app, at(b.addr6(db, "apart"), 80): app,
	} {
		lab.Reaches(t, from, "tcp", addr)
	}
	held.goesOn(t)
	lab.Dropped(t, b.client, "tcp", at(b.addr(web, "web"), 81))
	lab.Blocked(t, stranger, "tcp", at(b.addr6(web, "web"), 80))
	lab.Blocked(t, third, "tcp", at(b.addr(db, "apart"), 80))
	lab.Blocked(t, third, "tcp", at(b.addr6(db, "apart"), 80))
	lab.Blocked(t, app, "tcp", at(b.addr(db, "apart"), 81))
	if now := b.zone(b.bridge("web")); now != zone {
		t.Errorf("zone %q, before %q", now, zone)
	}
	b.told("link " + b.bridge("web") + " is missing")
	b.run(binary(t), "status")
	lab.Reaches(t, b.serveOn("web"), "tcp", at(b.addr(web, "web"), 80)) // a new one joins as ever
}

// hostEnd is the host's end of a container's link to a network.
func (b *bed) hostEnd(c *lab.Container, network string) string {
	b.t.Helper()
	return "veth" + b.do("inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").EndpointID}}`, c.Name)[:11]
}

// inside describes the container's links, addresses and routes, without what the kernel numbers anew.
func (b *bed) inside(t *testing.T, c *lab.Container) []string {
	t.Helper()
	var out []string
	for _, args := range [][]string{
		{"-o", "link"}, {"-o", "addr", "show", "scope", "global"}, {"route"}, {"-6", "route", "show", "table", "main"},
	} {
		text := b.run("nsenter", append([]string{"-t", b.pid(c), "-n", "ip"}, args...)...)
		for line := range strings.Lines(text) {
			words := strings.Fields(line)
			words[0] = strings.TrimRight(words[0], "0123456789:")
			line = strings.Join(words, " ")
			if at := strings.Index(line, "@if"); at >= 0 {
				line = line[:at] + line[at+strings.Index(line[at:], ":"):]
			}
			if !strings.Contains(line, "fe80::") && !strings.Contains(line, "ff00::") {
				out = append(out, line)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (b *bed) pid(c *lab.Container) string {
	b.t.Helper()
	return b.do("inspect", "-f", "{{.State.Pid}}", c.Name)
}

// packaged starts the daemon as the packaged unit does: with its capabilities, less those given, and in a mount namespace that
// sees what others mount later.
func (b *bed) packaged(t *testing.T, less ...string) {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join("..", "..", "packaging", "drawbridge.service"))
	if err != nil {
		t.Fatal(err)
	}
	set := "-all"
	for line := range strings.Lines(string(unit)) {
		if names, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			for _, name := range strings.Fields(names) {
				if !slices.Contains(less, name) {
					set += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
				}
			}
		}
	}
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.limits = []string{"unshare", "--mount", "--propagation", "slave", "setpriv", "--no-new-privs", "--bounding-set", set}
	b.startPlugin()
}

// TestDeletedVeth: a link that somebody takes from a running container comes back as it was, and the engine does not notice.
func TestDeletedVeth(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) {
		// As systemd has it, where the engine's mounts reach the namespaces of services.
		if _, err := h.Run(t.Context(), "mount", "--make-rshared", "/run"); err != nil {
			t.Fatal(err)
		}
	}})
	b.packaged(t)
	b.outside()
	b.network("front", "--ipv6") // the way out: the first by its name
	b.network("rear", "--ipv6")
	b.network("inner", "--internal")
	c := b.serveOn("front", "-p", "8080:80", "--cap-add", "NET_ADMIN")
	onFront, onRear, onInner := b.serveOn("front"), b.serveOn("rear"), b.serveOn("inner")
	for _, network := range []string{"rear", "inner"} {
		b.do("network", "connect", network, c.Name)
	}
	host4, host6 := b.client.Host.Addr4(), b.client.Host.Addr6()
	held := []*flow{
		b.hold("to a published port", b.client, at(host4, 8080)),
		b.hold("to a published port in IPv6", b.client, at(host6, 8080)),
		b.hold("outwards", c, at(b.client.Addr4(), 80)),
		b.hold("from another container", onRear, at(b.addr(c, "rear"), 80)),
	}
	b.run(binary(t), "status") // has the daemon look at the host
	before := b.inside(t, c)
	outside := func() { b.comesBack(t, "from outside", b.client, at(host4, 8080)) }
	deletions := []struct {
		what   string
		delete func()
		back   func()
	}{
		{"the way out, on the host", func() { b.run("ip", "link", "del", b.hostEnd(c, "front")) }, outside},
		{"the second, in the container", func() {
			if _, err := c.Run(t.Context(), "/bin/busybox", "ip", "link", "del", "eth1"); err != nil {
				t.Fatal(err)
			}
		}, func() { b.comesBack(t, "from the second network", onRear, at(b.addr(c, "rear"), 80)) }},
		{"all", func() {
			for _, network := range []string{"rear", "inner", "front"} {
				b.run("ip", "link", "del", b.hostEnd(c, network))
			}
		}, outside},
		{"while the daemon is down", func() {
			if err := b.plugin.Kill(); err != nil {
				t.Fatal(err)
			}
			b.run("ip", "link", "del", b.hostEnd(c, "front"))
			b.startPlugin()
		}, outside},
	}
	check := func(t *testing.T) {
		t.Helper()
		for addr, from := range map[string]lab.Place{
			at(host4, 8080): b.client, at(host6, 8080): b.client,
			at(b.client.Addr4(), 80): c, at(b.client.Addr6(), 80): c,
			at(b.addr(onFront, "front"), 80): c, at(b.addr6(onFront, "front"), 80): c,
			at(b.addr(onRear, "rear"), 80): c, at(b.addr6(onRear, "rear"), 80): c,
			at(b.addr(onInner, "inner"), 80): c,
			at(b.addr(c, "rear"), 80):        onRear, at(b.addr6(c, "rear"), 80): onRear,
			at(b.addr(c, "front"), 80): b.Host, "127.0.0.1:8080": b.Host,
		} {
			lab.Reaches(t, from, "tcp", addr)
		}
		lab.Dropped(t, b.client, "tcp", at(b.addr(c, "front"), 81))
	}
	for _, d := range deletions {
		t.Log(d.what)
		d.delete()
		d.back()
		if diff := cmp.Diff(before, b.inside(t, c)); diff != "" {
			t.Errorf("%s: the container (-before +after):\n%s", d.what, diff)
		}
		check(t)
		for _, f := range held {
			f.goesOn(t)
		}
		b.run(binary(t), "status")
	}
	b.told("link " + b.hostEnd(c, "front") + " is missing")
	b.told("link " + b.hostEnd(c, "rear") + " is missing")

	t.Run("the engine goes on with it", func(t *testing.T) {
		b.do("network", "disconnect", "rear", c.Name)
		lab.Blocked(t, c, "tcp", at(b.addr(onRear, "rear"), 80))
		lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		b.do("network", "connect", "rear", c.Name)
		check(t)
		b.do("restart", "-t", "0", c.Name)
		b.listens(c)
		check(t)
	})
	t.Run("without the right to enter a container", func(t *testing.T) {
		b.packaged(t, "CAP_SYS_ADMIN")
		end := b.hostEnd(c, "rear")
		b.run("ip", "link", "del", end)
		b.run(binary(t), "status") // has compared; what sweep finds, it tells later
		if links := b.run("ip", "-o", "link"); strings.Contains(links, end) {
			t.Errorf("half of a link is on the host: %s", links)
		}
		lab.Reaches(t, b.client, "tcp", at(host4, 8080))
		b.do("restart", "-t", "0", c.Name)
		b.listens(c)
		check(t)
	})
	b.packaged(t)
	b.run("ip", "link", "del", b.hostEnd(c, "front"))
	b.comesBack(t, "before the end", b.client, at(host4, 8080))
	b.do("rm", "-f", c.Name, onFront.Name, onRear.Name, onInner.Name)
	b.do("network", "rm", "front", "rear", "inner")
	for line := range strings.Lines(b.plugin.Log()) {
		if strings.Contains(line, "not as it should be, trying") || strings.Contains(line, "removed an endpoint") {
			t.Errorf("in the log: %s", line)
		}
	}
}

// TestEndsAreNotRepaired: containers that end, by whichever way and many at once, are no damage.
func TestEndsAreNotRepaired(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	b.network("back")
	image, err := b.docker.Image(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A dockerd that starts makes its jump to DOCKER-USER anew, and is told of it if that takes it long.
	started := len(b.plugin.Log())
	const rounds, atOnce = 4, 5
	for round := range rounds {
		done := make(chan error)
		for i := range atOnce {
			go func() {
				name := fmt.Sprint("brief", i)
				_, err := b.docker.Run(t.Context(), "run", "-d", "--name", name, "--network", "web", "-p", "80", image, "/bin/busybox", "sleep", "60")
				if err == nil {
					_, err = b.docker.Run(t.Context(), "network", "connect", "back", name)
				}
				if err == nil {
					end := [][]string{{"rm", "-f"}, {"kill"}, {"stop", "-t", "0"}}[(i+round)%3]
					_, err = b.docker.Run(t.Context(), append(end, name)...)
				}
				if err == nil {
					_, err = b.docker.Run(t.Context(), "rm", "-f", name)
				}
				done <- err
			}()
		}
		for range atOnce {
			if err := <-done; err != nil && !strings.Contains(err.Error(), "No such container") {
				t.Fatal(err)
			}
		}
	}
	b.do("network", "rm", "web", "back")
	for line := range strings.Lines(b.plugin.Log()[started:]) {
		if strings.Contains(line, "repaired") || strings.Contains(line, "level=ERROR") {
			t.Errorf("in the log: %s", line)
		}
	}
}
