//go:build engine

package systemd

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// Units and paths as installed.
const (
	program = "/usr/local/sbin/drawbridge"
	daemon  = "drawbridge.service"
	relay   = "drawbridge-relay.service"
	units   = "/etc/systemd/system/"
)

// all are the units, sockets first.
var all = []string{"drawbridge.socket", daemon, "drawbridge-relay.socket", relay}

// bed is a lab with systemd, on which nothing is installed yet.
type bed struct {
	*lab.Host
	t      *testing.T
	docker *lab.Docker
	client *lab.Client
	dest   string // what make install has made
	next   string // another version of the program
}

// onEach runs a test on the machine's own Debian, with its systemd and engine (252 and 20.10 on Debian 12), and on Debian 13.
func onEach(t *testing.T, test func(t *testing.T, root string)) {
	t.Parallel()
	for _, root := range []string{lab.Own, lab.Trixie} {
		t.Run(root, func(t *testing.T) { test(t, root) })
	}
}

func up(t *testing.T, o lab.Options) *bed {
	t.Helper()
	t.Parallel()
	o.Systemd = true
	dest := installed(t, repository(t), "BIN="+binary(t))
	next := otherVersion(t)
	o.Share = append(o.Share, dest, next, uninstall(t))
	b := &bed{Host: lab.Up(t, o), t: t, dest: dest, next: next}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.Journal(context.Background(), 150, daemon, relay, "drawbridge.socket", "drawbridge-relay.socket"))
		}
	})
	var err error
	if b.docker, err = b.Engine(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.client, err = b.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// repository is the project's folder.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func uninstall(t *testing.T) string { return filepath.Join(repository(t), "packaging/uninstall.sh") }

// binary is the program under test.
func binary(t *testing.T) string {
	t.Helper()
	return environ.Program(t, "test-engine")
}

// installed is what make install makes of a tree of the project, below a folder of its own.
func installed(t *testing.T, tree string, settings ...string) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "dest")
	args := append([]string{"-C", tree, "install", "DESTDIR=" + dest}, settings...)
	if out, err := exec.Command("make", args...).CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	return dest
}

// otherVersion builds the program as of another release.
func otherVersion(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drawbridge")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-X github.com/drawbridge-net/drawbridge/internal/version.Number=99.0.0", "-o", path, "./cmd/drawbridge")
	cmd.Dir, cmd.Env = repository(t), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building another version: %v\n%s", err, out)
	}
	return path
}

// install copies what make install has made onto the host.
func (b *bed) install() {
	b.t.Helper()
	b.copyOnto(b.dest)
}

// copyOnto copies what make install has made of some tree onto the host.
func (b *bed) copyOnto(dest string) {
	b.t.Helper()
	b.run("cp", "-a", "--remove-destination", dest+"/.", "/")
	b.run("systemctl", "daemon-reload")
}

// run runs a command on the host that must succeed.
func (b *bed) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), name, args...)
	if err != nil {
		b.t.Fatal(err, out)
	}
	return strings.TrimSpace(out)
}

// fails runs a command on the host that must fail, and returns what it says.
func (b *bed) fails(name string, args ...string) string {
	b.t.Helper()
	out, err := b.Command(b.t.Context(), name, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		b.t.Fatalf("%s %s succeeds, or cannot be run: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// do runs a docker command that must succeed.
func (b *bed) do(args ...string) string {
	b.t.Helper()
	return b.docker.Do(b.t, args...)
}

func (b *bed) network(name string, args ...string) {
	b.t.Helper()
	b.do(append(append([]string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge"}, args...), name)...)
}

func (b *bed) serve(network string, args ...string) *lab.Container {
	b.t.Helper()
	c, err := b.docker.Serve(b.t.Context(), append([]string{"--network", network}, args...), "tcp", ":80")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// property is one of a unit's.
func (b *bed) property(unit, name string) string {
	b.t.Helper()
	return b.run("systemctl", "show", "--value", "--property="+name, unit)
}

// setting adds to a unit what an administrator would (systemctl edit), and has systemd read it.
func (b *bed) setting(unit, name, text string) {
	b.t.Helper()
	b.write(units+unit+".d/"+name+".conf", "[Service]\n"+text+"\n")
	b.run("systemctl", "daemon-reload")
}

func (b *bed) write(path, text string) {
	b.t.Helper()
	b.run("mkdir", "-p", filepath.Dir(path))
	if err := os.WriteFile(b.Path(path), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// step is a part of a test that takes its time.
func (b *bed) step(name string, do func()) {
	b.t.Helper()
	began := time.Now()
	do()
	b.t.Logf("step %s: %v", name, time.Since(began).Round(10*time.Millisecond))
}

// eventually waits for something that another process brings about.
func (b *bed) eventually(what string, holds func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in 20 s: %s\n%s", what, b.Journal(b.t.Context(), 50, daemon, relay))
		}
	}
}

func at(addr netip.Addr, port int) string { return netip.AddrPortFrom(addr, uint16(port)).String() }
