package iptables

import (
	"context"
	"errors"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// ErrNotInstalled says that the host has no iptables at all.
var ErrNotInstalled = errors.New("the program iptables-save is not installed: install the package iptables, or start with --iptables=false")

// named are the variants that have programs of their own, beside the host's default.
var named = []string{"-nft", "-legacy"}

// NewVariant is New for a variant that is known.
func NewVariant(run Runner, bridges firewall.Bridges, variant string) (*Backend, error) {
	b, err := New(run, bridges, untold)
	if err == nil {
		b.variant.Store(&variant)
	}
	return b, err
}

// Variant names the programs in use, for people: iptables, iptables-nft or iptables-legacy. It is
// iptables until the first Sync chose, and never waits.
func (b *Backend) Variant() string {
	if v := b.variant.Load(); v != nil {
		return "iptables" + *v
	}
	return "iptables"
}

// choose returns the variant to use, "" for the host's default programs. It looks until it
// once could, and then keeps to what it found.
func (b *Backend) choose(ctx context.Context) (string, error) {
	if v := b.variant.Load(); v != nil {
		return *v, nil
	}
	found, err := b.detect(ctx)
	if err != nil {
		return "", err
	}
	b.variant.CompareAndSwap(nil, &found) // who chose first is followed by all
	return *b.variant.Load(), nil
}

// SetDefault names the variant, -nft or -legacy, that stands for the host's default: where this process is in a container, whose
// programs without a suffix are not the host's. It is called before everything else.
func (b *Backend) SetDefault(variant string) { b.hostDefault = variant }

// detect finds the variant that dockerd uses, which is where DOCKER-USER lives. Where both or none
// hold that chain, the host's default decides, which is what dockerd runs.
func (b *Backend) detect(ctx context.Context) (string, error) {
	if !b.installed("") {
		return "", ErrNotInstalled
	}
	var found []string
	for _, variant := range named {
		if !b.installed(variant) {
			continue
		}
		// Without -t: naming a table makes the legacy variant load and create it.
		d, err := b.read(ctx, variant, false)
		if slow(ctx, err) {
			return "", errors.Join(ctx.Err(), err)
		}
		// An error means that the kernel lacks this variant: it holds nothing.
		if _, ok := d["filter"][chainDockerUser]; ok {
			found = append(found, variant)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if b.hostDefault != "" && b.installed(b.hostDefault) {
		return b.hostDefault, nil
	}
	return "", nil
}

// installed reports whether a variant's programs are there.
func (b *Backend) installed(variant string) bool {
	_, err := b.lookPath("iptables" + variant + "-save")
	return err == nil
}
