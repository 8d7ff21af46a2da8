package state

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Publish is the way by which clients from outside the host come to a published port. Containers and the host itself
// are translated to the container in every mode.
type Publish string

const (
	// PublishInherit leaves the mode to the network and then to the daemon.
	PublishInherit Publish = ""
	// PublishAuto is PublishLearned where a firewall of the host is active, and PublishDNAT elsewhere.
	PublishAuto Publish = "auto"
	// PublishDNAT translates in PREROUTING, as Docker does: the packet never meets the host's INPUT rules.
	PublishDNAT Publish = "dnat"
	// PublishHost leaves packets to the host, whose INPUT rules decide, and to a socket of ours behind them.
	PublishHost Publish = "host"
	// PublishLearned is PublishHost for a client's first connection, and PublishDNAT for a while after it.
	PublishLearned Publish = "learned"
	// PublishLocalhost is for the host itself alone.
	PublishLocalhost Publish = "localhost"
)

// PublishModes are the words that ParsePublish takes.
func PublishModes() []string { return []string{"auto", "dnat", "host", "learned", "localhost"} }

// ParsePublish reads a mode.
func ParsePublish(s string) (Publish, error) {
	if !slices.Contains(PublishModes(), s) {
		return "", fmt.Errorf("%q is not one of %s", Clip(s), strings.Join(PublishModes(), ", "))
	}
	return Publish(s), nil
}

// Exposure says who from outside the host comes to published ports, and how. It is comparable; what is zero is left to who
// stands above: the network above the endpoint, the daemon above the network.
type Exposure struct {
	Publish Publish `json:"publish,omitempty"`
	// From are the sources that may come, Links the links of the host by which. Empty admits all; a list without prefixes of a
	// family keeps that family out.
	From  Prefixes  `json:"from,omitempty"`
	Links LinkNames `json:"links,omitempty"`
}

// Under returns e with what it leaves open taken from above.
func (e Exposure) Under(above Exposure) Exposure {
	return Exposure{
		Publish: cmp.Or(e.Publish, above.Publish),
		From:    cmp.Or(e.From, above.From),
		Links:   cmp.Or(e.Links, above.Links),
	}
}

// Exposure returns what counts for the ports of e; its mode is PublishInherit where neither e nor its network says.
func (s Snapshot) Exposure(e Endpoint) Exposure {
	n, _ := s.Network(e.Network)
	return e.Exposure.Under(n.Exposure)
}

// Limited reports whether some clients from outside are kept from the ports, though others may come.
func (e Exposure) Limited() bool { return e.From != "" || e.Links != "" }

// check refuses what network n cannot have.
func (e Exposure) check(n Network) error {
	routed := !n.V4.IsZero() && n.V4.Mode == ModeRouted || !n.V6.IsZero() && n.V6.Mode == ModeRouted
	if routed && (e.Publish == PublishHost || e.Publish == PublishLearned) {
		return fmt.Errorf("drawbridge.publish=%s is not possible with gateway mode routed, where clients go to the containers' own addresses and the host's INPUT rules are never asked: say who may come with drawbridge.publish.from or drawbridge.publish.iface, or choose gateway mode nat", e.Publish)
	}
	return nil
}

// Modes are what PublishInherit and PublishAuto come to at the moment: neither of them is one of the two. What is empty is
// PublishDNAT.
type Modes struct {
	Inherit Publish `json:"inherit,omitempty"`
	Auto    Publish `json:"auto,omitempty"`
	// Strict says that the host refuses what is translated: PublishHost stands in for PublishDNAT and PublishLearned.
	Strict bool `json:"strict,omitempty"`
}

// Of returns how clients from outside come to a port of a protocol. No socket of ours serves SCTP: where nobody chose a mode for the
// port, it is translated.
func (m Modes) Of(e Exposure, proto Proto) Publish {
	mode := e.Publish
	switch mode {
	case PublishInherit:
		mode = cmp.Or(m.Inherit, PublishDNAT)
	case PublishAuto:
		mode = cmp.Or(m.Auto, PublishDNAT)
	}
	switch {
	case proto == SCTP && mode != PublishLocalhost && mode != e.Publish:
		return PublishDNAT
	case proto != SCTP && m.Strict && mode != PublishLocalhost:
		return PublishHost
	}
	return mode
}

// Prefixes is a list of prefixes of both families, written with commas between them and sorted. It is comparable.
type Prefixes string

// maxPrefixes is how many one list may have: more are better kept in a set of the user's, which a rule in DRAWBRIDGE-USER names.
const maxPrefixes = 256

// ParsePrefixes reads a list of prefixes and addresses.
func ParsePrefixes(s string) (Prefixes, error) {
	if n := strings.Count(s, ",") + 1; n > maxPrefixes {
		return "", fmt.Errorf("%d prefixes are more than the %d that are possible", n, maxPrefixes)
	}
	var out []netip.Prefix
	for text := range strings.SplitSeq(s, ",") {
		p, err := parsePrefix(strings.TrimSpace(text))
		if err != nil {
			return "", err
		}
		out = append(out, p)
	}
	return JoinPrefixes(out), nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is no prefix; a list of them is written 192.0.2.0/24,2001:db8::/32", Clip(text))
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("prefix %s has host bits set: write %s", p, p.Masked())
	}
	return p, nil
}

// JoinPrefixes makes the list of valid prefixes, sorted and each once.
func JoinPrefixes(ps []netip.Prefix) Prefixes {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	texts := make([]string, 0, len(ps))
	for _, p := range slices.Compact(ps) {
		texts = append(texts, p.String())
	}
	return Prefixes(strings.Join(texts, ","))
}

// Contains reports whether one of the prefixes has the address.
func (l Prefixes) Contains(a netip.Addr) bool {
	for text := range strings.SplitSeq(string(l), ",") {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(a) {
			return true
		}
	}
	return false
}

// Family returns the prefixes of one family.
func (l Prefixes) Family(v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for text := range strings.SplitSeq(string(l), ",") {
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is6() == v6 {
			out = append(out, p)
		}
	}
	return out
}
