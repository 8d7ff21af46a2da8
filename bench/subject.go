package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/engine"
	"github.com/drawbridge-net/drawbridge/bench/report"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

const (
	busy       = "busy" // the network on which containers are
	port       = 7000   // of the servers
	pluginsDir = "/run/docker/plugins/"
)

// errRefused is a backend that the program does not have.
var errRefused = errors.New("the program refuses this backend")

// A subject is one of those that are compared, with a host of its own: several would fight over the same
// chains, and what one leaves would be in the others' way.
type subject struct {
	name    string
	self    string // this program
	plugin  string // Drawbridge's
	twin    bool   // whether it is a second host, on which nothing is in the way
	verbose bool   // whether the daemon logs its passes
	host    *lab.Host
	docker  *lab.Docker
	api     *engine.Client
	daemon  *lab.Process // the plugin's; nil for bridge
	visitor *lab.Client
	image   string
	failed  error // why it is out of the scenario
	filled  int   // networks or ports that are there to be in the way
	pids    map[string]int
}

// ours says whether it is Drawbridge.
func (s *subject) ours() bool { return !s.dockers() && !s.bare() }

// dockers says whether it is Docker's own driver.
func (s *subject) dockers() bool { return s.name == report.Bridge || s.name == report.UserProxy }

// choices are what Drawbridge is told of the backend and the mode.
func (s *subject) choices() []string {
	if slices.Contains(modesOfOurs, s.name) {
		return []string{"--firewall-backend", report.NFTables, "--publish", s.name}
	}
	return []string{"--firewall-backend", s.name}
}

// bare says whether it is a floor.
func (s *subject) bare() bool { return slices.Contains(floors, s.name) }

// floors are the subjects whose plugin does nothing.
var floors = []string{report.Floor, report.Direct, report.Plain}

// drivers are the network driver and the IPAM driver.
func (s *subject) drivers() (string, string) {
	switch {
	case s.ours():
		return "drawbridge", "drawbridge"
	case s.bare():
		return "floor", "default"
	}
	return "bridge", "default"
}

// open makes the host with the plugin, the engine, a client outside and the network busy.
func (s *subject) open(ctx context.Context, root string) error {
	var err error
	if s.host, err = lab.New(ctx, lab.Options{Root: root, Share: []string{s.self, s.plugin}}); err != nil {
		return err
	}
	if s.visitor, err = s.host.AddClient(ctx, "visitor", lab.ClientOptions{}); err != nil {
		return err
	}
	if err := s.startPlugin(ctx); err != nil {
		return err
	}
	args := []string{"--default-address-pool", "base=10.0.0.0/9,size=24"}
	if s.bare() && s.name != report.Plain {
		args = append(args, "--iptables=false", "--bridge=none")
	}
	if s.name == report.UserProxy {
		args = append(args, "--iptables=false") // then nothing is translated
	}
	if s.docker, err = s.host.StartDocker(ctx, lab.DockerOptions{Args: args}); err != nil {
		return err
	}
	if s.image, err = s.docker.Image(ctx); err != nil {
		return err
	}
	s.api, s.pids = engine.Dial(s.host.Path("/run/docker.sock")), map[string]int{}
	if err := s.tune(ctx); err != nil {
		return err
	}
	return s.createNetwork(ctx, busy)
}

// tune has closed connections forgotten quickly, and hosts without rules track connections as any host with
// containers does: without a rule that asks for it, the kernel tracks none.
func (s *subject) tune(ctx context.Context) error {
	if s.bare() || s.name == report.UserProxy {
		script := "add table inet bench\n" +
			"add chain inet bench forward { type filter hook forward priority 0; }\n" +
			"add rule inet bench forward ct state established,related accept\n"
		if _, err := s.host.Run(ctx, "nft", script); err != nil {
			return err
		}
	}
	if s.name == report.Plain {
		// dockerd has the host forward nothing but what its own driver is for.
		if _, err := s.host.Run(ctx, "iptables", "-P", "FORWARD", "ACCEPT"); err != nil {
			return err
		}
	}
	_, err := s.host.Run(ctx, "sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_timeout_close=1")
	return err
}

