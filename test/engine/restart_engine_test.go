//go:build engine

package engine

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// restarts is a bed with two containers that come back with dockerd, on networks of their own.
type restarts struct {
	*bed
	server, stranger *lab.Container
	addrs            string // of both, as they were
}

// restarting makes it. The engine is given the arguments.
func restarting(t *testing.T, docker ...string) *restarts {
	t.Helper()
	r := &restarts{bed: up(t, options{before: preset(t), docker: docker})}
	r.outside()
	r.network("web", "--ipv6", "--subnet", "10.91.0.0/24", "--subnet", "fd91::/64")
	r.network("other", "--ipv6")
	r.server = r.serveOn("web", "--name", "server", "-p", "8080:80", "--restart", "always", "--ip", "10.91.0.91", "--ip6", "fd91::91")
	r.stranger = r.serveOn("other", "--name", "stranger", "--restart", "always")
	r.serveOn("web", "--name", "neighbour", "--restart", "always")
	r.works(t)
	r.addrs = r.addresses()
	return r
}

// works checks every way that must be open, in both families, and those next to them that must not.
func (r *restarts) works(t *testing.T) {
	t.Helper()
	host, server4, server6 := r.client.Host, at(r.addr(r.server, "web"), 80), at(r.addr6(r.server, "web"), 80)
	lab.Reaches(t, r.client, "tcp", at(host.Addr4(), 8080))
	lab.Reaches(t, r.client, "tcp", at(host.Addr6(), 8080))
	lab.Reaches(t, r.Host, "tcp", "127.0.0.1:8080")
	lab.Reaches(t, r.server, "tcp", at(r.client.Addr4(), 80))
	lab.Reaches(t, r.server, "tcp", at(r.client.Addr6(), 80))
	lab.Reaches(t, r.stranger, "tcp", at(host.Addr4(), 8080))
	neighbour := r.docker.Container("neighbour")
	lab.Reaches(t, neighbour, "tcp", server4)
	lab.Reaches(t, neighbour, "tcp", server6)
	lab.Together(
		func() { lab.Dropped(t, r.client, "tcp", server4) },
		func() { lab.Dropped(t, r.client, "tcp", server6) },
		func() { lab.Blocked(t, r.client, "tcp", at(host.Addr4(), 81)) },
		func() { lab.Dropped(t, r.stranger, "tcp", server4) },
		func() { lab.Dropped(t, r.stranger, "tcp", server6) },
	)
}

// addresses are what Docker says of the server, whose addresses are its own choice.
func (r *restarts) addresses() string {
	r.t.Helper()
	return fmt.Sprint(r.addr(r.server, "web"), r.addr6(r.server, "web"))
}

// back waits until containers that come back by themselves serve again.
func (r *restarts) back() {
	r.t.Helper()
	for _, name := range []string{"server", "neighbour", "stranger"} {
		r.eventually(name+" runs again", func() bool {
			out, err := r.docker.Run(r.t.Context(), "inspect", "-f", "{{.State.Running}}", name)
			return err == nil && out == "true"
		})
	}
	lab.Eventually(r.t, r.client, "tcp", at(r.client.Host.Addr4(), 8080))
	lab.Eventually(r.t, r.client, "tcp", at(r.client.Host.Addr6(), 8080))
	if now := r.addresses(); now != r.addrs {
		r.t.Errorf("addresses are %s, were %s", now, r.addrs)
	}
}

// alone checks that what is there is there once: three containers with a port of two families, three networks' pools.
func (r *restarts) alone(t *testing.T) {
	t.Helper()
	status := object(t, r.run(binary(t), "status", "--json"))
	for key, want := range map[string]float64{"networks": 2, "endpoints": 3, "ports": 2, "pools": 4} {
		if status[key] != want {
			t.Errorf("%s: %v, want %v", key, status[key], want)
		}
	}
	r.reaped()
	links, err := r.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bridges := map[string]int{}
	for _, link := range links {
		if _, master, ok := strings.Cut(link, "master br-"); ok {
			bridges[master[:12]]++
		}
	}
	if web, other := bridges[r.bridge("web")[3:]], bridges[r.bridge("other")[3:]]; web != 2 || other != 1 || len(bridges) != 2 {
		t.Errorf("links of bridges: %v", bridges)
	}
}

