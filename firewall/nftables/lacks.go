package nftables

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

// Usable returns why the kernel cannot take our table, nil if it can. It changes nothing.
func (b *Backend) Usable() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.kernel.generation(); lacking(err) {
		return modules{"nf_tables"}
	} else if err != nil {
		return err
	}
	h := firewall.Host{UserRules: firewall.Both{V4: true, V6: true}}
	b.lacks(firewall.Wanted{Divert: true}, &h)
	p := without(sample(), h)
	err := b.kernel.check(difference(nil, Render(p, true)))
	if err == nil {
		return nil
	}
	if m := b.missing(); len(m) > 0 {
		return m
	}
	return fmt.Errorf("the kernel does not take the rules: %w", err)
}

// modules are those that the kernel has not, and our rules cannot do without.
type modules []string

func (m modules) Error() string { return "the kernel lacks " + strings.Join(m, ", ") + " for nftables" }

// needed are rules that ask for one module each.
var needed = []struct {
	module string
	base   Base
	parts  []Part
}{
	{"nft_chain_nat", bases[chainDestination], nil},
	{"nft_ct", Base{}, []Part{established}},
	{"nft_fib_inet", Base{}, []Part{isLocal}},
	{"nft_nat", Base{}, []Part{{Text: "dnat ip to 127.0.0.1", Family: unix.NFPROTO_IPV4, Exprs: []expr.Any{
		&expr.Immediate{Register: reg, Data: []byte{127, 0, 0, 1}},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg},
	}}}},
	{"nft_masq", Base{}, []Part{masquerade}},
}

// missing asks for each module on its own.
func (b *Backend) missing() (out modules) {
	for _, n := range needed {
		c := Chain{Name: "asked", Base: n.base}
		if n.parts != nil {
			c.Rules = []Rule{rule("", n.parts...)}
		}
		if b.kernel.check(difference(nil, Ruleset{Chains: []Chain{c}})) != nil {
			out = append(out, n.module)
		}
	}
	return out
}

// without leaves out of a policy what the host lacks and it can be done without.
func without(p firewall.Policy, h firewall.Host) firewall.Policy {
	for _, f := range []*firewall.Family{&p.V4, &p.V6} {
		f.Divert, f.Inquire, f.Learns = !h.NoSocket, !h.NoInquiry, h.NoLearning == ""
		for i := range f.Ports {
			f.Ports[i].Learned = f.Ports[i].Learned && f.Learns
		}
	}
	return p
}

// lacks tells the host what its kernel cannot do of what is wanted.
func (b *Backend) lacks(w firewall.Wanted, h *firewall.Host) {
	h.NoSocket = w.Divert && b.socket.Ask(b.checkSocket, isMissing) != nil
	// Somebody may load a module for the log.
	h.NoInquiry = w.Inquires(*h) && b.log.Ask(b.checkLog, firewall.Never) != nil
	if w.Divert && b.learning.Ask(b.checkLearning, isMissing) != nil {
		h.NoLearning = noLearning
	}
}

// isMissing reports whether the kernel does not take rules for something that it has not, and so will not the next time.
func isMissing(err error) bool { return lacking(err) || errors.Is(err, unix.ENOENT) }

// checkSocket asks the kernel about the rule that looks for sockets.
func (b *Backend) checkSocket() error {
	rules := []Rule{rule("", toSocket(namesOf(false))...), rule("", toSocket(namesOf(true))...)}
	return b.kernel.check(difference(nil, Ruleset{Chains: []Chain{{Name: chainDivert, Base: bases[chainDivert], Rules: rules}}}))
}

// checkLog asks about the rule that shows packets.
func (b *Backend) checkLog() error {
	rules := append(asked(namesOf(false)), asked(namesOf(true))...)
	return b.kernel.check(difference(nil, Ruleset{Chains: []Chain{{Name: chainInquiry, Base: bases[chainInquiry], Rules: rules}}}))
}

// noLearning is what learned ports need beside the table itself.
const noLearning = "the kernel lacks labels of connections (CONFIG_NF_CONNTRACK_LABELS) or sets that rules fill (nft_set_hash)"

// checkLearning asks about the rules that note who was let in.
func (b *Backend) checkLearning() error {
	p := sample()
	rs := Ruleset{}
	for _, f := range []firewall.Family{p.V4, p.V6} {
		n := namesOf(f.V6)
		rs.Sets = append(rs.Sets, learnSets(f, n)...)
		rs.Chains = append(rs.Chains, ask(n), learn(n))
	}
	return b.kernel.check(difference(nil, rs))
}
