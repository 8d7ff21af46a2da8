//go:build engine

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// orphan is a row of drawbridge gc --json.
type orphan struct {
	Kind, ID, What, Why, Error string
	Since                      time.Time
	Seen, Unanswered, Removed  bool
}

// gc runs drawbridge gc, which must succeed.
func (b *bed) gc(args ...string) []orphan {
	b.t.Helper()
	var out []orphan
	if err := json.Unmarshal([]byte(b.run(binary(b.t), append([]string{"gc", "--json"}, args...)...)), &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// names are the orphans by kind and id, sorted.
func names(list []orphan) []string {
	var out []string
	for _, o := range list {
		out = append(out, o.Kind+" "+o.ID)
	}
	slices.Sort(out)
	return out
}

// without kills the daemon and runs docker commands while something answers in its place that it is not there: Docker then
// gives up at once, and not after 15 seconds for each call.
func (b *bed) without(commands ...[]string) {
	b.t.Helper()
	if err := b.plugin.Kill(); err != nil {
		b.t.Fatal(err)
	}
	l, err := unixsocket.Listen(b.Path("/run/docker/plugins/drawbridge.sock"))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() {
		away := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		ended <- unixsocket.Serve(ctx, &http.Server{Handler: away}, l, time.Second)
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, unixsocket.ErrNotDrained) {
			b.t.Error(err)
		}
	}()
	for _, args := range commands {
		b.do(args...)
	}
}

// endpointOf is the id of a container's endpoint.
func (b *bed) endpointOf(c *lab.Container, network string) string {
	b.t.Helper()
	return b.do("inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").EndpointID}}`, c.Name)
}

func (b *bed) idOf(network string) string {
	b.t.Helper()
	return b.do("network", "inspect", "-f", "{{.Id}}", network)
}

// theirs creates a network of Docker's own driver with addresses of ours, and returns its pool.
func (b *bed) theirs(name, subnet string) (pool string) {
	b.t.Helper()
	b.do("network", "create", "-d", "bridge", "--ipam-driver", "drawbridge", "--subnet", subnet, name)
	return "pool drawbridge/" + subnet
}

// TestCollected: what is removed while the daemon is away goes after the grace period, and nothing else.
func TestCollected(t *testing.T) {
	b := up(t, options{serve: []string{"--gc-grace", "1h"}})
	b.outside()
	b.network("web", "--ipv6")
	b.network("gone", "--ipv6", "--subnet", "10.46.0.0/24")
	b.theirs("theirs", "10.47.0.0/24")
	lostPool := b.theirs("theirs-gone", "10.48.0.0/24")
	alive := b.serveOn("web", "-p", "8081:80")
	dead := b.serveOn("web", "-p", "8080:80")
	far := b.serveOn("gone", "-p", "8082:80")
	cut := b.endpointOf(b.serveOn("web"), "web")
	want := []string{"endpoint " + b.endpointOf(dead, "web"), "endpoint " + b.endpointOf(far, "gone"), "network " + b.idOf("gone"), lostPool}
	slices.Sort(want)
	bridge := b.bridge("gone")
	if found := b.gc("--dry-run"); len(found) > 0 {
		t.Errorf("before: %+v", found)
	}

	b.without([]string{"rm", "-f", dead.Name, far.Name}, []string{"network", "rm", "gone", "theirs-gone"})
	b.run("ip", "link", "del", "veth"+cut[:11]) // in no container any more, but the engine knows it
	b.startPlugin()
	first := b.gc("--dry-run")
	if got := names(first); !slices.Equal(got, want) {
		t.Errorf("forgotten: %v, want %v", got, want)
	}
	again := b.gc("--dry-run")
	if !slices.Equal(again, first) {
		t.Errorf("the second look shows\n%+v, the first\n%+v", again, first)
	}
	for _, o := range first {
		if !o.Seen || o.Removed || time.Since(o.Since) > time.Minute {
			t.Errorf("%+v", o)
		}
	}

	if err := b.plugin.Kill(); err != nil {
		t.Fatal(err)
	}
	b.serve = []string{"--gc-grace", "2s"}
	b.startPlugin()
	b.eventually("nothing is left", func() bool { return len(b.gc("--dry-run")) == 0 })
	if ports := b.ports(); len(ports) != 2 || ports[0].HostPort != 8081 || ports[1].HostPort != 8081 {
		t.Errorf("ports: %+v", ports)
	}
	b.eventually("the bridge is gone", func() bool {
		links, err := b.Links(t.Context())
		_, there := links[bridge]
		return err == nil && !there
	})
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8081))
	lab.Reaches(t, alive, "tcp", at(b.client.Addr4(), 80))
	b.network("gone", "--ipv6", "--subnet", "10.46.0.0/24") // everything is free
	b.theirs("theirs-gone", "10.48.0.0/24")
	b.serveOn("gone", "-p", "8080:80", "-p", "8082:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8082))
	b.serveOn("theirs")
	if found := b.gc("--dry-run"); len(found) > 0 {
		t.Errorf("afterwards: %+v", found)
	}
}

// TestCollectedByHand: without an engine to ask everything is kept and it is said; what an engine knew that lost its data is for the
// command alone. A network that was made by a daemon which was killed at once is not: Docker may never have heard of it.
func TestCollectedByHand(t *testing.T) {
	b := up(t, options{serve: []string{"--gc-grace", "1s", "--engine-socket", "/run/nowhere.sock"}})
	b.network("web")
	b.network("gone")
	alive := b.serveOn("web", "-p", "8081:80")
	gone := b.idOf("gone")
	b.without([]string{"network", "rm", "gone"})
	b.startPlugin()
	unasked := func(what string) {
		t.Helper()
		for _, args := range [][]string{{"gc"}, {"gc", "--dry-run"}, {"gc", "--dry-run", "--json"}} {
			if _, err := b.Run(t.Context(), binary(t), args...); exitCode(err) != 1 || !strings.Contains(err.Error(), what) {
				t.Errorf("%v without an engine: %v", args, err)
			}
		}
	}
	unasked("the engine at /run/nowhere.sock cannot be asked")
	b.eventually("status says so", func() bool { return strings.Contains(b.run(binary(t), "status"), "/run/nowhere.sock") })

	b.restart("--gc-grace", "1h")
	if found := b.gc("--dry-run"); len(found) != 1 || found[0].Seen || !found[0].Unanswered {
		t.Errorf("forgotten: %+v", found)
	}
	text := b.run(binary(t), "gc")
	for _, word := range []string{"network " + gone[:12], "no engine lists it", "since 20", ": removed"} {
		if !strings.Contains(text, word) {
			t.Errorf("gc does not say %q: %s", word, text)
		}
	}
	if found := b.gc(); len(found) > 0 {
		t.Errorf("afterwards: %+v", found)
	}

	root := b.do("info", "-f", "{{.DockerRootDir}}")
	b.do("rm", "-f", alive.Name)
	if err := b.docker.Stop(); err != nil {
		t.Fatal(err)
	}
	b.eventually("status says that the engine is away", func() bool { return strings.Contains(b.run(binary(t), "status"), "/run/docker.sock cannot be asked") })
	unasked("/run/docker.sock")
	b.run("rm", "-rf", root+"/network")
	if err := b.docker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.eventually("status says that the engine is strange", func() bool { return strings.Contains(b.run(binary(t), "status"), "know none of the 1 networks") })
	b.eventually("the grace period is over again", func() bool {
		found := b.gc("--dry-run")
		return len(found) == 1 && found[0].Seen && time.Since(found[0].Since) > 4*time.Second
	})
	if found := b.gc(); len(found) != 1 || !found[0].Removed {
		t.Errorf("by hand: %+v", found)
	}
	b.nothingLeft()

	b.restart("--engine-socket", "off")
	b.network("web")
	unasked("--engine-socket=off")
}

// restart starts the daemon again with other arguments.
func (b *bed) restart(args ...string) {
	b.t.Helper()
	if err := b.plugin.Stop(); err != nil {
		b.t.Fatal(err)
	}
	b.serve = args
	b.startPlugin()
}

// TestCollectedKilled: a daemon that is killed in the middle of what it collects leaves nothing that the next collection does not find, and takes nothing
// that lives.
func TestCollectedKilled(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--ipv6")
	alive := b.serveOn("web", "-p", "8081:80")
	for round := range 2 {
		var commands [][]string
		remove, forget := []string{"rm", "-f"}, []string{"network", "rm"}
		bridges := map[string]bool{}
		for i := range 6 {
			name := fmt.Sprintf("gone%d%d", round, i)
			b.network(name)
			bridges[b.bridge(name)] = true
			remove, forget = append(remove, b.serveOn(name, "-p", "80").Name), append(forget, name)
		}
		b.gc("--dry-run") // the engine is seen to know them
		commands = append(commands, remove, forget)
		b.without(commands...)
		b.startPlugin()

		collection := b.Command(t.Context(), binary(t), "gc")
		if err := collection.Start(); err != nil {
			t.Fatal(err)
		}
		b.eventually("something is collected", func() bool { return b.present(bridges) < len(bridges) })
		if err := b.plugin.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := collection.Wait(); err == nil {
			t.Log("the command had its answer first; bridges go later")
		}
		b.startPlugin()
		t.Logf("killed when %d of %d bridges were there", b.present(bridges), len(bridges))
		b.gc()
		b.eventually("nothing is left", func() bool { return b.present(bridges) == 0 })
		if left := b.gc("--dry-run"); len(left) > 0 {
			t.Errorf("left: %+v", left)
		}
		b.run(binary(t), "verify")
		same(t, lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8081)).Peer.Addr(), b.client.Addr4())
		lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8081))
	}
	if ports := b.ports(); len(ports) != 2 || ports[0].Endpoint != b.endpointOf(alive, "web") {
		t.Errorf("ports: %+v", ports)
	}
}

// present is how many of some links are there.
func (b *bed) present(names map[string]bool) (n int) {
	b.t.Helper()
	links, err := b.Links(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for name := range names {
		if _, there := links[name]; there {
			n++
		}
	}
	return n
}
