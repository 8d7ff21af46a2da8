package firewalld

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	// firstWait and lastWait bound the back-off while there is no bus. The upper bound is what
	// a bus that was restarted may have to wait for us; a failed dial costs microseconds.
	firstWait = 100 * time.Millisecond
	lastWait  = 5 * time.Second

	// startTime is how long a firewalld that took its name may take to answer. It takes the
	// name first, and only then loads its rules and flushes what was there.
	startTime = time.Minute
)

// Watch calls changed, with a reason for the log, whenever firewalld's rules or zones may have
// changed under us: when somebody takes a bridge of ours out of the zone, after a reload, after its start (once it answers) and its stop (which
// flushes, depending on its backend, foreign rules too), and whenever a connection to
// the bus has been made, since what happened before it went unseen. It returns nil
// when ctx is done. changed must not block for long.
//
// Apply's own reload is reported as well; the pass that follows finds nothing to do. What may have left the host open, since rules
// of ours may be gone, is for flushed instead.
func (p *Plane) Watch(ctx context.Context, flushed, changed func(reason string)) error {
	wait := firstWait
	for ctx.Err() == nil {
		b, err := p.open(ctx)
		if b != nil {
			wait = firstWait
			err = p.follow(ctx, b, flushed, changed)
			b.close()
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			p.log.Warn("lost sight of firewalld", "error", err, "retry", wait)
		}
		pause(ctx, wait)
		wait = min(2*wait, lastWait)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// follow reports signals until the connection is lost or ctx is done.
func (p *Plane) follow(ctx context.Context, b *bus, flushed, changed func(string)) error {
	signals := make(chan *dbus.Signal, 64)
	b.conn.Signal(signals)
	if err := p.subscribe(ctx, b); err != nil {
		return err
	}
	p.lookStrict(ctx, b)
	changed("connected to the system bus")
	for {
		select {
		case <-ctx.Done():
			return nil
		case sig, open := <-signals:
			if !open {
				return fmt.Errorf("the D-Bus system bus closed the connection")
			}
			if reason := p.reasonOf(ctx, b, sig); reason != "" {
				p.lookStrict(ctx, b)
				if strings.HasPrefix(sig.Name, zoneInterface) {
					changed(reason)
				} else {
					flushed(reason)
				}
			}
		}
	}
}

func (p *Plane) subscribe(ctx context.Context, b *bus) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	rules := [][]dbus.MatchOption{
		{dbus.WithMatchSender(service), dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(service), dbus.WithMatchMember("Reloaded")},
		ofZones("InterfaceAdded"), ofZones("InterfaceRemoved"), ofZones("ZoneOfInterfaceChanged"),
		{dbus.WithMatchSender(busService), dbus.WithMatchInterface(busService), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, service)},
	}
	for _, rule := range rules {
		if err := b.conn.AddMatchSignalContext(ctx, rule...); err != nil {
			return fmt.Errorf("subscribing to firewalld's signals: %w", err)
		}
	}
	return nil
}

// ofZones matches a signal of firewalld about the interfaces of a zone.
func ofZones(member string) []dbus.MatchOption {
	return []dbus.MatchOption{
		dbus.WithMatchSender(service), dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(zoneInterface), dbus.WithMatchMember(member),
	}
}

// moved says that a bridge of ours is not in our zone any more, or has left the one in which it could not be ours. That we put it
// there, or take it out with its network, is no news.
func (p *Plane) moved(sig *dbus.Signal) string {
	var zone, link string
	if dbus.Store(sig.Body, &zone, &link) != nil || !p.wants(link) {
		return ""
	}
	switch {
	case sig.Name == zoneInterface+".InterfaceRemoved":
		return "bridge " + link + " was taken out of firewalld's zone " + zone
	case zone != zoneName:
		return "bridge " + link + " was put into firewalld's zone " + zone
	}
	return ""
}

// reasonOf says what a signal means, empty for nothing.
func (p *Plane) reasonOf(ctx context.Context, b *bus, sig *dbus.Signal) string {
	switch sig.Name {
	case service + ".Reloaded":
		p.anew.Store(true)
		return "firewalld was reloaded"
	case zoneInterface + ".InterfaceAdded", zoneInterface + ".InterfaceRemoved", zoneInterface + ".ZoneOfInterfaceChanged":
		return p.moved(sig)
	case busService + ".NameOwnerChanged":
		var name, before, after string
		if dbus.Store(sig.Body, &name, &before, &after) != nil || name != service {
			return ""
		}
		if after == "" {
			return "firewalld stopped"
		}
		awaitStart(ctx, b)
		p.anew.Store(true)
		return "firewalld started"
	}
	return ""
}

// awaitStart returns when firewalld answers, is gone again, or startTime is over. A pass
// before that could have its rules flushed right behind it.
func awaitStart(ctx context.Context, b *bus) {
	patient := *b
	patient.timeout = startTime
	var zone string
	_ = patient.runtime(ctx, "getDefaultZone", nil, &zone) // any end of the wait will do
}
