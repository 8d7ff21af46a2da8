package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/internal/process"
)

// Runner starts a program with the given standard input and returns what it printed. It is called for both families at once.
type Runner func(ctx context.Context, stdin string, argv ...string) (string, error)

// setEditor is the part of ipset that a Backend uses.
type setEditor interface {
	// look says how a set differs from what is wanted. prepare does so, and makes it if need be, without elements.
	look(Set) (setDifference, error)
	prepare(Set) (setDifference, error)
	// add and remove change a set that is there by the elements.
	add(Set) error
	remove(Set) error
	destroy(name string) error
	close()
}

// Backend applies policies with the iptables programs of one variant.
type Backend struct {
	run  Runner
	sets setEditor
	// lookPath finds a program, as process.Find does.
	lookPath func(program string) (string, error)
	host     firewall.HostReader
	// render is Render, or what a Marked has in its place.
	render func(firewall.Family) Ruleset
	// variant is nil until it is known. It is no lock, so that who asks for it
	// does not wait for a program.
	variant atomic.Pointer[string]
	// hostDefault is what SetDefault was told, "" for the programs without a suffix.
	hostDefault string

	generation Generation
	// counted says that our changes were seen in the generation: the variant is that of nf_tables.
	counted bool
	legacy  *legacy // nil for who watches nothing, as strays is empty
	// strays each tell, for little, that somebody changed what we left.
	strays []func() (reason string)
	// seen is what is there as of the last Sync or Follow, nil if somebody has to look.
	seen *seen
	// socket is the match for sockets, and log the target that shows packets: the kernel or iptables may lack them.
	socket, log firewall.Lack
}

// seen is what the host was found to have, or was given, at one generation.
type seen struct {
	generation uint32
	tables     tablesOfBoth
	host       firewall.Host
}

// lockWait is how long, in seconds, iptables-restore waits for the lock that the legacy
// variant has. It is below the deadline of a call, so that the reason is told.
const lockWait = "5"

// attempts is how often a change is tried anew when somebody changed the same table
// between our reading and our writing.
const attempts = 3

// Generation tells the number of the host's nf_tables rules, which each transaction of anybody raises by one
// (linux/net/netfilter/nf_tables_api.c, nf_tables_commit). It does not tell of the legacy variant's.
type Generation func() (uint32, error)

// untold is for who has nobody to tell the generation: then each Follow is a Sync.
func untold() (uint32, error) { return 0, errors.ErrUnsupported }

// New returns a backend that will run its programs with run and looks for Docker's bridges among
// bridges. It starts none: which variant to use, and whether there is one, is found out by the
// first Sync. Sync must not be called concurrently.
func New(run Runner, bridges firewall.Bridges, generation Generation) (*Backend, error) {
	sets, err := newKernelSets()
	if err != nil {
		return nil, err
	}
	b := newBackend(run, sets, bridges)
	b.generation = generation
	b.heed(sets)
	return b, nil
}

// heed has Watch look at the kernel's sets and rules.
func (b *Backend) heed(sets *kernelSets) {
	b.legacy = newLegacy()
	b.strays = []func() string{sets.stray, b.legacy.stray}
}

func newBackend(run Runner, sets setEditor, bridges firewall.Bridges) *Backend {
	return &Backend{
		run: run, sets: sets, host: firewall.NewHostReader(bridges), render: Render, lookPath: process.Find,
		generation: untold,
	}
}

// Close gives back what New opened. No other method may be called afterwards.
func (b *Backend) Close() {
	b.sets.close()
	b.legacy.close()
}

// Sync implements firewall.Backend. Where the programs are missing its error is ErrNotInstalled.
func (b *Backend) Sync(ctx context.Context, w firewall.Wanted) error {
	variant, err := b.choose(ctx)
	if err != nil {
		return err
	}
	for i := range attempts {
		if err = b.sync(ctx, variant, i > 0, w); err == nil || slow(ctx, err) {
			return err
		}
	}
	return err
}

// slow reports whether ctx ended, or a failure is of a kind for which another attempt would only wait as long again: a program that
// hung, or somebody who holds the lock.
func slow(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "xtables lock")
}

// Follow implements firewall.Backend. It reads nothing where the rules are of the generation that it left, which the legacy
// variant cannot tell, and starts a program only where the policy changes rules.
func (b *Backend) Follow(ctx context.Context, w firewall.Wanted) error {
	last := b.seen
	if last == nil {
		return b.Sync(ctx, w)
	}
	now, err := b.generation()
	if err != nil || now != last.generation {
		return b.Sync(ctx, w)
	}
	if err := b.follow(ctx, *last, w); err != nil && !slow(ctx, err) {
		return b.Sync(ctx, w)
	} else if err != nil {
		return err
	}
	return nil
}

