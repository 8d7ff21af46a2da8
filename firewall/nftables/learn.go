package nftables

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// maxLearned bounds the set of those who were let in, and that of those who may be. Who finds one full comes the slower way each time.
const maxLearned = 1 << 16

// freshTime is for how long it counts that somebody was let in who has not been answered. Who takes longer comes the slower way.
const freshTime = 3 * time.Second

// letIn leads to two chains what was let in by everybody who refuses. What begins a connection is what they have judged, but anybody can
// have invented its source. What both sides speak on has a true source, but a firewall lets in what belongs to a connection without
// looking again: one that was begun long ago would vouch for who is refused by now. So it takes both, one soon after the other.
func letIn(n names) []Rule {
	return []Rule{
		rule("whom the host lets in", n.only(), fromOthers, notLo, begun, jump(n.ask)),
		rule("whom the host let in", n.only(), fromOthers, notLo, answered, original, jump(n.learn)),
	}
}

// ask notes who begins a connection to a learned port.
func ask(n names) Chain {
	c := Chain{Name: n.ask}
	for _, p := range n.learning.holding(n) {
		c.Rules = append(c.Rules, rule("may vouch for the next ones", p, note(n.asked, n.visit()...), back))
	}
	return c
}

// learn notes who came to a learned port, and was let in a moment ago. Each connection does so once, and a label of the connection
// remembers it; one that is older than the first rule about labels has no room for it.
func learn(n names) Chain {
	c := Chain{Name: n.learn, Rules: []Rule{
		rule("has vouched already", labelled, back),
		rule("nobody was asked about him of late", notIn(n.asked, n.visit()...), back),
	}}
	for _, p := range n.learning.holding(n) {
		c.Rules = append(c.Rules, rule("vouches for the next ones", p, note(n.learned, n.visit()...), label, back))
	}
	return c
}

// learnSets are the sets of learned ports without their elements, that of who is let in, and that of who was and is true.
func learnSets(f firewall.Family, n names) []Set {
	visit := []datatype{n.addr, ifname, n.addr, proto, service}
	return append(placeSets(n.learning, n),
		Set{Name: n.asked, Key: visit, Timeout: freshTime, Size: maxLearned},
		Set{Name: n.learned, Key: visit, Timeout: cmp.Or(f.LearnedTime, firewall.DefaultLearnedTime), Size: maxLearned})
}

// labelBit is the bit of the connection's label, of which there are 128, by which it is known to have vouched. Nobody in wide use
// has labels but Open vSwitch, on connections of its own. A bit of the connection's mark would be restored into packets by those who
// keep their routing there.
const labelBit = 69

// What learns.
var (
	answered = ctBits("ct state established", expr.CtKeySTATE, expr.CtStateBitESTABLISHED)
	original = Part{Text: "ct direction original", Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, equal([]byte{0})}}
	labelled = Part{Text: fmt.Sprintf("ct label %d", labelBit), Exprs: []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: reg}, masked(labelOf(labelBit)), unequal(make([]byte, labelSize)),
	}}
	label = Part{Text: fmt.Sprintf("ct label set %d", labelBit), Exprs: []expr.Any{
		&expr.Immediate{Register: reg, Data: labelOf(labelBit)}, &expr.Ct{Key: expr.CtKeyLABELS, Register: reg, SourceRegister: true},
	}}
)

// labelSize is that of a label in bytes.
const labelSize = 16

// labelOf returns a label with one bit, as the kernel holds it: a row of words (linux/bitops.h).
func labelOf(bit int) []byte {
	out := make([]byte, labelSize)
	binary.NativeEndian.PutUint64(out[bit/64*8:], 1<<(bit%64))
	return out
}

// note adds fields to a set, for the set's time. Where they are there already, their time goes on.
func note(set string, fields ...field) Part {
	text, exprs, family := key(fields)
	return Part{
		Text:   fmt.Sprintf("add @%s { %s }", set, text),
		Exprs:  append(exprs, &expr.Dynset{SrcRegKey: reg, SetName: set, Operation: unix.NFT_DYNSET_OP_ADD}),
		Family: family,
	}
}

// forgetVisits returns what has to go along with edits that take ports from those that are learned: who was let in to them would be led to
// whom they belong to next, however that one is published.
func forgetVisits(edits []edit) []edit {
	var out []edit
	for _, v6 := range []bool{false, true} {
		n := namesOf(v6)
		if slices.ContainsFunc(edits, func(e edit) bool {
			gone, ok := e.(deleteElements)
			return ok && n.learning.has(gone.Name)
		}) {
			out = append(out, flushSet{n.asked}, flushSet{n.learned})
		}
	}
	return out
}

// ForgetLearned has the host be asked anew about everybody, since what it lets in may have changed. It may be called while another
// method runs. Where nobody was let in it changes nothing, and then nobody hears of a new generation.
func (b *Backend) ForgetLearned(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	for range attempts {
		if err = b.forget(); !errors.Is(err, errChanged) {
			return err
		}
	}
	return err
}

func (b *Backend) forget() error {
	gen, err := b.kernel.generation()
	if err != nil {
		return err
	}
	var edits []edit
	for _, v6 := range []bool{false, true} {
		n := namesOf(v6)
		for _, name := range []string{n.asked, n.learned} {
			some, err := b.kernel.hasElements(name)
			if err != nil {
				return err
			}
			if some {
				edits = append(edits, flushSet{name})
			}
		}
	}
	if len(edits) == 0 {
		return nil
	}
	if _, err := b.kernel.commit(gen, edits); err != nil {
		return err
	}
	if b.known && gen == b.gen {
		b.gen = next(gen)
	}
	return nil
}
