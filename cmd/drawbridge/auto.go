package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/link"
	"github.com/drawbridge-net/drawbridge/state"
)

// hostLooker finds whether a firewall of the host is active (hostfw.Looker), and routing rules that pick packets by their source (link.Links).
type hostLooker interface {
	Look(ctx context.Context) (hostfw.Finding, error)
	RoutedBySource() (rule string, err error)
}

// realHost is one.
type realHost struct {
	firewall *hostfw.Looker
	links    *link.Links
}

func (h realHost) Look(ctx context.Context) (hostfw.Finding, error) { return h.firewall.Look(ctx) }

func (h realHost) RoutedBySource() (rule string, err error) { return h.links.RoutedBySource() }

// auto keeps what state.PublishAuto means at the moment. Until the host was looked at, and while it cannot be, a firewall is taken to be
// active that wants to see each connection: else a port could be opened that a firewall keeps closed.
type auto struct {
	looker hostLooker
	// strict reports whether firewalld refuses what others than itself translate.
	strict func() bool
	// inherit is what counts where neither network nor endpoint says: --publish.
	inherit state.Publish
	log     *slog.Logger

	suspected chan struct{} // has room for one: the host may not be as it was
	once      sync.Once
	waited    sync.Once
	looked    chan struct{} // closed after the first look
	last      atomic.Pointer[sight]
	// hosts and stricts say that modes were the host's own, or strict, at some time since the daemon began.
	hosts, stricts atomic.Bool
}

// sight is what a look came to.
type sight struct {
	hostfw.Finding
	bySource string // a routing rule
	failed   error
}

const (
	// lookTime bounds a look. Asking firewalld has a deadline of its own within it.
	lookTime = 10 * time.Second
	// lookAgain is when the host is looked at again after a look that failed. One that did not is repeated every checkInterval, should
	// a watch have missed something.
	lookAgain = 2 * time.Second
	// firstLook is how long the first pass waits for the first look: a mode that is changed right away would cost a second one.
	firstLook = 2 * time.Second
)

func newAuto(looker hostLooker, strict func() bool, inherit state.Publish, log *slog.Logger) *auto {
	return &auto{
		looker: looker, strict: strict, inherit: inherit, log: log,
		suspected: make(chan struct{}, 1), looked: make(chan struct{}),
	}
}

// Run looks at the host, and again whenever Suspect was called, until ctx ends. It calls changed when another mode counts.
func (a *auto) Run(ctx context.Context, changed func(reason string)) error {
	mode, reason := a.Auto()
	for ctx.Err() == nil {
		pause := checkInterval
		if err := a.look(ctx); err != nil {
			pause = lookAgain
		}
		if ctx.Err() != nil {
			break
		}
		now, why := a.Auto()
		if now != mode || why != reason {
			a.log.InfoContext(ctx, "what the way auto to published ports means", "mode", now, "reason", why)
		}
		if now != mode {
			changed("published ports are served by mode " + string(now) + ": " + why)
		}
		mode, reason = now, why
		select {
		case <-ctx.Done():
		case <-a.suspected:
		case <-time.After(pause):
		}
	}
	return nil
}

func (a *auto) look(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found, err := a.looker.Look(bounded)
	rule, failed := a.looker.RoutedBySource()
	err = errors.Join(err, failed)
	if ctx.Err() != nil {
		return err
	}
	if last := a.last.Load(); err != nil && (last == nil || last.failed == nil) {
		a.log.WarnContext(ctx, "taking a firewall of the host to be active and to look at each connection, since that is not known", "error", err)
	}
	a.last.Store(&sight{found, rule, err})
	a.once.Do(func() { close(a.looked) })
	return err
}

// Suspect has Run look again. It never blocks.
func (a *auto) Suspect() {
	select {
	case a.suspected <- struct{}{}:
	default:
	}
}

// suspectBefore returns what calls Suspect and then f, for watches that others need too.
func (a *auto) suspectBefore(f func(reason string)) func(reason string) {
	return func(reason string) {
		a.Suspect()
		f(reason)
	}
}

// Finding says whether a firewall is known to be active.
func (a *auto) Finding() hostfw.Finding {
	if last := a.last.Load(); last != nil {
		return last.Finding
	}
	return hostfw.Finding{}
}

// Auto returns what state.PublishAuto means at the moment, and why.
func (a *auto) Auto() (mode state.Publish, reason string) {
	last := a.last.Load()
	switch {
	case last == nil:
		return state.PublishHost, "the host's firewall has not been looked at yet"
	case last.failed != nil:
		return state.PublishHost, "the host's firewall could not be looked at"
	case !last.Active:
		return a.translatable(state.PublishDNAT, "no firewall of the host is active")
	case last.Beyond != "":
		return state.PublishHost, last.Why + "; INPUT counts or looks into packets (" + last.Beyond + "), which learned clients would pass by"
	case last.bySource != "":
		return state.PublishHost, last.Why + "; a routing rule (" + last.bySource + ") does not hold for answers to learned clients"
	}
	return a.translatable(state.PublishLearned, last.Why)
}

// translatable replaces a mode that translates where firewalld refuses what is translated.
func (a *auto) translatable(mode state.Publish, reason string) (state.Publish, string) {
	if (mode == state.PublishDNAT || mode == state.PublishLearned) && a.strict() {
		return state.PublishHost, "firewalld refuses translated ports (StrictForwardPorts=yes)"
	}
	return mode, reason
}

// Modes returns what modes mean at the moment. The first call waits a while for the first look.
func (a *auto) Modes() state.Modes {
	a.waited.Do(func() {
		select {
		case <-a.looked:
		case <-time.After(firstLook):
		}
	})
	automatic, _ := a.Auto()
	m := state.Modes{Inherit: a.inherit, Auto: automatic, Strict: a.strict()}
	if a.inherit == state.PublishAuto {
		m.Inherit = automatic
	}
	if automatic.ByHost() {
		a.hosts.Store(true)
	}
	if m.Strict {
		a.stricts.Store(true)
	}
	return m
}

// Mode returns the way to ports with an exposure.
func (a *auto) Mode(e state.Exposure) state.Publish { return a.Modes().Of(e, state.TCP) }

// Led returns the way to ports with an exposure for what leads containers' answers to the host's sockets. Where a port was served by one, it
// stays that way: when the port is translated from then on, its connections go on.
func (a *auto) Led(e state.Exposure) state.Publish {
	m := a.Modes()
	m.Strict = m.Strict || a.stricts.Load()
	if a.hosts.Load() {
		m.Auto = state.PublishLearned
		if a.inherit == state.PublishAuto {
			m.Inherit = m.Auto
		}
	}
	return m.Of(e, state.TCP)
}

// leads reports whether containers' answers are to be led to sockets of the host.
func (a *auto) leads(s state.Snapshot) bool { return len(s.ByHost(a.Led)) > 0 }
