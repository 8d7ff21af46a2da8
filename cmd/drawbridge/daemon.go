package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/firewalld"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/plugin"
	"github.com/drawbridge-net/drawbridge/publish"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// daemonParts are the wired parts of the daemon.
type daemonParts struct {
	plugin  *plugin.Server
	control *control.Server
	backend string // for people
	// tasks run beside the servers until the daemon ends.
	tasks map[string]func(context.Context) error
	// closers give resources back, last made first.
	closers []func() error
}

func (d *daemonParts) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		_ = d.closers[i]()
	}
}

func (d *daemonParts) onClose(c io.Closer) { d.closers = append(d.closers, c.Close) }

// host is what the driver asks about the host.
type host struct {
	*link.Links
	link.Sysctl
}

// newDaemon opens the state and wires the parts. On an error nothing stays open.
func newDaemon(ctx context.Context, s settings, p parsed, log *slog.Logger) (d *daemonParts, err error) {
	started := time.Now()
	d = &daemonParts{tasks: map[string]func(context.Context) error{}}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	st, err := store.Open(s.state)
	if err != nil {
		return nil, err
	}
	d.onClose(st)
	sysctl := link.Sysctl{Root: "/proc/sys"}
	links, err := link.New(sysctl)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() error { links.Close(); return nil })
	flows, err := link.NewFlows()
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() error { flows.Close(); return nil })
	ports := publish.New(publish.Options{ServeAll: !s.iptables, Log: log})
	d.onClose(ports)

	steps := []reconcile.Step{{Name: "links", Plane: links.Prepare()}}
	rules := func() string { return "" }
	if s.iptables {
		backend, err := iptables.New(ctx, process.Run)
		if err != nil {
			return nil, err
		}
		plane := firewall.NewPlane(backend)
		steps = append(steps, reconcile.Step{Name: "firewall", Plane: plane})
		rules, d.backend = plane.Rules, backend.Variant()
	}
	var zones *firewalld.Plane
	if s.firewalld == "auto" && s.iptables {
		zones = firewalld.New(firewalld.Options{Log: log})
		steps = append(steps, reconcile.Step{Name: "firewalld", Plane: zones})
	}
	steps = append(steps,
		reconcile.Step{Name: "links up", Plane: links.Activate()},
		reconcile.Step{Name: "published ports", Plane: ports})

	loop := reconcile.New(st, steps, reconcile.Options{Log: log, Interval: checkInterval})
	network := driver.New(st, loop, ports, host{links, sysctl}, flows, p.driver)
	if err := network.Restore(ctx); err != nil {
		return nil, err
	}
	d.tasks["reconcile"] = loop.Run
	d.tasks["links"] = func(ctx context.Context) error { return link.Watch(ctx, loop.Trigger) }
	if zones != nil {
		d.tasks["firewalld"] = func(ctx context.Context) error { return zones.Watch(ctx, loop.Trigger) }
	}
	d.plugin = plugin.NewServer(
		plugin.Routes(network, ipam.New(st, link.HostPrefixes{}, p.pools)),
		plugin.Options{Log: log})
	d.control = control.NewServer(control.Sources{
		Snapshot: st.Snapshot,
		Rules:    func(context.Context) (string, error) { return describeRules(s, rules()) },
		Status: func(context.Context) (control.Status, error) {
			return status(st.Snapshot(), loop.Status(), d.backend, started), nil
		},
	})
	return d, nil
}

func describeRules(s settings, rules string) (string, error) {
	if !s.iptables {
		return "", errors.New("the daemon runs with --iptables=false: it has no rules")
	}
	return rules, nil
}

// status sums up the daemon for people.
func status(s state.Snapshot, l reconcile.Status, backend string, since time.Time) control.Status {
	out := control.Count(s)
	out.Version, out.Since, out.Backend, out.Applied = version.String(), since, backend, l.Applied
	for _, step := range l.Steps {
		if step.Error != "" {
			out.Errors = append(out.Errors, step.Error)
		}
	}
	return out
}
