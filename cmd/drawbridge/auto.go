package main

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/state"
)

// hostLooker finds whether a firewall of the host is active; hostfw.Looker is one.
type hostLooker interface {
	Look(ctx context.Context) (hostfw.Finding, error)
}

// auto keeps what state.PublishAuto means at the moment. Until the host was looked at, and while it cannot be, a firewall is taken to be
// active: else a port could be opened that a firewall keeps closed.
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
}

// sight is what a look came to.
type sight struct {
	hostfw.Finding
	failed error
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
	if ctx.Err() != nil {
		return err
	}
	if last := a.last.Load(); err != nil && (last == nil || last.failed == nil) {
		a.log.WarnContext(ctx, "taking a firewall of the host to be active, since that is not known", "error", err)
	}
	a.last.Store(&sight{found, err})
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
		return a.translatable(state.PublishLearned, "the host's firewall has not been looked at yet")
	case last.failed != nil:
		return a.translatable(state.PublishLearned, "the host's firewall could not be looked at")
	case last.Active:
		return a.translatable(state.PublishLearned, last.Why)
	}
	return a.translatable(state.PublishDNAT, "no firewall of the host is active")
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
	return m
}

// Mode returns the way to ports with an exposure.
func (a *auto) Mode(e state.Exposure) state.Publish { return a.Modes().Of(e, state.TCP) }

// byHost reports whether some clients are to come by sockets of the host.
func (a *auto) byHost(s state.Snapshot) bool {
	m := a.Modes()
	return len(s.ByHost(func(e state.Exposure) state.Publish { return m.Of(e, state.TCP) })) > 0
}