func (b *Backend) follow(ctx context.Context, last seen, w firewall.Wanted) error {
	variant, err := b.choose(ctx)
	if err != nil {
		return err
	}
	if err := b.lacks(ctx, variant, w, &last.host); err != nil {
		return err
	}
	change, ok := firewall.Change{}, false
	if w.Change != nil {
		change, ok = w.Change(last.host)
		ok = ok && sameRules(change.Before.V4, change.After.V4) && sameRules(change.Before.V6, change.After.V6)
	}
	if ok && change.IsEmpty() {
		return nil
	}
	b.seen = nil
	var result written
	if ok {
		result, err = b.writeChange(ctx, variant, last.tables, change)
	} else {
		result, err = b.write(ctx, variant, last.tables, w.Policy(last.host))
	}
	if err == nil {
		b.remember(last.generation, result, last.host)
	}
	return err
}

// sync reads all and writes what differs; after a failure it writes the chains that differ whole.
func (b *Backend) sync(ctx context.Context, variant string, again bool, w firewall.Wanted) error {
	b.seen = nil
	generation, unknown := b.generation()
	b.legacy.begin()
	have, err := b.look(ctx, variant)
	if err != nil {
		return err
	}
	host := b.host.Read(have.others())
	if err := b.lacks(ctx, variant, w, &host); err != nil {
		return err
	}
	have.failed = again
	result, err := b.write(ctx, variant, have, w.Policy(host))
	if err != nil {
		return err
	}
	if unknown == nil {
		b.remember(generation, result, host)
	}
	if result.wrote() {
		w.Report(func(last firewall.Policy) []string { return b.foreign(have, result, last) })
	}
	return nil
}

// remember keeps what the tables hold now, if nobody else has changed any since the generation before.
func (b *Backend) remember(before uint32, r written, host firewall.Host) {
	now, err := b.generation()
	if err != nil || now != before+uint32(r.changed) {
		return
	}
	b.counted = b.counted || r.changed > 0
	if b.counted && r.sure {
		b.seen = &seen{now, r.tables, host}
	}
}

// tablesOfBoth is what both families hold; err6 says why that of IPv6 could not be read. failed says that an attempt to edit
// them rule by rule did.
type tablesOfBoth struct {
	d4, d6 dump
	err6   error
	failed bool
	// ports4 and ports6 are those that the chains redirect, if it was we who wrote them.
	ports4, ports6 []firewall.Port
}

func (t tablesOfBoth) others() firewall.Others {
	return firewall.Others{
		Bridges: append(t.d4.dockerBridges(), t.d6.dockerBridges()...), BarsLoopback: t.d4.barsLoopback(),
		UserRules: firewall.Both{V4: t.d4.userRules(), V6: t.d6.userRules()},
	}
}

// look reads both families at the same time, since most of it is the start of a program. It goes on where IPv6 cannot be read:
// ip6tables may be missing, or the kernel was booted without IPv6.
func (b *Backend) look(ctx context.Context, variant string) (tablesOfBoth, error) {
	var d6 dump
	var err6 error
	var other sync.WaitGroup
	other.Go(func() { d6, err6 = b.read(ctx, variant, true) })
	d4, err := b.read(ctx, variant, false)
	other.Wait()
	if err != nil {
		return tablesOfBoth{}, err
	}
	if slow(ctx, err6) {
		return tablesOfBoth{}, errors.Join(ctx.Err(), err6)
	}
	return tablesOfBoth{d4: d4, d6: d6, err6: err6}, nil
}

// written is what a write came to.
type written struct {
	tables  tablesOfBoth
	changed int  // tables
	sure    bool // that the tables hold this
	sets    []setDifference
}

// wrote reports whether there was anything to be done.
func (w written) wrote() bool {
	return w.changed > 0 || slices.ContainsFunc(w.sets, func(d setDifference) bool { return d.words() != "" })
}

// write makes both families as p says. What of IPv6 could not be read is no failure where nothing is wanted there.
func (b *Backend) write(ctx context.Context, variant string, have tablesOfBoth, p firewall.Policy) (written, error) {
	if have.err6 != nil && !p.V6.IsEmpty() {
		return written{}, have.err6
	}
	// A family that fails does not keep the other from being closed.
	want4, want6 := b.render(p.V4), b.render(p.V6)
	if have.failed {
		have.d4, have.d6 = have.d4.blurred(want4), have.d6.blurred(want6)
	}
	v4, v6, err, err6 := bothFamilies(func(v6 bool) (change, error) {
		if v6 {
			return b.apply(ctx, variant, have.d6, want6)
		}
		return b.apply(ctx, variant, have.d4, want4)
	})
	if err6 != nil {
		// Sets that are in use belong to rules that could not be read.
		return written{}, joinErrors(err, have.err6, err6)
	}
	if err == nil && variant != "-nft" && !b.counted {
		b.legacy.end(addedTo(v4, v6))
	}
	return written{
		tables:  tablesOfBoth{d4: v4.result, d6: v6.result, err6: have.err6, ports4: p.V4.Ports, ports6: p.V6.Ports},
		changed: len(v4.adds) + len(v6.adds), sure: v4.sure && v6.sure,
		sets: slices.Concat(v4.sets, v6.sets),
	}, err
}

