package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/drawbridge-net/drawbridge/collect"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/engine"
	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/firewalld"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/internal/periodic"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/plugin"
	"github.com/drawbridge-net/drawbridge/reconcile"
	"github.com/drawbridge-net/drawbridge/relay"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// daemonParts are the wired parts of the daemon.
type daemonParts struct {
	plugin  *plugin.Server
	control *control.Server
	loop    *reconcile.Loop
	// answered writes down that all calls have been answered, when the daemon ends in good order.
	answered func(context.Context) error
	// tasks run beside the servers until the daemon ends.
	tasks map[string]func(context.Context) error
	// closers give resources back, last made first.
	closers []func() error
	// compared is closed when the host has been made equal to the state once, or that was tried for long enough.
	compared chan struct{}
}

func (d *daemonParts) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		_ = d.closers[i]()
	}
}

func (d *daemonParts) onClose(c io.Closer) { d.closers = append(d.closers, c.Close) }

func (d *daemonParts) onEnd(end func()) {
	d.closers = append(d.closers, func() error { end(); return nil })
}

// host is what the driver asks about the host.
type host struct {
	*link.Links
	link.Sysctl
	rules *firewall.Plane // nil without rules
}

// FitNetwork adopts no bridge of Docker's own driver. Those with a name of the user's are known by Docker's rules.
func (h host) FitNetwork(ctx context.Context, n state.Network) (state.Network, error) {
	n, err := h.Links.FitNetwork(ctx, n)
	if err == nil && n.Adopted && h.rules != nil && slices.Contains(h.rules.DockerBridges(), n.Bridge) {
		return n, fmt.Errorf("bridge %s is that of a network of Docker's own: choose another name with -o com.docker.network.bridge.name=…", n.Bridge)
	}
	return n, err
}