// end removes all, of which nothing may be left.
func (r *restarts) end() {
	r.t.Helper()
	r.do("rm", "-f", "server", "neighbour", "stranger")
	r.do("network", "rm", "web", "other")
	r.nothingLeft()
}

// TestEngineRestart: dockerd ends, in good order and killed, and containers come back with the next one.
func TestEngineRestart(t *testing.T) {
	r := restarting(t)
	for what, end := range map[string]func() error{"stopped": func() error { return r.docker.Stop() }, "killed": func() error { return r.docker.Kill() }} {
		t.Run(what, func(t *testing.T) {
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if err := r.docker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.back()
			r.works(t)
			r.alone(t)
		})
	}
	r.end()
}

// TestLiveRestore: containers live on over the end and the start of dockerd, and so do their connections.
func TestLiveRestore(t *testing.T) {
	r := restarting(t, "--live-restore")
	held := []*flow{
		r.hold("to a published port", r.client, at(r.client.Host.Addr4(), 8080)),
		r.hold("to a published port in IPv6", r.client, at(r.client.Host.Addr6(), 8080)),
	}
	away := func(t *testing.T) {
		t.Helper()
		for _, f := range held {
			f.goesOn(t)
		}
		lab.Reaches(t, r.client, "tcp", at(r.client.Host.Addr4(), 8080))
		lab.Reaches(t, r.client, "tcp", at(r.client.Host.Addr6(), 8080))
		lab.Together(
			func() { lab.Dropped(t, r.client, "tcp", "10.91.0.91:80") },
			func() { lab.Dropped(t, r.client, "tcp", "[fd91::91]:80") },
		)
	}
	for what, end := range map[string]func() error{"stopped": func() error { return r.docker.Stop() }, "killed": func() error { return r.docker.Kill() }} {
		t.Run(what, func(t *testing.T) {
			if err := end(); err != nil {
				t.Fatal(err)
			}
			away(t)
			if err := r.docker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			away(t)
			r.back()
			r.works(t)
			r.alone(t)
		})
	}
	t.Run("with the plugin away meanwhile", func(t *testing.T) {
		if err := r.docker.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.plugin.Kill(); err != nil {
			t.Fatal(err)
		}
		away(t)
		r.startPlugin()
		if err := r.docker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		away(t)
		r.works(t)
		r.alone(t)
	})
	r.do("restart", "-t", "0", "server") // which the engine did not start itself
	r.listens(r.server)
	r.works(t)
	r.end()
}

// TestReboot: all that the kernel had is gone, and the boot is another. Networks that nobody tells of again are back before the
// first call is answered, and containers come back on them.
func TestReboot(t *testing.T) {
	r := restarting(t)
	bridges := []string{r.bridge("web"), r.bridge("other")}
	var running []string
	for _, name := range []string{"server", "neighbour", "stranger"} {
		running = append(running, r.do("inspect", "-f", "{{.State.Pid}}", name))
	}
	// Nothing is promised at a power failure: nobody has a last word.
	if err := r.docker.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.plugin.Kill(); err != nil {
		t.Fatal(err)
	}
	r.powerOff(running)

	r.startPluginAtOnce()
	r.firstAnswer()
	kernel := r.kernel()
	for _, bridge := range bridges {
		if _, err := r.Run(t.Context(), "ip", "link", "show", "up", bridge); err != nil {
			t.Errorf("bridge %s is not there at the first answer: %v", bridge, err)
		}
	}
	r.run(binary(t), "status") // would have mended what was missing
	if diff := cmp.Diff(kernel, r.kernel()); diff != "" || !strings.Contains(kernel, "drawbridge") {
		t.Errorf("rules at the first answer (-then +later):\n%s", diff)
	}
	if err := r.docker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.back()
	r.works(t)
	r.alone(t)
	r.do("rm", "-f", "server", "neighbour", "stranger")
	r.do("network", "rm", "web", "other")
	if err := r.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	r.run(binary(t), "purge") // the guard of a host that forwards because of us stays until then
	r.nothingLeft()
}

