package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Latch is a table of its own, inet drawbridge-latch, that refuses new connections to and from our bridges unless the rules that
// decide over them say with a bit of the packet's mark that they have seen the packet. Whoever flushes those rules opens nothing: the
// latch stays, because the kernel lets nobody but its owner change it, not even by `nft flush ruleset`.
//
// The owner is the socket that the Latch keeps open (NFT_TABLE_F_OWNER, kernel 5.12). Where the kernel knows NFT_TABLE_F_PERSIST
// (6.9) the table outlives the owner, and the next Latch takes it over; but while it has none it is flushed like any other. With
// an older kernel it is there while the owner is. So another process has a copy of the socket (Keeper) when the daemon goes.
//
// Whoever takes a bridge out of its device group, by which rules know our bridges, opens nothing either: the latch has their names.
//
// It works for either backend: [MarkPermitted] is this table's word and [firewall.MarkPassed] that of iptables.
type Latch struct {
	kernel *kernel
	// Keeper has the socket while no daemon runs; nil for nobody.
	Keeper Keeper
	// given says that it has it.
	given bool
	// held is what the table has; known is false before it was read, and after a failure.
	held  *held
	known bool
}

const latchName = tableName + "-latch"

const (
	chainLatch  = "forward"
	setLatch    = "bridges"
	flagOwner   = 2 // NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST of the kernel's nf_tables.h
	flagPersist = 4
)

// NewLatch opens a latch in the current network namespace. It fails where the kernel cannot have one, and changes nothing.
func NewLatch() (*Latch, error) {
	var err error
	for _, flags := range []uint32{flagOwner | flagPersist, flagOwner} {
		var k *kernel
		if k, err = newKernel(latchName, flags); err != nil {
			return nil, err
		}
		if err = k.check(difference(nil, latch(firewall.Latched{V4: true, V6: true, Bridges: []string{"br-check"}}))); err == nil {
			return &Latch{kernel: k}, nil
		}
		k.close()
	}
	return nil, fmt.Errorf("the kernel has no tables with an owner (Linux 5.12): %w", err)
}

// Close gives the socket back. A kernel before 6.9 takes the table with it.
func (l *Latch) Close() { l.kernel.close() }

// latch returns the table for some bridges.
//
// The chain stands right behind those that put the bit on packets (mangle of iptables, -150, and forward of ours, -2), so that
// hardly anybody's rules come between who could take it off. The bit of iptables has no other reader and goes here; packets that do not
// concern our bridges keep theirs.
//
// The bridges are known by their device group, as to all rules, and by their names: whichever somebody else changes, the other is left.
// The rules say of a bridge out of its group that they have seen nothing, so that it is closed until it is back.
func latch(l firewall.Latched) Ruleset {
	var family []Part
	switch {
	case !l.V4 && !l.V6:
		return Ruleset{}
	case !l.V6:
		family = []Part{familyOf(false).only()}
	case !l.V4:
		family = []Part{familyOf(true).only()}
	}
	with := func(parts ...Part) []Part { return slices.Concat(parts[:1], family, parts[1:]) } // most packets are not new
	bridges := Set{Name: setLatch, Key: []datatype{ifname}}
	for _, name := range l.Bridges {
		bridges.Elements = append(bridges.Elements, Element{Key: packName(name)})
	}
	return Ruleset{
		Sets: []Set{bridges.sorted()},
		Chains: []Chain{{Name: chainLatch, Base: Base{"filter", unix.NF_INET_FORWARD, -1}, Rules: []Rule{
			rule("to a container, and no rule has seen it", with(fresh, unseen, toOurs, drop)...),
			rule("from a container, and no rule has seen it", with(fresh, unseen, fromOurs, drop)...),
			rule("to a container whose bridge is out of its group", with(fresh, unseen, in(setLatch, oif), drop)...),
			rule("from a container whose bridge is out of its group", with(fresh, unseen, in(setLatch, iif), drop)...),
			rule("to a container, and seen", passed, toOurs, clearPassed),
			rule("from a container, and seen", passed, fromOurs, clearPassed),
		}}},
	}
}

