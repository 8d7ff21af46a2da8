//go:build engine

package managed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/docs"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// registry is that of the documentation, which listens on the host itself in the lab, and repository the plugin's name there, without a tag.
const (
	registry        = "registry.example.com"
	repository      = registry + "/drawbridge"
	registryAddr    = "127.0.0.1:80"
	registryProgram = "/usr/bin/docker-registry"
)

// startRegistry starts one that keeps what it is given in the lab.
func (b *bed) startRegistry() {
	b.t.Helper()
	if err := os.WriteFile(b.Path("/etc/hosts"), []byte("127.0.0.1 localhost "+registry+"\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	config := filepath.Join(b.Dir(), "registry.yml")
	text := fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", filepath.Join(b.Dir(), "registry"), registryAddr)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Start("registry", []string{registryProgram, "serve", config}, nil); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("the registry answers", func() bool {
		_, err := lab.Get(b.t.Context(), b.Host, lab.Request{Network: "tcp", Addr: registryAddr, Timeout: time.Second})
		return err == nil || !strings.Contains(err.Error(), "refused") // it has no answer for who says nothing
	})
}

// next makes the plugin of another version: it has another description, a setting more, and a file that the first lacks.
func (b *bed) next() string {
	b.t.Helper()
	dir := filepath.Join(b.Dir(), "next")
	b.run("cp", "-a", built(b.t), dir)
	b.run("touch", filepath.Join(dir, "rootfs", "next"))
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		b.t.Fatal(err)
	}
	for from, to := range map[string]string{`"description": "Drawbridge: `: `"description": "The next Drawbridge: `, `"env": [`: `"env": [{"name": "DRAWBRIDGE_NEXT", "settable": ["value"]},`} {
		if text = bytes.Replace(text, []byte(from), []byte(to), 1); !bytes.Contains(text, []byte(to)) {
			b.t.Fatalf("config.json has no %s", from)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// asks runs a docker command that asks for permission, answers, and returns what it printed.
func (b *bed) asks(answer string, args ...string) string {
	b.t.Helper()
	cmd := b.docker.Command(b.t.Context(), args...)
	cmd.Stdin = strings.NewReader(answer + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil && answer == "y" {
		b.t.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// documented are the privileges that the documentation shows, line by line.
func documented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/managed-plugin.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ - (network|mount|capabilities): \[.*\]\n`).FindAllString(string(text), -1)
	if len(lines) < 3 {
		t.Fatalf("the documentation shows %q", lines)
	}
	return strings.Join(lines, "")
}

// TestRegistry types docs/managed-plugin.md: a plugin is made, pushed, installed by a name of the user's choice, for the privileges that the documentation
// shows, upgraded under containers that run, and removed. Its networks, ports, addresses and settings stay over the upgrade.
func TestRegistry(t *testing.T) {
	b := up(t, options{
		lab:    lab.Options{Share: []string{registryProgram}},
		docker: []string{"--insecure-registry", registry},
		before: func(h *lab.Host) { preset(t, h) },
	})
	const document = "docs/managed-plugin.md"
	script := docs.Left(t, "test/managed.TestRegistry")
	install := script.Under(document, "Install it") // from a registry; from the sources; to publish it
	b.startRegistry()
	b.types(install[1]...)
	b.remove()
	b.types(script.Under("README.md", "Install it")[0]...)
	b.do("network", "rm", "web")
	b.remove()
	b.types(install[2]...)
	b.do("plugin", "rm", repository+":1.0")
	b.do("plugin", "create", repository+":1.1", b.next())
	b.do("plugin", "push", repository+":1.1")
	b.do("plugin", "rm", repository+":1.1")

	asked := script.Under(document, "What it may do")[0][0]
	if out := b.asks("n", strings.Fields(asked)[1:]...); !strings.Contains(out, documented(t)) {
		t.Errorf("the engine asks for other privileges than the documentation shows:\n%s\ndocumented:\n%s", out, documented(t))
	}
	if out := b.do("plugin", "ls", "-q"); out != "" {
		t.Errorf("it is installed without permission: %s", out)
	}
	b.types(install[0]...)
	b.do("network", "rm", "web")
	b.remove()
	b.types(script.Under(document, "Settings")[0]...)
	b.isSet("DRAWBRIDGE_PUBLISH=host", "DRAWBRIDGE_LOG_LEVEL=debug", "DRAWBRIDGE_DEFAULT_ADDRESS_POOL=base=10.10.0.0/16,size=24 base=fd00:10::/48,size=64")
	b.do("plugin", "disable", name)
	b.do("plugin", "set", name, "DRAWBRIDGE_FIREWALL_BACKEND="+backend(), "DRAWBRIDGE_PUBLISH=dnat", "DRAWBRIDGE_MTU=1380")
	b.do("plugin", "enable", name)
	b.healthy()
	b.upgraded(script.Under(document, "Upgrade")[0])
	look := script.Under(document, "Look at it")[0]
	if out := b.types(look...); !strings.Contains(out, "0.0.0.0:8080/tcp") {
		t.Errorf("drawbridge ports says %s", out)
	}
	b.run(b.program(), "verify")
	b.do("rm", "-f", "web")
	b.do("network", "rm", "later")
	b.types(append(look, script.Under(document, "Remove it")[0]...)...)
	b.nothingLeft()
	if out := b.do("plugin", "ls", "-q"); out != "" {
		t.Errorf("plugins are left: %s", out)
	}
}

// remove forgets the plugin.
func (b *bed) remove() {
	b.t.Helper()
	b.do("plugin", "disable", name)
	b.do("plugin", "rm", name)
}

// isSet checks the plugin's variables.
func (b *bed) isSet(settings ...string) {
	b.t.Helper()
	env := b.do("plugin", "inspect", "-f", "{{range .Settings.Env}}{{println .}}{{end}}", name)
	for _, setting := range settings {
		if !strings.Contains(env, setting+"\n") {
			b.t.Errorf("%s is not in\n%s", setting, env)
		}
	}
}

// upgraded upgrades the plugin under a container that runs, by lines of which the first turns it off and the last on.
func (b *bed) upgraded(lines []string) {
	t := b.t
	t.Helper()
	b.network("web", "--ipv6")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80")
	v4, v6 := b.addrs(web, "web")
	works := func() {
		t.Helper()
		lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
		lab.Eventually(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
		lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80))
	}
	works()
	home := b.home()
	b.types(lines[0])
	works() // as the kernel does it
	if out := b.types(lines[1]); !strings.Contains(out, "Upgraded plugin") {
		t.Errorf("the upgrade says %q", out)
	}
	b.do("plugin", "set", name, "DRAWBRIDGE_NEXT=1") // which the first had not
	b.types(lines[2:]...)
	b.healthy()
	if _, err := b.Run(t.Context(), "test", "-e", filepath.Join(b.home(), "rootfs/next")); err != nil || b.home() != home {
		t.Errorf("the plugin at %s is not the next one: %v", b.home(), err)
	}
	works()
	if now4, now6 := b.addrs(web, "web"); now4 != v4 || now6 != v6 {
		t.Errorf("addresses are %s and %s, were %s and %s", now4, now6, v4, v6)
	}
	if status := b.status(); status["networks"] != 1.0 || status["endpoints"] != 1.0 || status["ports"] != 2.0 {
		t.Errorf("after the upgrade: %v", status)
	}
	b.network("later") // by the settings of before
	if out := b.run("cat", "/sys/class/net/"+b.bridge("later")+"/mtu"); out != "1380\n" {
		t.Errorf("the MTU is %s", out)
	}
}

// TestAlias: by another name, with another tag, all is as by the first.
func TestAlias(t *testing.T) {
	b := up(t, options{before: func(h *lab.Host) { preset(t, h) }})
	const alias = "example/nets:v7"
	b.do("plugin", "create", alias, built(t))
	b.do("plugin", "set", alias, "DRAWBRIDGE_FIREWALL_BACKEND="+backend(), "DRAWBRIDGE_GC_GRACE=1s")
	b.do("plugin", "enable", alias)
	b.do("network", "create", "-d", alias, "--ipam-driver", alias, "web")
	web := b.serveOn("web", "--name", "web", "-p", "8080:80")
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	program := filepath.Join(b.do("info", "-f", "{{.DockerRootDir}}"), "plugins", b.do("plugin", "inspect", "-f", "{{.Id}}", alias), "rootfs/usr/sbin/drawbridge")
	if out := b.run(program, "gc", "--dry-run"); !strings.Contains(out, "nothing") {
		t.Errorf("Docker has forgotten %s", out)
	}
	// What is asked by id is known, and nothing of it goes by itself.
	lab.Reaches(t, web, "tcp", at(b.client.Addr4(), 80))
	b.do("rm", "-f", "web")
	b.do("network", "rm", "web")
	b.nothingLeft()
	b.do("plugin", "disable", alias)
	b.do("plugin", "rm", alias)
}
