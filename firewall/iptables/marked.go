package iptables

import (
	"context"
	"errors"
	"fmt"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Marked keeps iptables from refusing what another backend permits. That backend sets a bit of the packet's mark on
// what may pass, and Marked has iptables accept packets with the bit that come from or go to our bridges, behind
// DOCKER-USER. The users' chains and the guard are those of [Backend]; sets and other rules of ours there are none: those
// that a Backend left are taken away by the first Write.
type Marked struct {
	backend *Backend
	// have is what Read saw, until it is written to; done is what was last made true, while have is nil.
	have *tablesOfBoth
	done string
	// last is what was last made true, whether somebody has read since then or not.
	last string
}

// NewMarked returns what accepts packets with the bit. It runs its programs with run.
func NewMarked(run Runner, bit uint32) (*Marked, error) {
	b, err := New(run, nil, untold)
	if err != nil {
		return nil, err
	}
	b.render = func(f firewall.Family) Ruleset { return renderMarked(f, bit) }
	return &Marked{backend: b}, nil
}

// NewMarkedVariant is NewMarked for a variant that is known, as "-nft" or "-legacy".
func NewMarkedVariant(run Runner, bit uint32, variant string) (*Marked, error) {
	m, err := NewMarked(run, bit)
	if err == nil {
		m.backend.variant.Store(&variant)
	}
	return m, err
}

// SetDefault is Backend's.
func (m *Marked) SetDefault(variant string) { m.backend.SetDefault(variant) }

// Close gives back what NewMarked opened.
func (m *Marked) Close() { m.backend.Close() }

// Read looks at the rules that are there, and returns what those of others tell. It is false where no
// iptables is installed.
func (m *Marked) Read(ctx context.Context) (o firewall.Others, installed bool, err error) {
	m.have, m.done = nil, ""
	variant, err := m.backend.choose(ctx)
	if errors.Is(err, ErrNotInstalled) {
		return o, false, nil
	}
	if err != nil {
		return o, true, err
	}
	m.backend.legacy.begin()
	have, err := m.backend.look(ctx, variant)
	if err != nil {
		return o, true, err
	}
	m.have = &have
	return have.others(), true, nil
}

// Write makes the rules what the policy needs. Without a Read since the last Write it does nothing where that has not
// changed, and starts no program. It says in words what of the rules somebody else had changed.
func (m *Marked) Write(ctx context.Context, p firewall.Policy) (mended []string, err error) {
	text := "# " + m.Rules(p)
	if m.have == nil && m.done == text {
		return nil, nil
	}
	variant, err := m.backend.choose(ctx)
	if err != nil {
		return nil, err
	}
	for i := range attempts {
		if m.have == nil {
			if _, _, err = m.Read(ctx); err != nil {
				return nil, err
			}
		}
		have := *m.have
		have.failed = i > 0
		result, err := m.backend.write(ctx, variant, have, p)
		m.have = nil
		if err == nil {
			if result.wrote() && m.last == text {
				mended = m.backend.foreign(have, result, p)
			}
			m.done, m.last = text, text
			return mended, nil
		}
		if slow(ctx, err) || i == attempts-1 {
			return nil, err
		}
	}
	return nil, err
}

// Rules returns the rules of a policy as text.
func (m *Marked) Rules(p firewall.Policy) string { return m.backend.Rules(p) }

// Purge removes every rule of ours, as Backend's does.
func (m *Marked) Purge(ctx context.Context) error {
	m.have, m.done = nil, ""
	return m.backend.Purge(ctx)
}

// Docker is what a host's iptables has of Docker.
type Docker int

const (
	NoDocker    Docker = iota
	DockerUser         // the user's chain, and none of dockerd's: it may have had rules here, or another program made it
	DockerRules        // chains of dockerd
)

// Docker returns what the host's iptables has of Docker. A DOCKER-USER beside chains of ours does not count: we make it too.
func (b *Backend) Docker(ctx context.Context) (Docker, error) {
	variant, err := b.choose(ctx)
	if errors.Is(err, ErrNotInstalled) {
		return NoDocker, nil
	}
	if err != nil {
		return NoDocker, err
	}
	d, err := b.read(ctx, variant, false)
	if err != nil {
		return NoDocker, err
	}
	filter := d["filter"]
	has := func(chain string) bool { _, ok := filter[chain]; return ok }
	switch {
	case has("DOCKER"), has("DOCKER-FORWARD"):
		return DockerRules, nil
	case has(chainDockerUser) && !has(chainForward):
		return DockerUser, nil
	}
	return NoDocker, nil
}

// renderMarked returns the rules of one family that accept packets with the bit.
func renderMarked(f firewall.Family, bit uint32) Ruleset {
	r := Ruleset{V6: f.V6}
	if f.HasRules() {
		r.Tables = []Table{
			{Name: "mangle", User: []string{chainUser}, Jumps: []Jump{toUser}},
			filter(permitMarked(bit)),
		}
	}
	if f.Guard {
		r.guard(guard(f))
	}
	return r
}

// permitMarked accepts nothing that does not concern our bridges: others may use the bit.
func permitMarked(bit uint32) Chain {
	carries := fmt.Sprintf("-m mark --mark %#x/%#x", bit, bit)
	return Chain{Name: chainForward, Rules: []Rule{
		{Match: join(carries, toOurs), Why: "permitted by nftables", Target: "ACCEPT"},
		{Match: join(carries, fromOurs), Why: "permitted by nftables", Target: "ACCEPT"},
	}}
}
