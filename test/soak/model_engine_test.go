//go:build engine

package soak

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

const (
	maxNetworks   = 4
	maxContainers = 5
)

// model is what the user has asked for. It depends on nothing but what was drawn: that is how a run can be repeated.
type model struct {
	m          *machine
	rng        *rand.Rand
	count      int                   // of all names given so far
	networks   map[string]network    // by name
	containers map[string]*container // by name
}

type network struct{ ipv6, internal bool }

type container struct {
	networks []string // the first is that of its birth
	port     int      // on the host; 0 for none
}

// operation is something a user does.
type operation struct {
	what string
	do   func()
}

func newModel(m *machine, rng *rand.Rand) *model {
	return &model{m: m, rng: rng, networks: map[string]network{}, containers: map[string]*container{}}
}

// next draws an operation that makes sense now.
func (d *model) next() operation {
	for {
		op, sense := d.operations()[d.rng.IntN(len(d.operations()))]()
		if sense {
			return op
		}
	}
}

// operations draw one of their kind, if there is something to do it to.
func (d *model) operations() []func() (operation, bool) {
	return []func() (operation, bool){d.createNetwork, d.removeNetwork, d.run, d.run, d.remove, d.republish, d.connect, d.disconnect, d.restart, d.stopAndStart}
}

func (d *model) name(prefix string) string {
	d.count++
	return prefix + strconv.Itoa(d.count)
}

// pick draws one of the names for which ok holds.
func pick[V any](rng *rand.Rand, all map[string]V, ok func(name string, v V) bool) (string, bool) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if ok(name, all[name]) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	return names[rng.IntN(len(names))], true
}

func anyOf[V any](string, V) bool { return true }

func (d *model) createNetwork() (operation, bool) {
	if len(d.networks) >= maxNetworks {
		return operation{}, false
	}
	name, n := d.name("net"), network{ipv6: d.rng.IntN(2) == 0, internal: d.rng.IntN(5) == 0}
	d.networks[name] = n
	args := []string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge"}
	if n.ipv6 {
		args = append(args, "--ipv6")
	}
	if n.internal {
		args = append(args, "--internal")
	}
	return operation{"create " + name, func() { d.m.asked([]string{"already exists"}, nothing, append(args, name)...) }}, true
}

func (d *model) removeNetwork() (operation, bool) {
	name, found := pick(d.rng, d.networks, func(name string, _ network) bool { return len(d.on(name)) == 0 })
	delete(d.networks, name)
	return operation{"remove " + name, func() { d.rmNetwork(name) }}, found
}

func (d *model) rmNetwork(name string) {
	d.m.asked([]string{"No such network", "not found"}, nothing, "network", "rm", name)
}

// on are the containers of a network.
func (d *model) on(network string) (names []string) {
	for name, c := range d.containers {
		if slices.Contains(c.networks, network) {
			names = append(names, name)
		}
	}
	return names
}

func (d *model) run() (operation, bool) {
	on, found := pick(d.rng, d.networks, anyOf)
	if !found || len(d.containers) >= maxContainers {
		return operation{}, false
	}
	name, c := d.name("c"), &container{networks: []string{on}}
	if !d.networks[on].internal && d.rng.IntN(3) > 0 {
		c.port = 10000 + d.count
	}
	d.containers[name] = c
	return operation{fmt.Sprintf("run %s on %s", name, on), func() { d.start(name, *c) }}, true
}

// start runs a container on its first network, and connects it to the others.
func (d *model) start(name string, c container) {
	args := []string{"run", "-d", "--name", name, "--restart", "unless-stopped", "--network", c.networks[0]}
	if c.port > 0 {
		args = append(args, "-p", fmt.Sprintf("%d:80", c.port))
	}
	args = append(args, "lab", "/probe", "serve", "tcp", ":80", ":"+unpublished)
	d.m.asked(nil, func() { d.rm(name) }, args...)
	for _, more := range c.networks[1:] {
		d.attach(name, more)
	}
}

func (d *model) rm(name string) { d.m.asked([]string{"No such container"}, nothing, "rm", "-f", name) }

func (d *model) attach(name, network string) {
	d.m.asked([]string{"already exists in network", "already attached to network"}, nothing, "network", "connect", network, name)
}

func (d *model) remove() (operation, bool) {
	name, found := pick(d.rng, d.containers, anyOf)
	delete(d.containers, name)
	return operation{"remove " + name, func() { d.rm(name) }}, found
}

