package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	dockerd      = "/usr/sbin/dockerd"
	dockerSocket = "/run/docker.sock"
)

// DockerOptions say how the engine is started.
type DockerOptions struct {
	Args []string // further arguments of dockerd
	Env  []string // further environment of dockerd
}

// A Docker is the lab's engine. It keeps its data root over Stop, Kill and Start.
type Docker struct {
	*Process // the running dockerd; a new one after each Start
	host     *Host
	opts     DockerOptions
	version  string
	imported bool
}

// StartDocker starts dockerd, which starts its own containerd, and waits until
// its API answers.
func (h *Host) StartDocker(ctx context.Context, o DockerOptions) (*Docker, error) {
	d := &Docker{host: h, opts: o}
	var err error
	if d.version, err = h.dockerVersion(ctx); err != nil {
		return nil, err
	}
	return d, d.Start(ctx)
}

// dockerVersion asks the program; the engine need not run.
func (h *Host) dockerVersion(ctx context.Context) (string, error) {
	said, err := h.Run(ctx, dockerd, "--version")
	if err != nil {
		return "", err
	}
	return parseVersion(said)
}

// versionWord is what dockerd --version begins with, up to the second number.
var versionWord = regexp.MustCompile(`^Docker version (\d+\.\d+)\b`)

func parseVersion(said string) (string, error) {
	m := versionWord.FindStringSubmatch(said)
	if m == nil {
		return "", fmt.Errorf("dockerd's version is not in %q", said)
	}
	return m[1], nil
}

// Version is the engine's, as two numbers: 20.10 or 26.1.
func (d *Docker) Version() string { return d.version }

// Start starts the engine again on the same data root, after Stop or Kill.
func (d *Docker) Start(ctx context.Context) error {
	began := time.Now()
	p, err := d.host.Start("dockerd", d.argv(), d.opts.Env)
	if err != nil {
		return err
	}
	d.Process = p
	if err := p.await(ctx, d.ping); err != nil {
		return errors.Join(err, p.Kill())
	}
	d.host.logf("dockerd ready in %v", time.Since(began))
	return nil
}

func (d *Docker) argv() []string {
	argv := []string{
		dockerd,
		"--host", "unix://" + dockerSocket,
		"--data-root", filepath.Join(d.host.dir, "docker"),
		"--exec-root", "/run/docker",
		"--pidfile", "/run/docker.pid",
		// cgroupfs even where the machine has systemd: the lab has none.
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--cgroup-parent", "/" + d.host.name,
	}
	if strings.HasPrefix(d.version, "20.") {
		// A root without CAP_SYS_RESOURCE may not ask for less than it has. Newer ones do not ask.
		argv = append(argv, "--oom-score-adjust", "0")
	}
	return append(argv, d.opts.Args...)
}

// ping asks the API for a sign of life. dockerd listens early and answers when
// it is ready, so that mostly one request waits for it.
func (d *Docker) ping(ctx context.Context) error {
	// Not for ever: a dockerd that ends while we wait is noticed between requests.
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	body, err := d.get(ctx, "/_ping")
	if err != nil {
		return err
	}
	return body.Close()
}

// Restart stops dockerd in good order and starts it again.
func (d *Docker) Restart(ctx context.Context) error {
	return errors.Join(d.Stop(), d.Start(ctx))
}

// Command prepares a docker command against the lab's engine.
func (d *Docker) Command(ctx context.Context, args ...string) *exec.Cmd {
	// The distribution's client by its path: another one may come first in PATH.
	return d.host.Command(ctx, "/usr/bin/docker", args...)
}

// Run runs a docker command and returns its standard output, without the last newline.
func (d *Docker) Run(ctx context.Context, args ...string) (string, error) {
	out, err := run(d.Command(ctx, args...), append([]string{"docker"}, args...))
	return strings.TrimSuffix(out, "\n"), err
}

// Serve starts a container of the lab's image, with the arguments of docker run
// given in options, that answers on the addresses, and waits until it listens.
func (d *Docker) Serve(ctx context.Context, options []string, network string, addrs ...string) (*Container, error) {
	image, err := d.Image(ctx)
	if err != nil {
		return nil, err
	}
	argv := append([]string{"run", "-d"}, options...)
	argv = append(append(argv, image, "/probe", "serve", network), addrs...)
	id, err := d.Run(ctx, argv...)
	if err != nil {
		return nil, err
	}
	c := d.Container(id)
	return c, c.awaitReady(ctx)
}

// A Container is a place inside a running container of the lab's image.
type Container struct {
	Name string // name or id
	d    *Docker
}

// Container is the container of that name or id.
func (d *Docker) Container(name string) *Container { return &Container{Name: name, d: d} }

// Command prepares a command inside the container (docker exec -i).
func (c *Container) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return c.d.Command(ctx, append([]string{"exec", "-i", c.Name, name}, args...)...)
}

// Run runs a command inside the container and returns its standard output.
func (c *Container) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(c.Command(ctx, name, args...), append([]string{"docker", "exec", c.Name, name}, args...))
}

// Probe is the helper program's path in the image.
func (c *Container) Probe() string { return "/probe" }

// Addrs are the container's addresses on a network, IPv4 first.
func (c *Container) Addrs(ctx context.Context, network string) ([]netip.Addr, error) {
	var described struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, GlobalIPv6Address string }
		}
	}
	if err := c.d.inspect(ctx, "/containers/"+c.Name+"/json", &described); err != nil {
		return nil, err
	}
	on := described.NetworkSettings.Networks[network]
	var addrs []netip.Addr
	for _, word := range []string{on.IPAddress, on.GlobalIPv6Address} {
		if word == "" {
			continue
		}
		addr, err := netip.ParseAddr(word)
		if err != nil {
			return nil, fmt.Errorf("container %s on network %s: %w", c.Name, network, err)
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("container %s has no address on network %s", c.Name, network)
	}
	return addrs, nil
}

// awaitReady waits for the word that the server is bound. It is for a new
// container: the log of one that was restarted has the word already.
func (c *Container) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// Standard output and error, as they come: the latter says why it ended.
	log, err := c.d.get(ctx, "/containers/"+c.Name+"/logs?follow=1&stdout=1&stderr=1")
	if err != nil {
		return fmt.Errorf("waiting for container %s: %w", c.Name, err)
	}
	defer log.Close()
	var said []byte
	for buf := make([]byte, 1024); ; {
		n, err := log.Read(buf)
		if said = append(said, buf[:n]...); bytes.Contains(said, []byte("ready\n")) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("container %s ended while starting (%w): %q", c.Name, err, said)
		}
	}
}