// bothFamilies does the same for IPv4 and IPv6 at the same time, since each waits for the kernel when it took rules away.
func bothFamilies(do func(v6 bool) (change, error)) (v4, v6 change, err4, err6 error) {
	var other sync.WaitGroup
	other.Go(func() { v6, err6 = do(true) })
	v4, err4 = do(false)
	other.Wait()
	return v4, v6, err4, err6
}

// writeChange makes a change of the policy that was written last.
func (b *Backend) writeChange(ctx context.Context, variant string, have tablesOfBoth, c firewall.Change) (written, error) {
	left4 := firewall.Exchange(have.ports4, c.Before.V4.Ports, c.After.V4.Ports)
	left6 := firewall.Exchange(have.ports6, c.Before.V6.Ports, c.After.V6.Ports)
	v4, v6, err4, err6 := bothFamilies(func(v6 bool) (change, error) {
		if v6 {
			return b.applyChange(ctx, variant, changePorts(have.d6, have.ports6, left6), c.Before.V6, c.After.V6)
		}
		return b.applyChange(ctx, variant, changePorts(have.d4, have.ports4, left4), c.Before.V4, c.After.V4)
	})
	return written{
		tables:  tablesOfBoth{d4: v4.result, d6: v6.result, err6: have.err6, ports4: left4, ports6: left6},
		changed: len(v4.adds) + len(v6.adds), sure: v4.sure && v6.sure,
	}, joinErrors(err4, err6)
}

// joinErrors is errors.Join, and says once what both families fail for.
func joinErrors(errs ...error) error {
	var out []error
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(out, func(o error) bool { return o.Error() == err.Error() }) {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// sameRules reports whether a change leaves alone the rules for networks that have a source address of their own, and those for
// ports that only some links lead to.
func sameRules(before, after firewall.Family) bool {
	n := namesOf(after.V6)
	return slices.Equal(postrouting(before, n).Rules, postrouting(after, n).Rules) && slices.Equal(hostLimits(before), hostLimits(after))
}

// applyChange does what apply does.
func (b *Backend) applyChange(ctx context.Context, variant string, c change, before, after firewall.Family) (change, error) {
	n := namesOf(after.V6)
	gone, come := sets(before, n), sets(after, n)
	differences := make([]setDifference, 0, len(come))
	for i, s := range come {
		differences = append(differences, setDifference{
			Set: s, lacks: missing(s.Elements, gone[i].Elements), surplus: missing(gone[i].Elements, s.Elements),
		})
	}
	return c, b.carryOut(ctx, variant, after.V6, c.text, differences)
}

// read returns what the family's tables hold.
func (b *Backend) read(ctx context.Context, variant string, v6 bool) (dump, error) {
	out, err := b.run(ctx, "", program(v6)+variant+"-save")
	if err != nil {
		return nil, fmt.Errorf("reading the firewall: %w", err)
	}
	return parse(out), nil
}

// apply makes rules and sets as wanted. All sets are there before a rule names them, and go when none does.
func (b *Backend) apply(ctx context.Context, variant string, d dump, want Ruleset) (change, error) {
	c := changeTo(d, want)
	for _, s := range want.Sets {
		difference, err := b.sets.prepare(s)
		if err != nil {
			return change{}, err
		}
		c.sets = append(c.sets, difference)
	}
	if err := b.carryOut(ctx, variant, want.V6, c.text, c.sets); err != nil {
		return change{}, err
	}
	if len(want.Sets) == 0 {
		return c, b.destroySets(want.V6)
	}
	return c, nil
}

// restore has iptables-restore read a text, if there is any.
func (b *Backend) restore(ctx context.Context, variant string, v6 bool, text string) error {
	if text == "" {
		return nil
	}
	err := effect.Do("iptables.restore", func() error {
		_, err := b.run(ctx, text, program(v6)+variant+"-restore", "--noflush", "--wait", lockWait)
		return err
	})
	if err != nil {
		return fmt.Errorf("changing the firewall: %w", nameExtensions(err))
	}
	return nil
}

func (b *Backend) destroySets(v6 bool) error {
	var errs []error
	for _, s := range sets(firewall.Family{V6: v6}, namesOf(v6)) {
		err := b.sets.destroy(s.Name)
		if errors.As(err, &unable{}) {
			return nil // without ipset there are no sets, and the kernel would look for the module each time
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

var _ firewall.Backend = (*Backend)(nil)