// republish has another container publish the port of one that goes.
func (d *model) republish() (operation, bool) {
	old, found := pick(d.rng, d.containers, func(_ string, c *container) bool { return c.port > 0 })
	if !found {
		return operation{}, false
	}
	c := *d.containers[old]
	c.networks = slices.Clone(c.networks)
	name := d.name("c")
	delete(d.containers, old)
	d.containers[name] = &c
	return operation{fmt.Sprintf("run %s in place of %s", name, old), func() {
		d.rm(old)
		d.start(name, c)
	}}, true
}

func (d *model) connect() (operation, bool) {
	name, found := pick(d.rng, d.containers, func(_ string, c *container) bool { return len(c.networks) < min(3, len(d.networks)) })
	if !found {
		return operation{}, false
	}
	c := d.containers[name]
	to, found := pick(d.rng, d.networks, func(n string, _ network) bool { return !slices.Contains(c.networks, n) })
	if found {
		c.networks = append(slices.Clone(c.networks), to)
	}
	return operation{fmt.Sprintf("connect %s to %s", name, to), func() { d.attach(name, to) }}, found
}

func (d *model) disconnect() (operation, bool) {
	name, found := pick(d.rng, d.containers, func(_ string, c *container) bool { return len(c.networks) > 1 })
	if !found {
		return operation{}, false
	}
	c := d.containers[name]
	i := 1 + d.rng.IntN(len(c.networks)-1)
	from := c.networks[i]
	c.networks = slices.Delete(slices.Clone(c.networks), i, i+1)
	return operation{fmt.Sprintf("disconnect %s from %s", name, from), func() {
		d.m.asked([]string{"is not connected to"}, nothing, "network", "disconnect", from, name)
	}}, true
}

func (d *model) restart() (operation, bool) {
	name, found := pick(d.rng, d.containers, anyOf)
	return operation{"restart " + name, func() { d.m.asked(nil, nothing, "restart", "-t", "0", name) }}, found
}

func (d *model) stopAndStart() (operation, bool) {
	name, found := pick(d.rng, d.containers, anyOf)
	return operation{"stop and start " + name, func() {
		d.m.asked(nil, nothing, "stop", "-t", "0", name)
		d.m.asked(nil, nothing, "start", name)
	}}, found
}

func (d *model) removeAll() {
	for name := range d.containers {
		d.rm(name)
	}
	for name := range d.networks {
		d.rmNetwork(name)
	}
}

// well checks that a container is as the user asked for: it serves by its port, is reached by the host on each of
// its networks and reaches the world, unless all of them are internal.
func (d *model) well(name string) error {
	c := d.containers[name]
	if err := d.runs(name); err != nil {
		return err
	}
	if c.port > 0 {
		if err := d.m.reached(net.JoinHostPort(d.m.client.Host.Addr4().String(), strconv.Itoa(c.port))); err != nil {
			return fmt.Errorf("%s is not reached by its port %d: %w", name, c.port, err)
		}
	}
	inside := d.m.docker.Container(name)
	outwards := false
	for _, on := range c.networks {
		outwards = outwards || !d.networks[on].internal
		format := fmt.Sprintf("{{with index .NetworkSettings.Networks %q}}{{.IPAddress}}{{end}}", on)
		out, err := d.m.cmd("inspect", "-f", format, name)
		if err != nil {
			return err
		}
		addr, err := netip.ParseAddr(out)
		if err != nil {
			return fmt.Errorf("%s has no address on %s: %w", name, on, err)
		}
		if err := lab.Ping(d.m.t.Context(), d.m.Host, addr); err != nil {
			return fmt.Errorf("%s is not reached on %s: %w", name, on, err)
		}
	}
	if outwards {
		addr := net.JoinHostPort(d.m.client.Addr4().String(), "80")
		if _, err := inside.Run(d.m.t.Context(), "/probe", "get", "-timeout", "900ms", "tcp", addr); err != nil {
			return fmt.Errorf("%s does not reach the world: %w", name, err)
		}
	}
	return nil
}

// runs starts a container that dockerd left exited: one that it ended while it was itself being ended or started is not always
// started again, whatever its restart policy says.
func (d *model) runs(name string) error {
	out, err := d.m.cmd("inspect", "-f", "{{.State.Running}} {{.State.Restarting}} exit code {{.State.ExitCode}} {{.State.Error}}", name)
	if err == nil && !strings.HasPrefix(out, "true") {
		err = fmt.Errorf("%s has ended: %s", name, out)
		d.m.complain(err)
		_, started := d.m.cmd("start", name)
		err = errors.Join(err, started)
	}
	return err
}
