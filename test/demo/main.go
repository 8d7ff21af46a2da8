// Demo shows Drawbridge at work: a throw-away host in namespaces, with a real dockerd and firewalld, a network, a
// published port, and a client outside. It narrates each step and leaves nothing behind.
//
// It needs root and the packages that test/install.sh installs; `make demo` does both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
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
	if err := run(ctx, *plugin); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\nThat was it, in %.1f seconds. On a real host: make install, and see README.md.\n", time.Since(began).Seconds())
}

// stage is the host with what the demo shows on it.
type stage struct {
	*lab.Host
	plugin  string // path of the program
	daemon  *lab.Process
	docker  *lab.Docker
	visitor *lab.Client
}

func run(ctx context.Context, plugin string) (err error) {
	say("A throw-away host: network, mount and process namespaces of its own. Nothing below touches this machine.")
	host, err := lab.New(ctx, lab.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	s := &stage{Host: host, plugin: plugin}
	for _, act := range []func(context.Context) error{s.prepare, s.create, s.visit, s.look, s.refuse, s.takeAway} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) prepare(ctx context.Context) error {
	say("A client outside, on the host's uplink ext0; firewalld; the plugin; dockerd.")
	var err error
	if s.visitor, err = s.AddClient(ctx, "visitor", lab.ClientOptions{}); err != nil {
		return err
	}
	if _, err := s.StartDBus(ctx); err != nil {
		return err
	}
	if _, err := s.StartFirewalld(ctx); err != nil {
		return err
	}
	if s.daemon, err = s.Start("drawbridge", []string{s.plugin, "serve"}, nil); err != nil {
		return err
	}
	s.docker, err = s.StartDocker(ctx, lab.DockerOptions{})
	return err
}

func (s *stage) create(ctx context.Context) error {
	say("A network, IPv4 and IPv6, and a web server in a container with a published port.")
	if err := s.show(ctx, "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6", "web"); err != nil {
		return err
	}
	image, err := s.docker.Image(ctx)
	if err != nil {
		return err
	}
	page := "echo 'Hello from behind the drawbridge.' > /tmp/index.html && exec /bin/busybox httpd -f -p 80 -h /tmp"
	return s.show(ctx, "run", "-d", "--name", "site", "--network", "web", "-p", "8080:80", image, "/bin/busybox", "sh", "-c", page)
}

func (s *stage) visit(ctx context.Context) error {
	say("The client fetches the page from the host's address, in both families, and so does the host itself.")
	page := "http://%s/index.html"
	for _, a := range []netip.Addr{s.visitor.Host.Addr4(), s.visitor.Host.Addr6()} {
		if err := fetch(ctx, s.visitor, "visitor", fmt.Sprintf(page, netip.AddrPortFrom(a, 8080))); err != nil {
			return err
		}
	}
	return fetch(ctx, s.Host, "host", fmt.Sprintf(page, "127.0.0.1:8080"))
}

func (s *stage) look(ctx context.Context) error {
	say("What is published, says drawbridge, since docker cannot show it for a plugin:")
	if err := s.tell(ctx, s.plugin, "ports"); err != nil {
		return err
	}
	say("The rules. A packet meets few of them, however many networks and ports there are: what varies are elements of sets, and a tree of ports:")
	if err := s.tell(ctx, s.plugin, "rules"); err != nil {
		return err
	}
	say("firewalld has the bridge in its zone docker:")
	return s.tell(ctx, "firewall-cmd", "--zone=docker", "--list-interfaces")
}

func (s *stage) refuse(ctx context.Context) error {
	say("What is not published is closed: another port, and the container's own address.")
	addrs, err := s.docker.Container("site").Addrs(ctx, "web")
	if err != nil {
		return err
	}
	for _, target := range []netip.AddrPort{
		netip.AddrPortFrom(s.visitor.Host.Addr4(), 8081), netip.AddrPortFrom(addrs[0], 80), netip.AddrPortFrom(addrs[1], 80),
	} {
		_, err := lab.Get(ctx, s.visitor, lab.Request{Network: "tcp", Addr: target.String(), Timeout: time.Second})
		if err == nil {
			return fmt.Errorf("%v answers, and should not", target)
		}
		fmt.Printf("  visitor# connect %v: %s\n", target, verdict(err))
	}
	return nil
}

func (s *stage) takeAway(ctx context.Context) error {
	say("Everything is taken away again: the container, the network, and with purge the last traces of the plugin.")
	if err := s.show(ctx, "rm", "-f", "site"); err != nil {
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
	fmt.Printf("  rules and chains of drawbridge left: %d\n", left)
	if left > 0 {
		return errors.New("rules are left behind")
	}
	return nil
}

func say(line string) { fmt.Printf("\n== %s\n", line) }

// show runs a docker command and prints both.
func (s *stage) show(ctx context.Context, args ...string) error {
	fmt.Printf("  host# docker %s\n", strings.Join(args, " "))
	out, err := s.docker.Run(ctx, args...)
	indent(out)
	return err
}

// tell runs a command on the host and prints both.
func (s *stage) tell(ctx context.Context, name string, args ...string) error {
	fmt.Printf("  host# %s %s\n", name[strings.LastIndexByte(name, '/')+1:], strings.Join(args, " "))
	out, err := s.Run(ctx, name, args...)
	indent(out)
	return err
}

func fetch(ctx context.Context, from lab.Place, who, url string) error {
	fmt.Printf("  %s# curl -s %s\n", who, url)
	out, err := from.Command(ctx, "curl", "-sS", "--max-time", "5", url).CombinedOutput()
	indent(string(out))
	if err != nil {
		return fmt.Errorf("fetching %s: %w", url, err)
	}
	return nil
}

// indent prints a command's output.
func indent(out string) {
	for line := range strings.Lines(out) {
		fmt.Print("  ", strings.TrimRight(line, "\n"), "\n")
	}
}

// verdict is what became of a connection, in a word.
func verdict(err error) string {
	for _, known := range []error{lab.ErrRefused, lab.ErrUnreachable, lab.ErrTimeout, lab.ErrClosed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return err.Error()
}