// What the latch looks at.
var (
	// What somebody has not tracked (NOTRACK) is never established: rules see, and mark, each packet.
	fresh  = ctBits("ct state new,invalid,untracked", expr.CtKeySTATE, expr.CtStateBitNEW|expr.CtStateBitINVALID|expr.CtStateBitUNTRACKED)
	unseen = Part{Text: fmt.Sprintf("meta mark & %#x == 0", MarkPermitted|firewall.MarkPassed), Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg}, masked(native(MarkPermitted | firewall.MarkPassed)), equal(native(0)),
	}}
	passed      = hasMark(firewall.MarkPassed)
	setPassed   = markWith(fmt.Sprintf("meta mark | %#x", firewall.MarkPassed), firewall.MarkPassed, firewall.MarkPassed)
	clearPassed = markWith(fmt.Sprintf("meta mark & %#x", ^firewall.MarkPassed), firewall.MarkPassed, 0)
)

// Hold implements firewall.Latch.
func (l *Latch) Hold(ctx context.Context, want firewall.Latched) error {
	var err error
	for range attempts {
		err = l.hold(latch(want))
		if ctx.Err() != nil || !errors.Is(err, errChanged) && !l.release(ctx, err) {
			break
		}
	}
	if l.Keeper != nil && errors.Is(err, unix.EPERM) {
		return nil // who does not let it go keeps it closed; the next call tries again
	}
	if err == nil {
		err = l.give(l.held != nil)
	}
	if err != nil {
		return fmt.Errorf("table inet %s: %w", latchName, err)
	}
	return nil
}

// hold looks at the whole table once. From then on it is as it was left, for nobody else may change it: all that it asks is whether it
// is there.
func (l *Latch) hold(want Ruleset) error {
	var now held
	there, err := l.kernel.exists(&now)
	if err != nil {
		return err
	}
	var gen uint32 // any
	if have := l.held; !l.known || there != (have != nil) || now.broken && there {
		l.known = false
		if gen, err = l.kernel.generation(); err != nil {
			return err
		}
		if l.held, err = l.kernel.read(); err != nil {
			return err
		}
	}
	if edits := difference(l.held, want); len(edits) > 0 {
		l.known = false
		if _, err := l.kernel.commit(gen, edits); err != nil {
			return err
		}
	}
	l.held, l.known = want.holds(), true
	return nil
}

// Inspect implements firewall.Latch.
func (l *Latch) Inspect(want firewall.Latched) ([]string, error) {
	have, err := l.kernel.read()
	if err != nil {
		return nil, err
	}
	return words(latchName, have, latch(want)), nil
}

// Rules implements firewall.Latch.
func (l *Latch) Rules(want firewall.Latched) string {
	if r := latch(want); !r.IsEmpty() {
		return r.text(latchName)
	}
	return ""
}

// RemoveLatch removes what a daemon left behind. A table of that name that is not ours stays, and that of a daemon that runs
// is an error.
func RemoveLatch() error {
	k, err := newKernel(latchName, 0)
	if err != nil {
		return err
	}
	defer k.close()
	for range attempts {
		if err = removeLatch(k); !errors.Is(err, errChanged) {
			break
		}
	}
	return err
}

func removeLatch(k *kernel) error {
	gen, err := k.generation()
	if lacking(err) {
		return nil
	}
	have, err := k.read()
	if err != nil || have == nil {
		if errors.Is(err, foreign(latchName)) {
			err = nil
		}
		return err
	}
	_, err = k.commit(gen, []edit{deleteTable{}})
	return err
}

// LatchLeft reports whether a latch is on the host.
func LatchLeft() bool {
	k, err := newKernel(latchName, 0)
	if err != nil {
		return false
	}
	defer k.close()
	have, err := k.read()
	return err == nil && have != nil
}

var _ firewall.Latch = (*Latch)(nil)
