package iptables

import (
	"context"
	"errors"

	"github.com/drawbridge-net/drawbridge/internal/effect"
)

// Purge implements firewall.Backend. It looks at all variants, since an earlier run may
// have used another one, and what fails in one of them does not spare the others. Where none is
// installed there are only sets to remove.
func (b *Backend) Purge(ctx context.Context) error {
	b.seen = nil
	variants := b.allInstalled()
	var errs []error
	for _, v6 := range []bool{false, true} {
		errs = append(errs, b.purgeFamily(ctx, variants, v6))
	}
	return errors.Join(errs...)
}

// Leftover reports whether rules of ours are on the host, in any variant and family.
func (b *Backend) Leftover(ctx context.Context) bool {
	for _, variant := range b.allInstalled() {
		for _, v6 := range []bool{false, true} {
			// What cannot be read is a variant that the kernel lacks: it holds nothing.
			if d, err := b.read(ctx, variant, v6); err == nil && script(d, Ruleset{V6: v6}) != "" {
				return true
			}
		}
	}
	return false
}

// CloseForward has FORWARD refuse what no rule accepts, where a guard of ours does so at its end, which a purge takes away: else the host
// would be a router then, since forwarding stays on. dockerd sets that policy where it turns forwarding on itself (moby
// libnetwork/drivers/bridge/setup_ip_forwarding.go). It reports whether there was a guard.
func (b *Backend) CloseForward(ctx context.Context) (closed bool, err error) {
	var errs []error
	for _, variant := range b.allInstalled() {
		for _, v6 := range []bool{false, true} {
			d, err := b.read(ctx, variant, v6)
			if _, guarded := d["filter"][chainGuard]; err != nil || !guarded {
				continue // what cannot be read has none, or is for Purge to tell
			}
			err = effect.Do("iptables.policy", func() error {
				_, err := b.run(ctx, "", program(v6)+variant, "--wait", lockWait, "-P", "FORWARD", "DROP")
				return err
			})
			closed, errs = closed || err == nil, append(errs, err)
		}
	}
	return closed, errors.Join(errs...)
}

// Installed reports whether there is any program of iptables.
func (b *Backend) Installed() bool { return len(b.allInstalled()) > 0 }

// allInstalled returns the variants whose programs are installed.
func (b *Backend) allInstalled() []string {
	var out []string
	for _, variant := range append([]string{""}, named...) {
		if b.installed(variant) {
			out = append(out, variant)
		}
	}
	return out
}

// purgeFamily takes the rules of all variants away before the sets, which each of them
// may refer to. A variant that cannot be read is one that the kernel lacks, unless there is a
// sign that it is not: nothing of IPv4 could be read, or a set is still in use.
func (b *Backend) purgeFamily(ctx context.Context, variants []string, v6 bool) error {
	var unread, errs []error
	for _, variant := range variants {
		d, err := b.read(ctx, variant, v6)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		errs = append(errs, b.restore(ctx, variant, v6, script(d, Ruleset{V6: v6})))
	}
	err := b.destroySets(v6)
	none := len(unread) == len(variants)
	if err != nil || ctx.Err() != nil || none && !v6 {
		errs = append(errs, unread...)
	}
	return errors.Join(append(errs, err)...)
}