// newDaemon opens the state and wires the parts. With rules it starts no process and waits for nobody, so that dockerd is
// answered from the first moment. On an error nothing stays open.
func newDaemon(ctx context.Context, s settings, p parsed, log *slog.Logger) (*daemonParts, error) {
	d := &daemonParts{tasks: map[string]func(context.Context) error{}, compared: make(chan struct{})}
	if _, err := os.Stat(s.state); errors.Is(err, fs.ErrNotExist) { // Open would make one
		if err := refuseForgetful(s.state); err != nil {
			return nil, err
		}
	}
	st, err := store.Open(s.state)
	if err != nil {
		return nil, err
	}
	d.onClose(st)
	if st.Snapshot().Revision == 0 {
		err = refuseForgetful(s.state)
	}
	if err == nil {
		err = refuseLeftover(ctx, s)
	}
	if err == nil {
		err = d.wire(ctx, st, s, p, log)
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// refuseForgetful keeps a daemon whose state is missing or empty from a host on which containers run that an earlier one linked: they
// would lose their links. It is as good a reason to refuse as a state that is damaged.
func refuseForgetful(path string) error {
	n, err := link.InContainers()
	if err != nil || n == 0 {
		return err
	}
	return &store.Fault{Err: fmt.Errorf("state file %s is missing or empty, and %d containers have links of an earlier run: put a copy of it back, or start with --state where it is; to begin anew, stop these containers, or run `drawbridge purge --force` while the daemon is stopped", path, n)}
}

// refuseLeftover keeps a daemon that is to change no rule from living beside rules of an earlier one: they
// would let in what nobody publishes any more.
func refuseLeftover(ctx context.Context, s settings) error {
	if s.iptables {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leftoverTimeout)
	defer cancel()
	backend, err := leftoverRules()
	if err != nil {
		return err
	}
	defer backend.Close()
	if backend.Leftover(ctx) {
		return errors.New("rules of an earlier run are on this host, and --iptables=false changes none: remove them with `drawbridge purge --rules-only`, or start without the flag")
	}
	return nil
}

func (d *daemonParts) wire(ctx context.Context, st *store.Store, s settings, p parsed, log *slog.Logger) error {
	planes, err := d.newPlanes(s, p, log)
	if err != nil {
		return err
	}
	if n := leftover(st.Snapshot(), planes.links); n > 0 {
		log.Warn("the state is empty, and links of an earlier run are on this host, in no container: they are removed", "links", n, "state", s.state)
	}
	d.loop = reconcile.New(st, planes.steps(), reconcile.Options{Log: log, Interval: checkInterval, Debounce: debounce})
	loop := d.loop
	network := driver.New(st, loop, planes.ports, host{planes.links, planes.sysctl, planes.rules}, planes.flows, p.driver)
	if err := network.Restore(ctx); err != nil {
		return err
	}
	d.tasks["reconcile"] = loop.Run
	d.tasks["first pass"] = func(ctx context.Context) error {
		return d.firstPass(ctx, loop, func() { forgetOthers(planes.flows, st.Snapshot()) }, func() {
			if planes.rules != nil {
				planes.translation.forget(st.Snapshot())
			}
			_ = network.Settle(ctx) // what fails is tried again by sweep
		})
	}
	addresses := ipam.New(st, link.HostPrefixes{}, p.pools)
	d.tasks["sweep"] = func(ctx context.Context) error { return sweep(ctx, network, addresses, log) }
	garbage := newCollector(st, network, addresses, s, p, log)
	d.tasks["garbage"] = garbage.Run
	d.answered = garbage.Answered
	d.tasks["relay"] = func(ctx context.Context) error { return planes.ports.Watch(ctx, loop.Hurry) }
	d.tasks["links"] = func(ctx context.Context) error { return planes.links.Watch(ctx, loop.Trigger) }
	d.tasks["kernel settings"] = func(ctx context.Context) error { return planes.links.WatchSettings(ctx, loop.Trigger) }
	if planes.rules != nil {
		d.tasks["the host's firewall"] = func(ctx context.Context) error { return planes.auto.Run(ctx, loop.Hurry) }
		d.tasks["legacy rules of others"] = func(ctx context.Context) error {
			return planes.looker.Watch(ctx, func(string) { planes.auto.Suspect() })
		}
		d.tasks["rules"] = func(ctx context.Context) error {
			return nftables.Watch(ctx, planes.backend.forgetLearned(ctx), planes.auto.suspectBefore(loop.Glance))
		}
		d.tasks["sets and legacy rules"] = func(ctx context.Context) error { return planes.backend.iptables.Watch(ctx, loop.Trigger) }
		d.tasks["legacy rules beside nftables"] = func(ctx context.Context) error { return planes.backend.watchMarked(ctx, loop.Trigger) }
	}
	if planes.zones != nil {
		// firewalld may have flushed rules that it did not make.
		d.tasks["firewalld"] = func(ctx context.Context) error {
			return planes.zones.Watch(ctx, planes.auto.suspectBefore(loop.Hurry), planes.auto.suspectBefore(loop.Trigger))
		}
	}
	d.plugin = plugin.NewServer(
		plugin.Routes(network, addresses),
		plugin.Options{Log: log, Ready: d.ready})
	d.control = control.NewServer(sources(st, loop, network, planes, garbage, s.untranslated()))
	return nil
}

func newCollector(st *store.Store, network *driver.Driver, addresses *ipam.Driver, s settings, p parsed, log *slog.Logger) *collect.Collector {
	parts := collect.Parts{Store: st, Networks: network, Pools: addresses}
	if len(p.engines) > 0 {
		parts.Engines = engine.New(p.engines, s.proc)
	}
	return collect.New(parts, collect.Options{Log: log, Grace: s.gcGrace})
}

// leftover counts the links that are ours by their marks, on a host of which the state knows nothing.
func leftover(s state.Snapshot, links *link.Links) int {
	if s.Revision > 0 {
		return 0
	}
	return links.Count()
}

// forgetOthers ends the flows of containers that went while an earlier daemon was about to.
func forgetOthers(flows *link.Flows, s state.Snapshot) {
	var subnets []netip.Prefix
	var owned []netip.Addr
	for _, n := range s.Networks {
		if n.Adopted {
			continue // its owner's machines are there too
		}
		for _, subnet := range n.Subnets() {
			subnets = append(subnets, subnet.Prefix)
			owned = append(owned, subnet.Gateway, subnet.Router)
		}
	}
	for _, e := range s.Endpoints {
		owned = append(owned, e.Addrs()...)
	}
	flows.ForgetOthers(subnets, owned)
}

// sweep looks from time to time for what Docker forgot, and gives memory back.
func sweep(ctx context.Context, network *driver.Driver, addresses *ipam.Driver, log *slog.Logger) error {
	return periodic.Do(ctx, sweepInterval, func(now time.Time) {
		trimMemory()
		_ = network.Settle(ctx) // why not, the loop has said
		removed, err := network.Sweep(ctx, now)
		for _, e := range removed {
			log.Warn("removed an endpoint whose container is gone", "endpoint", e.ID.Short(), "network", e.Network.Short())
		}
		freed, err2 := addresses.Sweep(ctx, now)
		for _, l := range freed {
			log.Warn("freed an address that no container has", "address", l.Addr, "pool", l.Pool)
		}
		if err := errors.Join(err, err2); err != nil && ctx.Err() == nil {
			log.Warn("looking for what Docker forgot", "error", err)
		}
	})
}

// firstPass waits for the first comparison. What failed in it is for the calls that it concerns, and
// the loop tries again. One that takes its time, since a program hangs, holds up nobody who does not need what it is about.
//
// It calls forget before anybody is answered: who gets the address of a container that went would have its connections. Rules of
// before may have made some anew where the comparison was not waited for.
func (d *daemonParts) firstPass(ctx context.Context, loop *reconcile.Loop, forget, after func()) error {
	bounded, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	_ = loop.Wait(bounded, 0, state.Scope{})
	late := bounded.Err() != nil
	forget()
	close(d.compared)
	if late {
		_ = loop.Wait(ctx, 0, state.Scope{})
		forget()
	}
	after()
	return nil
}

// ready is what calls wait for.
func (d *daemonParts) ready(ctx context.Context) error {
	select {
	case <-d.compared:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// planes are the parts of the host that the loop keeps as they should be.
type planes struct {
	sysctl  link.Sysctl
	links   *link.Links
	flows   *link.Flows
	ports   *relay.Client
	backend *backends // nil with --iptables=false, as are the next two
	rules   *firewall.Plane
	// translation is rules for the loop.
	translation *translation
	zones       *firewalld.Plane // nil with --firewalld=off too
	looker      *hostfw.Looker   // nil with --iptables=false, as is the next: no port goes past a firewall then
	auto        *auto

	publishing func() control.Publishing // for people
}

func (d *daemonParts) newPlanes(s settings, parsed parsed, log *slog.Logger) (*planes, error) {
	p := &planes{sysctl: link.Sysctl{Root: filepath.Join(s.proc, "sys")}}
	p.publishing = func() control.Publishing { return p.describePublishing(s) }
	var err error
	if p.links, err = link.New(p.sysctl); err != nil {
		return nil, err
	}
	p.links.KeepForwarding = s.ipForward
	p.links.RouteLocalnet, p.links.NoLinksV6 = s.iptables, !s.ip6tables
	p.links.Report = func(reason string) { log.Warn(s.untranslated(), "reason", reason) }
	d.onEnd(p.links.Close)
	if p.flows, err = link.NewFlows(func(err error) { log.Warn("connections go on that should have ended", "error", err) }); err != nil {
		return nil, err
	}
	d.onEnd(p.flows.Close)
	ports := relay.Options{
		Socket: s.relaySocket, Start: relay.Spawn(s.relaySocket), Log: log, Level: parsed.level,
		Settings: relay.Settings{ServeAll: !s.iptables, ServeAllV6: !s.ip6tables, NoProxy: !s.userlandProxy, Proc: s.proc},
	}
	if s.iptables {
		d.newAuto(p, s, parsed, log)
		ports.Mode, ports.Undiverted, ports.Inquire, p.links.Mode = p.auto.Mode, p.undiverted, p.inquire, p.auto.Led
	}
	p.ports = relay.New(ports)
	d.onClose(p.ports)
	if !s.iptables {
		return p, nil
	}
	if p.backend, err = newBackends(s.backend, p.links.ForeignBridges, hostVariant(s.proc), log); err != nil {
		return nil, err
	}
	d.onEnd(p.backend.Close)
	rules := firewall.Settings{
		NoIPv6: !s.ip6tables, Loopback: p.links.LeadsLoopback, BarsLoopback: p.barsLoopback,
		Publish: p.auto.Modes, LearnedTime: s.learnedTime, Divert: p.auto.leads, AskOn: askOn,
	}
	if err := d.openLatch(&rules, p.ports, s, log); err != nil {
		return nil, err
	}
	p.rules = firewall.NewPlane(p.backend, rules)
	p.translation = &translation{Plane: p.rules, flows: p.flows, host: func() firewall.Host {
		return firewall.Host{NoIPv6: !s.ip6tables, Modes: p.auto.Modes()}
	}}
	return p, nil
}

// newAuto adds what looks at the host's own firewall.
func (d *daemonParts) newAuto(p *planes, s settings, parsed parsed, log *slog.Logger) {
	if s.firewalld == "auto" {
		p.zones = firewalld.New(firewalld.Options{Log: log, Timeout: zoneTimeout})
	}
	p.looker = newLooker(p.zones)
	d.onEnd(p.looker.Close)
	p.auto = newAuto(realHost{p.looker, p.links}, p.barsLoopback, parsed.publish, log)
	p.links.RoutingChanged = p.auto.Suspect
}

// openLatch adds the latch, where the host can have one and the user does not mind.
func (d *daemonParts) openLatch(rules *firewall.Settings, ports *relay.Client, s settings, log *slog.Logger) error {
	if s.latch == "off" {
		return removeLatch(context.Background(), ports.LetGo)
	}
	latch, err := nftables.NewLatch()
	if err != nil {
		log.Info("while somebody has flushed the rules containers are open to who can route to them: there is no latch", "reason", err)
		return nil
	}
	d.onEnd(latch.Close)
	latch.Keeper = ports
	rules.Latch = latch
	return nil
}

// removeLatch removes the latch of an earlier daemon, whose socket the relay may have.
func removeLatch(ctx context.Context, letGo func(context.Context) error) error {
	err := nftables.RemoveLatch()
	if errors.Is(err, unix.EPERM) {
		if err = letGo(ctx); err == nil {
			err = nftables.RemoveLatch()
		}
	}
	return err
}

// newLooker asks firewalld, if that may be spoken to.
func newLooker(zones *firewalld.Plane) *hostfw.Looker {
	o := hostfw.Options{Run: process.Run}
	if zones != nil {
		o.Firewalld = zones
	}
	return hostfw.New(o)
}

// undiverted is how is told what the host lacks for containers to be reached with their clients' addresses.
const undiverted = "containers see the bridge's address in place of their clients' at ports in the modes host and learned (drawbridge.publish=dnat works without)"

// undiverted names it, "" for nothing as far as is known.
func (p *planes) undiverted() string {
	if p.rules == nil {
		return ""
	}
	return cmp.Or(p.links.Undiverted(), p.rules.Undiverted())
}

// barsLoopback reports whether firewalld refuses the host's connections that are translated.
func (p *planes) barsLoopback() bool { return p.zones != nil && p.zones.Strict() }

// steps is the order of a pass: new links stay down until the firewall knows them.
func (p *planes) steps() []reconcile.Step {
	steps := []reconcile.Step{{Name: "links", Plane: p.links.Prepare()}}
	if p.rules != nil {
		steps = append(steps, reconcile.Step{Name: "firewall", Plane: p.translation})
	}
	if p.zones != nil {
		steps = append(steps, reconcile.Step{Name: "firewalld", Plane: p.zones})
	}
	steps = append(steps,
		reconcile.Step{Name: "links up", Plane: p.links.Activate()},
		reconcile.Step{Name: "published ports", Plane: p.ports})
	if p.translation != nil {
		steps = append(steps, reconcile.Step{Name: "flows of translated ports", Plane: turning{p.translation}})
	}
	if p.auto != nil {
		steps = append(steps,
			reconcile.Step{Name: "ports past a firewall", Plane: &pastWarner{p.auto, p.publishing, map[warning]bool{}}},
			reconcile.Step{Name: "the question to DOCKER-USER", Plane: &askWarner{planes: p, log: p.auto.log}})
	}
	return steps
}
