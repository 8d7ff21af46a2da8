package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/internal/process"
)

// backends are the ways to write rules. Which one it is is known from the first Sync on: until then no program is
// started and the kernel is not asked.
type backends struct {
	flag     string // --firewall-backend
	log      *slog.Logger
	iptables *iptables.Backend
	marked   *iptables.Marked
	nftables *nftables.Backend

	chosen atomic.Pointer[choice] // no lock, so that who asks for it does not wait for a program
	// alone says that nothing of the other backend is on the host.
	alone bool
}

// backend is a firewall.Backend that says its name.
type backend interface {
	firewall.Backend
	Variant() string
}

// choice is a backend and the reason for it.
type choice struct {
	backend
	reason string
}

// newBackends opens both backends, which look for Docker's bridges among bridges. The variant of iptables is the host's default, ""
// where that is what the programs without a suffix are.
func newBackends(flag string, bridges firewall.Bridges, variant string, log *slog.Logger) (*backends, error) {
	b := &backends{flag: flag, log: log}
	var err error
	if b.marked, err = iptables.NewMarked(process.Run, nftables.MarkPermitted); err != nil {
		b.Close()
		return nil, err
	}
	if b.nftables, err = nftables.New(b.marked, bridges); err != nil {
		b.Close()
		return nil, err
	}
	b.marked.SetDefault(variant)
	b.nftables.Committed = func(took time.Duration) { log.Debug("nftables transaction", "duration", took) }
	if b.iptables, err = iptables.New(process.Run, bridges, b.nftables.Generation); err != nil {
		b.Close()
		return nil, err
	}
	b.iptables.SetDefault(variant)
	return b, nil
}

// hostVariant is the variant of iptables that is the host's default, as seen from a container by the root of the host's first process.
func hostVariant(proc string) string {
	if proc == defaultProc {
		return "" // our programs are the host's
	}
	return iptables.HostDefault(filepath.Join(proc, "1", "root"))
}

// Close gives back what newBackends opened.
func (b *backends) Close() {
	if b.iptables != nil {
		b.iptables.Close()
	}
	if b.marked != nil {
		b.marked.Close()
	}
	if b.nftables != nil {
		b.nftables.Close()
	}
}

// Sync implements firewall.Backend. A backend that an earlier run had loses its rules when the new one's are in
// force. What nftables finds of iptables is replaced by its own Sync, rule by rule.
func (b *backends) Sync(ctx context.Context, w firewall.Wanted) error {
	c, err := b.choose(ctx)
	if err != nil {
		return err
	}
	if err := c.Sync(ctx, w); err != nil {
		return err
	}
	if c.backend == b.iptables && !b.alone {
		if err := b.nftables.RemoveTable(ctx); err != nil {
			return err
		}
	}
	b.alone = true
	return nil
}

// Follow implements firewall.Backend. The first call is Sync's.
func (b *backends) Follow(ctx context.Context, w firewall.Wanted) error {
	if c := b.chosen.Load(); c != nil && b.alone {
		return c.Follow(ctx, w)
	}
	return b.Sync(ctx, w)
}

// Inspect implements firewall.Backend.
func (b *backends) Inspect(ctx context.Context, w firewall.Wanted) ([]string, error) {
	c, err := b.choose(ctx)
	if err != nil {
		return nil, err
	}
	return c.Inspect(ctx, w)
}

// choose returns the backend to use. It looks until it once could, and then keeps to what it found.
func (b *backends) choose(ctx context.Context) (choice, error) {
	if c := b.chosen.Load(); c != nil {
		return *c, nil
	}
	c, err := b.find(ctx)
	if err != nil {
		return choice{}, err
	}
	b.chosen.Store(&c)
	b.log.InfoContext(ctx, "chose how rules are written", "backend", c.Variant(), "reason", c.reason)
	return c, nil
}

func (b *backends) find(ctx context.Context) (choice, error) {
	switch b.flag {
	case "iptables":
		return choice{b.iptables, "--firewall-backend says so"}, nil
	case "nftables":
		if err := b.nftables.Usable(); err != nil {
			return choice{}, fmt.Errorf("--firewall-backend nftables is not possible here: %w; --firewall-backend=iptables, or auto, may be", err)
		}
		return choice{b.nftables, "--firewall-backend says so"}, nil
	}
	return b.follow(ctx)
}