// powerOff leaves nothing but files: containers and who runs them, who holds published ports, links, rules, sets, switches and the id of the boot.
func (r *restarts) powerOff(containers []string) {
	r.t.Helper()
	for _, pid := range append(append(r.pids("containerd"), r.pids("drawbridge")...), containers...) {
		// One may have ended with another.
		_, _ = r.Run(r.t.Context(), "kill", "-9", pid)
	}
	r.eventually("what ran containers and held ports is gone", func() bool { return len(r.pids("containerd"))+len(r.pids("drawbridge")) == 0 })
	links, err := r.Links(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for name := range links {
		if strings.HasPrefix(name, "br-") || strings.HasPrefix(name, "veth") || name == "docker0" {
			_, _ = r.Run(r.t.Context(), "ip", "link", "delete", name) // with a container's end it may go by itself
		}
	}
	r.run("nft", "flush", "ruleset")
	r.eventually("sets are gone, of which the kernel lets go some time after their rules", func() bool {
		_, err := r.Run(r.t.Context(), "ipset", "destroy")
		return err == nil
	})
	for _, key := range []string{"net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"} {
		r.run("sysctl", "-q", "-w", key)
	}
	for _, mounted := range strings.Fields(r.run("find", "/run/docker/netns", "-type", "f")) {
		r.run("umount", mounted)
	}
	r.run("rm", "-r", "/run/docker", "/run/docker.pid")
	if err := os.WriteFile(r.Path("/run/boot_id"), []byte("6d6cbd1c-0000-4000-8000-000000000001\n"), 0o444); err != nil {
		r.t.Fatal(err)
	}
	r.run("mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")
}

// pids are those of the lab whose program has the word in its name.
func (r *restarts) pids(word string) []string {
	out, err := r.Run(r.t.Context(), "pgrep", word)
	if exitCode(err) == 1 {
		return nil // there is none
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Fields(out)
}

// firstAnswer asks the plugin something that needs the state, as soon as its socket is there, and returns when that is answered.
func (b *bed) firstAnswer() {
	b.t.Helper()
	t := unixsocket.Transport(b.Path("/run/docker/plugins/drawbridge.sock"))
	defer t.CloseIdleConnections()
	b.eventually("the plugin answers", func() bool {
		body := strings.NewReader(`{"PoolID": "of nobody"}`)
		req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://plugin/IpamDriver.ReleasePool", body)
		if err != nil {
			b.t.Fatal(err)
		}
		res, err := t.RoundTrip(req)
		if err != nil {
			return false // it does not listen yet
		}
		defer res.Body.Close()
		if said, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
			b.t.Fatalf("the first answer is %s: %s", res.Status, said)
		}
		return true
	})
}

// nftElements are what a set holds, in an order that says nothing.
var nftElements = regexp.MustCompile(`elements = \{[^{}]*\}`)

// kernel is the text of all our rules and sets.
func (b *bed) kernel() string {
	b.t.Helper()
	rules, err := b.Rules(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(rules + b.run("ipset", "save", "-sorted")) {
		if strings.Contains(strings.ToLower(line), "drawbridge") {
			out.WriteString(line)
		}
	}
	if onNFTables() {
		out.WriteString(nftElements.ReplaceAllStringFunc(b.run("nft", "--stateless", "list", "table", "inet", "drawbridge"), func(elements string) string {
			words := strings.Split(strings.Trim(strings.TrimPrefix(elements, "elements = "), "{}"), ",")
			for i, w := range words {
				words[i] = strings.Join(strings.Fields(w), " ")
			}
			slices.Sort(words)
			return "{" + strings.Join(words, ", ") + "}"
		}))
	}
	return out.String()
}

// TestFirstAnswer: whoever finds the plugin's socket, as dockerd does, finds networks with all their rules behind the first answer.
func TestFirstAnswer(t *testing.T) {
	r := restarting(t)
	kernel := r.kernel()
	if err := r.plugin.Kill(); err != nil {
		t.Fatal(err)
	}
	r.run("nft", "flush", "ruleset")
	r.run("ipset", "flush")
	for _, network := range []string{"web", "other"} {
		r.run("ip", "link", "delete", r.bridge(network))
	}
	r.startPluginAtOnce()
	r.firstAnswer()
	if diff := cmp.Diff(kernel, r.kernel()); diff != "" {
		t.Errorf("rules at the first answer (-before +then):\n%s", diff)
	}
	r.works(t)
	r.alone(t)
	r.end()
}
