// Demo shows Drawbridge at work: a throw-away host in namespaces, with a real dockerd and ufw, a published port, and a client outside,
// whom ufw lets in or keeps out. It narrates each step and leaves nothing behind.
//
// It needs root and the packages that test/install.sh installs; `make demo` does both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

func main() {
	plugin := flag.String("plugin", "bin/drawbridge", "the built program")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	if err := run(ctx, *plugin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThat was it, in %.1f seconds. On a real host: make install, and see README.md.\n", time.Since(began).Seconds())
}

// stage is the host with what the demo shows on it.
type stage struct {
	*lab.Host
	out     io.Writer
	plugin  string // path of the program
	daemon  *lab.Process
	docker  *lab.Docker
	visitor *lab.Client
}

// The containers' ports on the host: one by Drawbridge, one on Docker's own bridge.
const (
	ours   = 8080
	theirs = 9090
)

func run(ctx context.Context, plugin string, out io.Writer) (err error) {
	s := &stage{out: out, plugin: plugin}
	s.say("A throw-away host: network, mount and process namespaces of its own. Nothing below touches this machine.")
	if s.Host, err = lab.New(ctx, lab.Options{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, act := range []func(context.Context) error{s.prepare, s.create, s.past, s.closed, s.open, s.closedAgain, s.look, s.refuse, s.takeAway} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) prepare(ctx context.Context) error {
	s.say("A client outside, on the host's uplink ext0; ufw, which denies what nobody has allowed; the plugin; dockerd.")
	var err error
	if s.visitor, err = s.AddClient(ctx, "visitor", lab.ClientOptions{}); err != nil {
		return err
	}
	if err := s.StartUFW(ctx); err != nil {
		return err
	}
	if err := s.tell(ctx, "ufw", "status", "verbose"); err != nil {
		return err
	}
	if s.daemon, err = s.Start("drawbridge", []string{s.plugin, "serve"}, nil); err != nil {
		return err
	}
	s.docker, err = s.StartDocker(ctx, lab.DockerOptions{})
	return err
}

func (s *stage) create(ctx context.Context) error {
	s.say("A web server that says whom it sees, on a network of Drawbridge, and the same on Docker's own bridge.")
	www, err := s.page()
	if err != nil {
		return err
	}
	image, err := s.docker.Image(ctx)
	if err != nil {
		return err
	}
	if err := s.show(ctx, "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6", "web"); err != nil {
		return err
	}
	for _, c := range []struct {
		name, network string
		port          uint16
	}{{"site", "web", ours}, {"other", "bridge", theirs}} {
		err := s.show(ctx, "run", "-d", "--name", c.name, "--network", c.network, "-p", fmt.Sprintf("%d:80", c.port),
			"-v", www+":/www", image, "httpd", "-f", "-p", "80", "-h", "/www")
		if err != nil {
			return err
		}
		if err := s.serves(ctx, c.name); err != nil {
			return err
		}
	}
	return nil
}

// serves waits until the web server in a container listens: docker says that the container runs before that.
func (s *stage) serves(ctx context.Context, container string) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := s.docker.Container(container).Run(ctx, "/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/cgi-bin/hello")
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// page makes the directory that the web servers serve.
func (s *stage) page() (string, error) {
	www := filepath.Join(s.Dir(), "www")
	if err := os.MkdirAll(filepath.Join(www, "cgi-bin"), 0o755); err != nil {
		return "", err
	}
	const script = `#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REMOTE_ADDR" | sed 's/^\[//; s/^::ffff://; s/\]$//; s/.*/Hello, &./'
`
	return www, os.WriteFile(filepath.Join(www, "cgi-bin", "hello"), []byte(script), 0o755)
}

// addrs are the host's, as the visitor knows them.
func (s *stage) addrs() []netip.Addr {
	return []netip.Addr{s.visitor.Host.Addr4(), s.visitor.Host.Addr6()}
}

func (s *stage) past(ctx context.Context) error {
	s.say("Docker's own bridge: ufw has allowed nothing, and the client is served all the same.")
	return s.visit(ctx, netip.AddrPortFrom(s.visitor.Host.Addr4(), theirs))
}

func (s *stage) closed(ctx context.Context) error {
	s.say("Drawbridge: ufw has allowed nothing, so the client gets nothing. The host itself does.")
	if err := s.keptOut(ctx); err != nil {
		return err
	}
	_, err := s.fetch(ctx, s.Host, "host", netip.MustParseAddrPort("127.0.0.1:8080"))
	return err
}

func (s *stage) open(ctx context.Context) error {
	s.say("ufw allows the port, and the client is served, in both families. The container sees the client's own address.")
	if err := s.tell(ctx, "ufw", "allow", fmt.Sprintf("%d/tcp", ours)); err != nil {
		return err
	}
	for _, a := range s.addrs() {
		if err := s.visit(ctx, netip.AddrPortFrom(a, ours)); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) closedAgain(ctx context.Context) error {
	s.say("ufw takes the permission back, and the port is closed.")
	if err := s.tell(ctx, "ufw", "delete", "allow", fmt.Sprintf("%d/tcp", ours)); err != nil {
		return err
	}
	return s.keptOut(ctx)
}

func (s *stage) look(ctx context.Context) error {
	s.say("What is published, how clients come to it and why, says drawbridge:")
	return s.tell(ctx, s.plugin, "ports")
}

func (s *stage) refuse(ctx context.Context) error {
	s.say("Whatever ufw says, nobody outside comes to the container's own address.")
	addrs, err := s.docker.Container("site").Addrs(ctx, "web")
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := s.turnedAway(ctx, netip.AddrPortFrom(a, 80)); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) takeAway(ctx context.Context) error {
	s.say("Everything is taken away again: the containers, the network, and with purge the last traces of the plugin.")
	if err := s.show(ctx, "rm", "-f", "site", "other"); err != nil {
		return err
	}
	if err := s.show(ctx, "network", "rm", "web"); err != nil {
		return err
	}
	if err := s.daemon.Stop(); err != nil {
		return err
	}
	if err := s.tell(ctx, s.plugin, "purge"); err != nil {
		return err
	}
	rules, err := s.Rules(ctx)
	if err != nil {
		return err
	}
	left := strings.Count(strings.ToLower(rules), "drawbridge")
	s.printf("  rules and chains of drawbridge left: %d\n", left)
	if left > 0 {
		return errors.New("rules are left behind")
	}
	return nil
}

// visit has the visitor fetch the page, which must greet him by his own address.
func (s *stage) visit(ctx context.Context, to netip.AddrPort) error {
	own := s.visitor.Addr4()
	if to.Addr().Is6() {
		own = s.visitor.Addr6()
	}
	page, err := s.fetch(ctx, s.visitor, "visitor", to)
	if want := fmt.Sprintf("Hello, %v.", own); err == nil && page != want {
		err = fmt.Errorf("the container says %q, and not %q", page, want)
	}
	return err
}

// keptOut checks that ufw lets the visitor in to our port in neither family.
func (s *stage) keptOut(ctx context.Context) error {
	for _, a := range s.addrs() {
		if err := s.turnedAway(ctx, netip.AddrPortFrom(a, ours)); err != nil {
			return err
		}
	}
	return nil
}

// turnedAway checks that the visitor gets no page, and says what became of his attempt. It tries again for a moment, in
// which the daemon hears of a changed rule and forgets whom the host had let in before.
func (s *stage) turnedAway(ctx context.Context, to netip.AddrPort) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		_, err := s.visitor.Command(ctx, "curl", "-s", "--max-time", "1", pageAt(to)).Output()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			s.printf("  visitor# curl -s %s\n  %s\n", pageAt(to), verdict(exit.ExitCode()))
			return nil
		case err != nil:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%v answers, and should not", to)
		}
	}
}

// verdict says why curl has no page.
func verdict(code int) string {
	switch code {
	case 7:
		return "(refused)"
	case 28:
		return "(no answer)"
	}
	return fmt.Sprintf("(curl ended with %d)", code)
}

func pageAt(a netip.AddrPort) string { return fmt.Sprintf("http://%v/cgi-bin/hello", a) }

// fetch gets the page and prints what it says.
func (s *stage) fetch(ctx context.Context, from lab.Place, who string, to netip.AddrPort) (string, error) {
	s.printf("  %s# curl -s %s\n", who, pageAt(to))
	out, err := from.Command(ctx, "curl", "-sS", "--max-time", "5", pageAt(to)).CombinedOutput()
	s.indent(string(out))
	if err != nil {
		return "", fmt.Errorf("fetching %s: %w", pageAt(to), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// show runs a docker command and prints both.
func (s *stage) show(ctx context.Context, args ...string) error {
	s.printf("  host# docker %s\n", strings.Join(args, " "))
	out, err := s.docker.Run(ctx, args...)
	s.indent(out)
	return err
}

// tell runs a command on the host and prints both.
func (s *stage) tell(ctx context.Context, name string, args ...string) error {
	s.printf("  host# %s %s\n", filepath.Base(name), strings.Join(args, " "))
	out, err := s.Run(ctx, name, args...)
	s.indent(out)
	return err
}

func (s *stage) say(line string) { s.printf("\n== %s\n", line) }

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// indent prints a command's output.
func (s *stage) indent(out string) {
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" {
			s.printf("  %s\n", line)
		}
	}
}
