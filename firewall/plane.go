package firewall

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Plane applies a snapshot's policy by a backend.
type Plane struct {
	backend  Backend
	settings Settings
	applied  atomic.Pointer[applied] // what the backend last made true
	dockers  atomic.Pointer[[]string]
	found    []state.Difference // what the last Apply or Follow mended
	turned   []Port             // by the last Apply or Follow
	halfway  bool               // the last one failed: what differs from what was made true before it may be its own doing
	emptied  emptied
}

// applied is what a policy is made from. It takes no memory beside the state's own.
type applied struct {
	state state.Snapshot
	host  Host
}

// NewPlane returns the plane of a backend.
func NewPlane(b Backend, s Settings) *Plane { return &Plane{backend: b, settings: s} }

// Apply makes the firewall equal to s. Its failures concern every network: an
// unknown rule set must not be taken for a closed one.
func (p *Plane) Apply(ctx context.Context, s state.Snapshot) error {
	return p.bring(ctx, s, p.backend.Sync, func(last state.Snapshot) state.Change { return state.Compare(last, s) })
}

// Follow does the same where nothing is known to have changed but the state.
func (p *Plane) Follow(ctx context.Context, c state.Change) error {
	return p.bring(ctx, c.To, p.backend.Follow, func(state.Snapshot) state.Change { return c })
}

func (p *Plane) bring(
	ctx context.Context, s state.Snapshot, act func(context.Context, Wanted) error, since func(last state.Snapshot) state.Change,
) error {
	last := p.applied.Load()
	complete := p.settings.completer(s)
	var found *Host // nil until the backend asks
	acting := true  // else it asks again what it asked before
	emptiedSince, asked, now := p.emptied, last.asks(), time.Now()
	meet := func(h Host) Host {
		h = complete(h)
		var next emptied
		next, h.UserRules = emptiedSince.after(asked, h.UserRules, now, p.settings.AskOn)
		if acting {
			found, p.emptied = &h, next
			p.dockers.Store(&h.DockerBridges)
		}
		return h
	}
	p.found, p.turned = nil, nil
	whole := !p.halfway
	p.halfway = true
	err := act(ctx, Wanted{
		Policy: func(h Host) Policy { return Render(s, meet(h)) },
		Divert: p.settings.diverts(s),
		Last: func() (Policy, bool) {
			if last == nil || !whole {
				return Policy{}, false
			}
			return Render(last.state, last.host), true
		},
		Found: func(differences []string) { p.found = p.asDifferences(differences) },
		Change: func(h Host) (Change, bool) {
			h = meet(h)
			if last == nil || !last.host.equal(h) {
				return Change{}, false
			}
			return RenderChange(since(last.state), h)
		},
	})
	acting = false
	if err == nil && p.settings.Latch != nil {
		err = p.settings.Latch.Hold(ctx, latched(s, complete(Host{})))
	}
	p.halfway = err != nil
	if err == nil && found != nil { // else it is that of before
		next := &applied{s, *found}
		p.turned = next.turnedSince(last)
		p.applied.Store(next)
	}
	return err
}

// turnedSince returns the ports that were left to the host and are translated now. An endpoint and a network keep their exposure for
// life, so that only what modes mean can do that.
func (a *applied) turnedSince(last *applied) []Port {
	if last == nil || last.host.Modes == a.host.Modes {
		return nil
	}
	return turned(Render(last.state, last.host), Render(a.state, a.host))
}

// Inspect tells how the firewall differs from s.
func (p *Plane) Inspect(ctx context.Context, s state.Snapshot) ([]state.Difference, error) {
	asked := p.applied.Load().asks()
	found, err := p.backend.Inspect(ctx, Wanted{
		Policy: func(h Host) Policy {
			h = p.settings.completer(s)(h)
			h.UserRules = Both{h.UserRules.V4 || asked.V4, h.UserRules.V6 || asked.V6}
			return Render(s, h)
		},
		Divert: p.settings.diverts(s),
	})
	if err == nil && p.settings.Latch != nil {
		var more []string
		more, err = p.settings.Latch.Inspect(latched(s, p.settings.completer(s)(Host{})))
		found = append(found, more...)
	}
	return p.asDifferences(found), err
}

// Found tells what the last Apply or Follow mended that somebody else had changed.
func (p *Plane) Found() []state.Difference { return p.found }

// Turned returns the ports that the last Apply or Follow began to translate for who comes from outside. They were published before, and
// left to the host.
func (p *Plane) Turned() []Port { return p.turned }

// asDifferences: without a latch it is rules alone that keep containers closed.
func (p *Plane) asDifferences(texts []string) []state.Difference {
	var out []state.Difference
	for _, text := range texts {
		out = append(out, state.Difference{Text: text, Opens: p.settings.Latch == nil})
	}
	return out
}

// DockerBridges returns the bridges of Docker's own driver that the last Apply found on the host.
func (p *Plane) DockerBridges() []string {
	if found := p.dockers.Load(); found != nil {
		return *found
	}
	return nil
}

// Undiverted names what the kernel lacks to lead containers' answers to transparent sockets, "" for nothing as far as is known.
func (p *Plane) Undiverted() string {
	if last := p.applied.Load(); last != nil && last.host.NoSocket {
		return "the kernel module nft_socket or xt_socket"
	}
	return ""
}

// Inquire says in which families DOCKER-USER has rules that must be asked about clients of the host's sockets; false while that is not known.
func (p *Plane) Inquire() (in Both, known bool) {
	last := p.applied.Load()
	if last == nil {
		return Both{}, false
	}
	in = last.host.UserRules
	in.V6 = in.V6 && !last.host.NoIPv6
	return in, true
}

// Unshown names what the kernel lacks to show what has passed DOCKER-USER, "" for nothing as far as is known.
func (p *Plane) Unshown() string {
	if last := p.applied.Load(); last != nil && last.host.NoInquiry {
		return "the kernel module nfnetlink_log, nft_log or xt_NFLOG"
	}
	return ""
}

// NoLearning is why nobody's first connection vouches for his next ones, "" where it does as far as is known.
func (p *Plane) NoLearning() string {
	if last := p.applied.Load(); last != nil {
		return last.host.NoLearning
	}
	return ""
}

// Rules returns what Apply last made true, as text; empty before the first success.
func (p *Plane) Rules() string {
	last := p.applied.Load()
	if last == nil {
		return ""
	}
	rules := p.backend.Rules(Render(last.state, last.host))
	if p.settings.Latch != nil {
		rules += p.settings.Latch.Rules(latched(last.state, last.host))
	}
	return rules
}