func (s *subject) close() error {
	if s.api != nil {
		s.api.Close()
	}
	if s.host == nil {
		return nil
	}
	return s.host.Close()
}

// startPlugin starts the plugin, if it has one, and waits for its socket.
func (s *subject) startPlugin(ctx context.Context) error {
	driver, _ := s.drivers()
	socket := pluginsDir + driver + ".sock"
	var argv []string
	switch {
	case s.dockers():
		return nil
	case s.bare():
		argv = []string{s.self, s.name, socket}
	default:
		argv = []string{s.plugin, "serve", "--plugin-socket", socket, "--state", s.state()}
		argv = append(argv, s.choices()...)
		if s.verbose {
			argv = append(argv, "--log-level", "debug")
		}
	}
	var err error
	if s.daemon, err = s.host.Start(driver, argv, nil); err != nil {
		return err
	}
	return s.awaitSocket(ctx, s.host.Path(socket))
}

// state is beside the engine's own data, on a disk: the hosts' /var/lib is in memory, where a commit waits for nothing.
func (s *subject) state() string { return filepath.Join(s.host.Dir(), "state.db") }

func (s *subject) awaitSocket(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-s.daemon.Done():
			var code interface{ ExitCode() int }
			if err := s.daemon.Wait(); s.ours() && errors.As(err, &code) && code.ExitCode() == 2 {
				return errRefused
			}
			return fmt.Errorf("the plugin ended: %s", strings.TrimSpace(s.daemon.Log()))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (s *subject) createNetwork(ctx context.Context, name string) error {
	driver, ipam := s.drivers()
	return s.api.CreateNetwork(ctx, name, driver, ipam)
}

// start makes a container that does nothing, on busy.
func (s *subject) start(ctx context.Context, name string, ports []engine.Port) error {
	pid, err := s.api.StartContainer(ctx, name, busy, s.image, []string{"/bin/busybox", "sleep", "1000000"}, ports)
	s.pids[name] = pid
	return err
}

// startApart makes a container and takes it off busy again.
func (s *subject) startApart(ctx context.Context, name string, ports []engine.Port) error {
	if err := s.start(ctx, name, ports); err != nil {
		return err
	}
	return s.api.Disconnect(ctx, busy, name)
}

// publish are n ports from a host port on, all to other ports of the container.
func publish(hostIP string, from, n int) []engine.Port {
	var out []engine.Port
	for i := range n {
		out = append(out, engine.Port{HostIP: hostIP, Host: from + i, Container: 1000 + i, Proto: "tcp"})
	}
	return out
}

// A place is where a load or a server runs, as the beginning of a command.
type place []string

func (s *subject) outside() place { return place{"ip", "netns", "exec", s.visitor.Name} }
func (s *subject) inside(container string) place {
	return place{"nsenter", "--net", "--target", strconv.Itoa(s.pids[container])}
}

// serve starts a server and waits until it listens.
func (s *subject) serve(ctx context.Context, name string, at place) error {
	p, err := s.host.Start("server-"+name, append(at, s.self, "serve", strconv.Itoa(port)), nil)
	if err != nil {
		return err
	}
	for !strings.Contains(p.Log(), "ready") {
		select {
		case <-p.Done():
			return fmt.Errorf("the server ended: %s", p.Log())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// load runs a load and returns its numbers.
func (s *subject) load(ctx context.Context, from place, kind string, to netip.AddrPort, amount int) (loaded, error) {
	argv := append(from[:len(from):len(from)], s.self, "load", kind, to.String(), strconv.Itoa(amount))
	text, err := s.host.Run(ctx, argv[0], argv[1:]...)
	if err != nil {
		return loaded{}, err
	}
	var out loaded
	return out, json.Unmarshal([]byte(text), &out)
}

// proc is the host's first process below /proc.
func (s *subject) proc() string { return filepath.Dir(s.host.Path("")) }

// pid is the host's first process.
func (s *subject) pid() int {
	pid, _ := strconv.Atoi(filepath.Base(s.proc()))
	return pid
}

// links counts the links of the host's network namespace.
func (s *subject) links() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.proc(), "net", "dev"))
	return strings.Count(string(text), ":"), err
}