// follow chooses as Docker did on this host.
func (b *backends) follow(ctx context.Context) (choice, error) {
	f := facts{unusable: b.nftables.Usable()}
	f.earlier = f.unusable == nil && b.nftables.Leftover(ctx)
	var err error
	if f.docker, err = b.iptables.Docker(ctx); err != nil && !f.earlier {
		return choice{}, err
	}
	if f.table, err = b.nftables.Docker(); err != nil {
		return choice{}, err
	}
	native, reason := f.choose()
	if native {
		return choice{b.nftables, reason}, nil
	}
	return choice{b.iptables, reason}, nil
}

// facts are what the choice of a backend depends on.
type facts struct {
	unusable error           // why nftables cannot be used
	earlier  bool            // an earlier run's table is there
	docker   iptables.Docker // what Docker has in iptables
	table    bool            // Docker's own table is in nftables
}

// choose says whether to use nftables, and why. Before dockerd's first start there is nothing to follow; what was
// chosen then is kept while its rules are there, and does not change with the next start.
func (f facts) choose() (native bool, reason string) {
	switch {
	case f.unusable != nil:
		return false, f.unusable.Error()
	case f.earlier:
		return true, "the rules of an earlier run are in nftables"
	case f.docker == iptables.DockerRules:
		return false, "Docker's chains are in iptables"
	case f.table:
		return true, "Docker's table is in nftables"
	case f.docker == iptables.DockerUser:
		return false, "DOCKER-USER is in iptables"
	}
	return true, "Docker has no rules on this host"
}

// Rules implements firewall.Backend.
func (b *backends) Rules(p firewall.Policy) string {
	if c := b.chosen.Load(); c != nil {
		return c.Rules(p)
	}
	return ""
}

// Variant names the chosen backend, "" while there is none.
func (b *backends) Variant() string {
	if c := b.chosen.Load(); c != nil {
		return c.Variant()
	}
	return ""
}

// watchMarked calls changed when somebody changes rules of legacy iptables that are beside nftables', of which that does not know.
func (b *backends) watchMarked(ctx context.Context, changed func(reason string)) error {
	return b.marked.Watch(ctx, func(reason string) {
		b.nftables.Suspect()
		changed(reason)
	})
}

// forgetLearned returns what has clients judged anew when a program has changed the rules of nf_tables, unless it was us.
func (b *backends) forgetLearned(ctx context.Context) func(program string) {
	own, _ := os.ReadFile("/proc/self/comm") // as the kernel names us
	return func(program string) {
		if program == "" || program != strings.TrimSpace(string(own)) {
			b.forget(ctx)
		}
	}
}

// forget has clients judged anew.
func (b *backends) forget(ctx context.Context) {
	if c := b.chosen.Load(); c == nil || c.backend != b.nftables {
		return // that of iptables learns nobody
	}
	if err := b.nftables.ForgetLearned(ctx); err != nil && ctx.Err() == nil {
		b.log.WarnContext(ctx, "clients that the host's firewall let in may come for some seconds more", "error", err)
	}
}

// Purge implements firewall.Backend, for all backends.
func (b *backends) Purge(ctx context.Context) error {
	return errors.Join(b.nftables.RemoveTable(ctx), b.iptables.Purge(ctx), nftables.RemoveLatch())
}

// Leftover reports whether rules of ours are on the host.
func (b *backends) Leftover(ctx context.Context) bool {
	return b.nftables.Leftover(ctx) || nftables.LatchLeft() || b.iptables.Leftover(ctx)
}

// leftoverRules returns backends that are to look for rules of ours and remove them. They render none, so that
// Docker's bridges do not matter to them.
func leftoverRules() (*backends, error) {
	return newBackends("auto", func() ([]string, error) { return nil, nil }, "", slog.New(slog.DiscardHandler))
}

var _ firewall.Backend = (*backends)(nil)
