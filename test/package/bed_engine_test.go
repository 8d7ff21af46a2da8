//go:build engine

package debian

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// program is where the package puts it.
const program = "/usr/sbin/drawbridge"

// bed is a host on which packages are installed.
type bed struct {
	*lab.Host
	t      *testing.T
	client *lab.Client // an outside machine
	docker *lab.Docker
	daemon *lab.Process
}

func up(t *testing.T, o lab.Options) *bed {
	t.Helper()
	o.Share = []string{built}
	b := &bed{Host: lab.Up(t, o), t: t}
	var err error
	if b.client, err = b.AddClient(t.Context(), "client", lab.ClientOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a command on the host that must succeed.
func (b *bed) run(argv ...string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), argv[0], argv[1:]...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// dpkg runs dpkg and returns all that it and the package's scripts said.
func (b *bed) dpkg(args ...string) string {
	b.t.Helper()
	out, err := b.Command(b.t.Context(), "dpkg", args...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// types has a shell run what the documentation tells a user to type, beside the folder dist, and answers questions with yes.
func (b *bed) types(line string) {
	b.t.Helper()
	cmd := b.Command(b.t.Context(), "env", "-C", "/root", "sh", "-c", line)
	cmd.Stdin = strings.NewReader("y\n")
	out, err := cmd.CombinedOutput()
	if b.t.Logf("typed: %s\n%s", line, out); err != nil {
		b.t.Fatal(err)
	}
}

// start does what systemd would: it starts the daemon and waits until it answers.
func (b *bed) start() {
	b.t.Helper()
	var err error
	if b.daemon, err = b.Start("drawbridge", []string{program, "serve"}, nil); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("the daemon answers", func() bool {
		_, err := b.Run(b.t.Context(), program, "status")
		return err == nil
	})
}

func (b *bed) stop() {
	b.t.Helper()
	if err := b.daemon.Stop(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) eventually(what string, holds func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// do runs a docker command that must succeed.
func (b *bed) do(args ...string) string {
	b.t.Helper()
	return b.docker.Do(b.t, args...)
}

// published are what clients ask for: a port that the kernel translates, and one that the relay serves.
var published = map[string]string{"dnat": "8080", "host": "8081"}

// serve starts the engine where none runs, and a container for each way in on a network of its own.
func (b *bed) serve() {
	b.t.Helper()
	if b.docker == nil {
		var err error
		if b.docker, err = b.StartDocker(b.t.Context(), lab.DockerOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
	for mode, port := range published {
		b.do("network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "-o", "drawbridge.publish="+mode, "web-"+mode)
		options := []string{"--network", "web-" + mode, "--name", "on-" + mode, "-p", port + ":80"}
		if _, err := b.docker.Serve(b.t.Context(), options, "tcp", ":80"); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bed) addr(mode string) string {
	return fmt.Sprintf("%s:%s", b.client.Host.Addr4(), published[mode])
}

// reaches checks that a new connection gets to each container.
func (b *bed) reaches() {
	b.t.Helper()
	for mode := range published {
		lab.Reaches(b.t, b.client, "tcp", b.addr(mode))
	}
}

// hold opens a connection by each way, that stays.
func (b *bed) hold() map[string]*outage.Stream {
	b.t.Helper()
	streams := map[string]*outage.Stream{}
	for mode := range published {
		s, err := outage.Open(b.t.Context(), b.client, b.addr(mode))
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(s.Close)
		streams[mode] = s
	}
	return streams
}

func goOn(t *testing.T, when string, streams map[string]*outage.Stream) {
	t.Helper()
	for mode, s := range streams {
		if err := s.GoesOn(10 * time.Second); err != nil {
			t.Errorf("%s, the connection by %s: %v", when, mode, err)
		}
	}
}

// tree is what files there are, where packages have some. Links show where they lead.
func (b *bed) tree() []string {
	b.t.Helper()
	out := b.run("find", "/etc", "/usr", "/var/lib", "/run", "(", "-path", "/var/lib/dpkg", "-o", "-path", "/var/lib/docker",
		"-o", "-path", "/var/lib/containerd", "-o", "-path", "/etc/docker", "-o", "-path", "/var/lib/apt", "-o", "-path", "/var/lib/PackageKit",
		"-o", "-path", "/run/systemd", "-o", "-path", "/run/xtables.lock", "-o", "-path", "/run/docker", "-o", "-path", "/run/containerd", ")", "-prune", "-o", "-printf", "%p %l\n")
	lines := strings.Split(out, "\n")
	slices.Sort(lines)
	return lines
}

// added are those of now that were not there before.
func added(before, now []string) []string {
	var out []string
	for _, line := range now {
		if _, found := slices.BinarySearch(before, line); !found {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
