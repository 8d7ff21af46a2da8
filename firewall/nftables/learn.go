package nftables

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// maxLearned bounds the set of those who were let in. Who finds it full comes the slower way each time.
const maxLearned = 1 << 16

// letIn leads to learn what was let in by everybody who refuses: a packet of a connection that both sides speak on, so that nobody can
// have invented its source.
func letIn(n names) Rule {
	return rule("whom the host let in", n.only(), fromOthers, notLo, answered, original, jump(n.learn))
}

// learn notes who came to a learned port. Each connection does so once, and a label of the connection remembers it: a firewall lets
// in what belongs to a connection without looking again, so that a long one would go on to vouch for new ones.
func learn(n names) Chain {
	c := Chain{Name: n.learn, Rules: []Rule{rule("has vouched already", labelled, back)}}
	for _, p := range n.learning.holding(n) {
		c.Rules = append(c.Rules, rule("vouches for the next ones", p, note(n.learned, n.visit()...), label, back))
	}
	return c
}

// learnSets are the sets of learned ports without their elements, and that of who was let in.
func learnSets(f firewall.Family, n names) []Set {
	sets := placeSets(n.learning, n)
	return append(sets, Set{
		Name: n.learned, Key: []datatype{n.addr, ifname, n.addr, proto, service}, Timeout: cmp.Or(f.LearnedTime, firewall.DefaultLearnedTime), Size: maxLearned,
	})
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
		name := namesOf(v6).learned
		some, err := b.kernel.hasElements(name)
		if err != nil {
			return err
		}
		if some {
			edits = append(edits, flushSet{name})
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
