package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync/atomic"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Runner starts a program with the given standard input and returns what it printed.
type Runner func(ctx context.Context, stdin string, argv ...string) (string, error)

// setEditor is the part of ipset that a Backend uses.
type setEditor interface {
	grow(Set) error
	shrink(Set) error
	destroy(name string) error
	close()
}

// Backend applies policies with the iptables programs of one variant.
type Backend struct {
	run  Runner
	sets setEditor
	// lookPath finds a program, as exec.LookPath does.
	lookPath func(program string) (string, error)
	host     firewall.HostReader
	// render is Render, or what a Marked has in its place.
	render func(firewall.Family) Ruleset
	// variant is nil until it is known. It is no lock, so that who asks for it
	// does not wait for a program.
	variant atomic.Pointer[string]
}

// lockWait is how long, in seconds, iptables-restore waits for the lock that the legacy
// variant has. It is below the deadline of a call, so that the reason is told.
const lockWait = "5"

// attempts is how often a change is tried anew when somebody changed the same table
// between our reading and our writing.
const attempts = 3

// New returns a backend that will run its programs with run and looks for Docker's bridges among
// bridges. It starts none: which variant to use, and whether there is one, is found out by the
// first Sync. Sync must not be called concurrently.
func New(run Runner, bridges firewall.Bridges) (*Backend, error) {
	sets, err := newKernelSets()
	if err != nil {
		return nil, err
	}
	return newBackend(run, sets, bridges), nil
}

func newBackend(run Runner, sets setEditor, bridges firewall.Bridges) *Backend {
	return &Backend{run: run, sets: sets, host: firewall.NewHostReader(bridges), render: Render, lookPath: exec.LookPath}
}

// Close gives back what New opened. No other method may be called afterwards.
func (b *Backend) Close() { b.sets.close() }

// Sync implements firewall.Backend. Where the programs are missing its error is ErrNotInstalled.
func (b *Backend) Sync(ctx context.Context, render func(firewall.Host) firewall.Policy) error {
	variant, err := b.choose(ctx)
	if err != nil {
		return err
	}
	for range attempts {
		if err = b.sync(ctx, variant, render); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (b *Backend) sync(ctx context.Context, variant string, render func(firewall.Host) firewall.Policy) error {
	have, err := b.look(ctx, variant)
	if err != nil {
		return err
	}
	return b.write(ctx, variant, have, render(b.host.Read(have.dockerBridges())))
}

// tablesOfBoth is what both families hold; err6 says why that of IPv6 could not be read.
type tablesOfBoth struct {
	d4, d6 dump
	err6   error
}

func (t tablesOfBoth) dockerBridges() []string {
	return append(t.d4.dockerBridges(), t.d6.dockerBridges()...)
}

// look goes on where IPv6 cannot be read: ip6tables may be missing, or the kernel was booted without IPv6.
func (b *Backend) look(ctx context.Context, variant string) (tablesOfBoth, error) {
	d4, err := b.read(ctx, variant, false)
	if err != nil {
		return tablesOfBoth{}, err
	}
	d6, err6 := b.read(ctx, variant, true)
	if ctx.Err() != nil {
		return tablesOfBoth{}, errors.Join(ctx.Err(), err6)
	}
	return tablesOfBoth{d4, d6, err6}, nil
}

// write makes both families as p says. What of IPv6 could not be read is no failure where nothing is wanted there.
func (b *Backend) write(ctx context.Context, variant string, have tablesOfBoth, p firewall.Policy) error {
	if have.err6 != nil && !p.V6.IsEmpty() {
		return have.err6
	}
	// A family that fails does not keep the other from being closed.
	err := b.apply(ctx, variant, have.d4, b.render(p.V4))
	if failed := b.apply(ctx, variant, have.d6, b.render(p.V6)); failed != nil {
		// Sets that are in use belong to rules that could not be read.
		return errors.Join(err, have.err6, failed)
	}
	return err
}

// read returns what the family's tables hold.
func (b *Backend) read(ctx context.Context, variant string, v6 bool) (dump, error) {
	out, err := b.run(ctx, "", program(v6)+variant+"-save")
	if err != nil {
		return nil, fmt.Errorf("reading the firewall: %w", err)
	}
	return parse(out), nil
}

// apply closes before it opens: elements are in the sets before a rule looks for them,
// and go after the rules that led to them.
func (b *Backend) apply(ctx context.Context, variant string, d dump, want Ruleset) error {
	for _, s := range want.Sets {
		if err := b.sets.grow(s); err != nil {
			return err
		}
	}
	if text := script(d, want); text != "" {
		if err := b.restore(ctx, variant, want.V6, text); err != nil {
			return err
		}
	}
	if len(want.Sets) == 0 {
		return b.destroySets(want.V6)
	}
	for _, s := range want.Sets {
		if err := b.sets.shrink(s); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) restore(ctx context.Context, variant string, v6 bool, text string) error {
	_, err := b.run(ctx, text, program(v6)+variant+"-restore", "--noflush", "--wait", lockWait)
	if err != nil {
		return fmt.Errorf("changing the firewall: %w", err)
	}
	return nil
}

func (b *Backend) destroySets(v6 bool) error {
	var errs []error
	for _, s := range sets(firewall.Family{V6: v6}, namesOf(v6)) {
		errs = append(errs, b.sets.destroy(s.Name))
	}
	return errors.Join(errs...)
}

var _ firewall.Backend = (*Backend)(nil)
