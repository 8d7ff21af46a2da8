package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Runner starts a program with the given standard input and returns what it printed.
type Runner func(ctx context.Context, stdin string, argv ...string) (string, error)

// setEditor is the part of ipset that Sync uses.
type setEditor interface {
	grow(Set) error
	shrink(Set) error
	destroy(name string) error
}

// Backend applies policies with the iptables programs of one variant.
type Backend struct {
	run  Runner
	sets setEditor
	// variant is "" for the host's default programs, "-nft" or "-legacy".
	variant string
}

// lockWait is how long, in seconds, iptables-restore waits for the lock that the legacy
// variant has. It is below the deadline of a call, so that the reason is told.
const lockWait = "5"

// attempts is how often a change is tried anew when somebody changed the same table
// between our reading and our writing.
const attempts = 3

// New returns a backend that runs its programs with run. It chooses the variant in which
// DOCKER-USER lives, and the host's default where there is none yet.
func New(ctx context.Context, run Runner) (*Backend, error) {
	sets, err := newKernelSets()
	if err != nil {
		return nil, err
	}
	variant, err := detect(ctx, run)
	if err != nil {
		return nil, err
	}
	return &Backend{run: run, sets: sets, variant: variant}, nil
}

// Variant names the programs in use, for people.
func (b *Backend) Variant() string { return "iptables" + b.variant }

// detect finds the variant that dockerd uses. Where both hold a DOCKER-USER chain, the host's
// default decides, which is what dockerd runs.
func detect(ctx context.Context, run Runner) (string, error) {
	if _, err := exec.LookPath("iptables-save"); err != nil {
		return "", fmt.Errorf("the program iptables-save is not installed: install the package iptables, or start with --iptables=false")
	}
	var found []string
	for _, variant := range []string{"-nft", "-legacy"} {
		save := "iptables" + variant + "-save"
		if _, err := exec.LookPath(save); err != nil {
			continue
		}
		// Without -t: naming a table makes the legacy variant load and create it.
		out, err := run(ctx, "", save)
		if err != nil {
			continue // the kernel lacks this variant
		}
		if _, ok := parse(out)["filter"][chainDockerUser]; ok {
			found = append(found, variant)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return "", nil
}

// Sync implements firewall.Backend.
func (b *Backend) Sync(ctx context.Context, render func(firewall.Host) firewall.Policy) error {
	var err error
	for range attempts {
		if err = b.sync(ctx, render); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (b *Backend) sync(ctx context.Context, render func(firewall.Host) firewall.Policy) error {
	var dumps []dump
	var host firewall.Host
	for _, v6 := range []bool{false, true} {
		d, err := b.read(ctx, v6)
		if err != nil {
			return err
		}
		dumps = append(dumps, d)
		host.DockerBridges = append(host.DockerBridges, d.dockerBridges()...)
	}
	// A family that fails does not keep the other from being closed.
	var errs []error
	for i, f := range render(host).Families() {
		errs = append(errs, b.apply(ctx, dumps[i], Render(f)))
	}
	return errors.Join(errs...)
}

// read returns what the family's tables hold. A host without IPv6 has nothing.
func (b *Backend) read(ctx context.Context, v6 bool) (dump, error) {
	out, err := b.run(ctx, "", program(v6)+b.variant+"-save")
	if err != nil {
		return nil, fmt.Errorf("reading the firewall: %w", err)
	}
	return parse(out), nil
}

// apply closes before it opens: elements are in the sets before a rule looks for them,
// and go after the rules that led to them.
func (b *Backend) apply(ctx context.Context, d dump, want Ruleset) error {
	for _, s := range want.Sets {
		if err := b.sets.grow(s); err != nil {
			return err
		}
	}
	if text := script(d, want); text != "" {
		if err := b.restore(ctx, want.V6, text); err != nil {
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

func (b *Backend) restore(ctx context.Context, v6 bool, text string) error {
	_, err := b.run(ctx, text, program(v6)+b.variant+"-restore", "--noflush", "--wait", lockWait)
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

// Purge implements firewall.Backend. It looks at both variants, since an earlier run may
// have used the other one.
func (b *Backend) Purge(ctx context.Context) error {
	var errs []error
	for _, variant := range b.purgeable() {
		other := Backend{run: b.run, sets: noSets{}, variant: variant}
		for _, v6 := range []bool{false, true} {
			d, err := other.read(ctx, v6)
			if err == nil {
				err = other.apply(ctx, d, Ruleset{V6: v6})
			}
			errs = append(errs, err)
		}
	}
	for _, v6 := range []bool{false, true} {
		errs = append(errs, b.destroySets(v6))
	}
	return errors.Join(errs...)
}

// purgeable returns the variants whose programs are installed.
func (b *Backend) purgeable() []string {
	out := []string{b.variant}
	for _, variant := range []string{"-nft", "-legacy"} {
		if _, err := exec.LookPath("iptables" + variant + "-save"); err == nil && !slices.Contains(out, variant) {
			out = append(out, variant)
		}
	}
	return out
}

// noSets stands in for the sets while the rules of one variant go: the other variant's may
// still refer to them.
type noSets struct{}

func (noSets) grow(Set) error       { return nil }
func (noSets) shrink(Set) error     { return nil }
func (noSets) destroy(string) error { return nil }

var _ firewall.Backend = (*Backend)(nil)
