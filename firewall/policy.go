package firewall

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Policy is what the firewall has to do, in both families.
type Policy struct {
	V4, V6 Family
}

// Families returns V4 and V6, for code that treats both alike.
func (p Policy) Families() []Family { return []Family{p.V4, p.V6} }

// Both says something of each family.
type Both struct{ V4, V6 bool }

// Of returns what is said of a family.
func (b Both) Of(v6 bool) bool {
	if v6 {
		return b.V6
	}
	return b.V4
}

// Any reports whether it is said of one.
func (b Both) Any() bool { return b.V4 || b.V6 }

// Family is the policy of one address family. Its slices are sorted.
type Family struct {
	V6       bool
	Networks []Network
	// Ports are redirected from the host, Open ones are open at the container's own address.
	Ports []Port
	Open  []Target
	// Links are what containers of a network that keeps them apart may reach of each other.
	Links []Link
	// Strangers says that there are networks without this family whose bridges could carry it all the
	// same, if a container gave itself an address: they must stay closed in it.
	Strangers bool
	// DockerBridges are the bridges of Docker's own driver, which our networks
	// are isolated from.
	DockerBridges []string
	// Loopback leads from the host's loopback addresses to published ports by translation too. IPv6 cannot.
	Loopback bool
	// Divert leads what containers answer to transparent sockets of the host to these (state.MarkDivert).
	Divert bool
	// Inquire translates packets that ask about clients of such sockets (state.MarkInquiry), shows those that have passed DOCKER-USER, and
	// drops them.
	Inquire bool
	// Guard refuses forwarding between interfaces that have nothing to do with
	// containers, because it was us who turned the host's forwarding on.
	Guard bool
	// BridgeNetfilter tells the guard to pass what is bridged: see Host.
	BridgeNetfilter bool
	// Latched says that there is a Latch, which must be told what has been seen.
	Latched bool
	// Limited says that there are Limits: ports that are not for everybody from outside. The family has them though no network has
	// the family, since a proxy may serve its addresses.
	Limited bool
	Limits  []Limit
	// Learns says that Ports are Learned, and LearnedTime for how long; 0 is DefaultLearnedTime.
	Learns      bool
	LearnedTime time.Duration
}

// DefaultLearnedTime is how long a client that the host let in is translated without being asked again.
const DefaultLearnedTime = 10 * time.Second

// HasBridges reports whether there are bridges of ours that packets of this family could pass.
func (f Family) HasBridges() bool { return len(f.Networks) > 0 || f.Strangers }

// HasRules reports whether there is more to do than to guard.
func (f Family) HasRules() bool { return f.HasBridges() || f.Limited }

// IsEmpty reports whether the family needs no rules at all.
func (f Family) IsEmpty() bool { return !f.HasRules() && !f.Guard }

// Network is a container network as the firewall sees it.
type Network struct {
	Prefix netip.Prefix
	Bridge string
	// Masquerade rewrites the source of what leaves for elsewhere to the host's address, or
	// to SNAT where that is given.
	Masquerade bool
	SNAT       netip.Addr
	// NoICC refuses what containers of the network send each other, but for Links and Ports.
	NoICC bool
	// Routed lets ICMP in: containers are reached at their own addresses, and are to answer.
	Routed bool
	// Unprotected lets everything in that comes from outside the host's container networks.
	Unprotected bool
	// Trusted are links from which published ports may be reached at the containers' own addresses.
	Trusted []string
}

// Target is a port of a container.
type Target struct {
	Proto state.Proto
	Addr  netip.AddrPort
}

// Link lets one container reach a port of another.
type Link struct {
	From netip.Addr
	To   Target
}

// Port is a published port in one family.
type Port struct {
	Proto state.Proto
	// Host is the address of the host that the port is restricted to; the zero
	// Addr stands for every local address, the loopback ones among them where Family.Loopback is.
	Host netip.Addr
	// Proxied leaves the loopback addresses to a socket (package publish) all the same.
	Proxied  bool
	HostPort uint16
	Target   netip.AddrPort // the container
	// Inside leaves to the host, with its INPUT rules and its sockets, what comes from outside: from links that are no bridges of
	// ours. Containers and the host itself are translated as ever.
	Inside bool
	// Learned translates who comes from outside all the same, where the host let him in a moment ago.
	Learned bool
}

// Forwarded reports whether packets of others than the host itself come by the port: by a loopback address none do.
func (p Port) Forwarded() bool { return !p.Host.IsLoopback() }

// Limit says who from outside may come to a published port, at the host's address or at the container's own. No two of a family are
// of one place.
type Limit struct {
	Proto state.Proto
	// Host is an address of the host or, with Direct, of the container; the zero Addr stands for every address of the host.
	Host   netip.Addr
	Port   uint16
	Direct bool
	Of     state.EndpointID // that publishes it
	// BySource admits only the sources in From, which may be nobody. Links, unless empty, are the only links by which one may come.
	BySource bool
	From     state.Prefixes // of the family
	Links    state.LinkNames
}

// Host is what Render must know beside the state.
type Host struct {
	// NoIPv6 leaves IPv6 without rules, as in Settings.
	NoIPv6 bool
	// Loopback leads the host's loopback addresses to networks by translation, to all but those that are Proxied.
	Loopback bool
	Proxied  []state.NetworkID
	// BarsLoopback is that of Others. All ports are left to the proxy then; the rest of the rules stays, as the links do.
	BarsLoopback bool
	// Divert says that there are, or may come, transparent sockets to containers. NoSocket says that the kernel cannot tell what is
	// for them: then all goes on without.
	Divert, NoSocket bool
	// UserRules is that of Others. NoInquiry says that the kernel cannot show what has passed them: nobody who is asked about is let in.
	UserRules Both
	NoInquiry bool
	// NoLearning is why the kernel or the backend cannot note who was let in, "" where that works: then no port is Learned.
	NoLearning string
	// DockerBridges are the bridges of Docker's own driver found on the host.
	DockerBridges []string
	// Modes are what state.PublishInherit and state.PublishAuto come to; LearnedTime is that of Family.
	Modes       state.Modes
	LearnedTime time.Duration
	// BridgeNetfilter is true where the kernel has br_netfilter, which may show
	// frames that stay within a bridge to the firewall as if they were forwarded
	// (net.bridge.bridge-nf-call-iptables).
	BridgeNetfilter bool
	// Latched says that there is a Latch.
	Latched bool
}

func (h Host) equal(o Host) bool {
	return h.NoIPv6 == o.NoIPv6 && h.Loopback == o.Loopback && slices.Equal(h.Proxied, o.Proxied) && h.BarsLoopback == o.BarsLoopback &&
		h.Modes == o.Modes && h.LearnedTime == o.LearnedTime && h.Latched == o.Latched &&
		h.Divert == o.Divert && h.NoSocket == o.NoSocket && h.UserRules == o.UserRules && h.NoInquiry == o.NoInquiry && h.NoLearning == o.NoLearning &&
		h.BridgeNetfilter == o.BridgeNetfilter && slices.Equal(h.DockerBridges, o.DockerBridges)
}

// leadsLoopback reports whether loopback addresses may lead to the network by translation.
func (h Host) leadsLoopback(n state.Network) bool {
	return h.Loopback && !n.V4.IsZero() && !slices.Contains(h.Proxied, n.ID)
}

// diverts reports whether there is anything to be led to transparent sockets, and the kernel can tell it.
func (h Host) diverts() bool { return h.Divert && !h.NoSocket }

// learns reports whether who comes to a port of the protocol is let in by the host first, and translated after that.
func (h Host) learns(e state.Exposure, proto state.Proto) bool {
	return h.NoLearning == "" && proto != state.SCTP && h.Modes.Of(e, proto) == state.PublishLearned
}

// inquires reports whether there is anything to be asked about clients of the host's sockets, and the kernel can answer.
func (h Host) inquires(v6 bool) bool { return h.Divert && h.UserRules.Of(v6) && !h.NoInquiry }

// Inquires reports whether the kernel has to show what has passed a user's rules.
func (w Wanted) Inquires(h Host) bool { return w.Divert && h.UserRules.Any() }

// Settings are the daemon's.
type Settings struct {
	// NoIPv6 leaves IPv6 without rules (--ip6tables=false).
	NoIPv6 bool
	// Loopback says to which networks the host's loopback addresses may lead by translation (link.Links.LeadsLoopback); nil
	// for none. It is asked with each Apply and Follow.
	Loopback func(state.Network) bool
	// BarsLoopback says that the host refuses the answers all the same, beside what rules tell of it (Others); nil for never.
	BarsLoopback func() bool
	// Latch is held while there are bridges; nil for none.
	Latch Latch
	// Publish says what state.PublishInherit and state.PublishAuto come to at the moment; nil for state.PublishDNAT both. It is asked
	// with each Apply and Follow, as Loopback is.
	Publish func() state.Modes
	// LearnedTime is that of Family.
	LearnedTime time.Duration
	// Divert says whether transparent sockets may lead to containers of a state (state.Snapshot.ByHost); nil for never.
	Divert func(state.Snapshot) bool
	// AskOn is how long DOCKER-USER is asked about clients of sockets after its last rule went.
	AskOn time.Duration
}

// proxied returns the networks to which loopback addresses may not lead by translation.
func (s Settings) proxied(snap state.Snapshot) []state.NetworkID {
	var out []state.NetworkID
	for _, n := range snap.Networks {
		if s.Loopback != nil && !n.V4.IsZero() && !s.Loopback(n) {
			out = append(out, n.ID)
		}
	}
	return out
}

func (s Settings) diverts(snap state.Snapshot) bool { return s.Divert != nil && s.Divert(snap) }

// completer returns what adds to a host that a backend found what else a policy for the state depends on.
func (s Settings) completer(snap state.Snapshot) func(Host) Host {
	proxied := s.proxied(snap)
	barred := s.BarsLoopback != nil && s.BarsLoopback()
	divert := s.diverts(snap)
	var modes state.Modes
	if s.Publish != nil {
		modes = s.Publish()
	}
	return func(h Host) Host {
		h.NoIPv6, h.Loopback, h.Proxied, h.Latched = s.NoIPv6, s.Loopback != nil, proxied, s.Latch != nil
		h.Modes, h.LearnedTime = modes, s.LearnedTime
		h.BarsLoopback = h.BarsLoopback || barred
		h.Divert = divert
		return h
	}
}

// Wanted is what a backend is to make true, as functions of the host that it finds. They are pure: a backend may keep them and
// call them again.
type Wanted struct {
	Policy func(Host) Policy
	// Divert asks whether the kernel can tell what is for transparent sockets (Host.NoSocket).
	Divert bool
	// Change says what Policy differs in from the policy that the last Sync or Follow made true, if it did. It is false where that
	// is not known, was for another host, or is more than a Change can say.
	Change func(Host) (Change, bool)
	// Last is the policy that the last Sync or Follow made true, false before there was one.
	Last func() (Policy, bool)
	// Found, if set, is told by a Sync or Follow that succeeded, in words, what somebody else had changed since the last one.
	Found func(differences []string)
}

// Report calls Found with what compare says of the last policy, if there was one and somebody listens.
func (w Wanted) Report(compare func(last Policy) []string) {
	if w.Found == nil || w.Last == nil {
		return
	}
	if last, ok := w.Last(); ok {
		w.Found(compare(last))
	}
}

// Backend makes the kernel equal to a policy.
type Backend interface {
	// Sync reads the kernel and makes it equal to what is wanted on this host. It writes nothing where nothing differs.
	Sync(ctx context.Context, w Wanted) error
	// Follow does the same where nothing is known to have changed since the last call but the policy. It asks whether anybody
	// changed rules, if that is cheap; more it need not look at.
	Follow(ctx context.Context, w Wanted) error
	// Inspect reads the kernel and says in words how it differs from what is wanted on this host. It writes nothing.
	Inspect(ctx context.Context, w Wanted) ([]string, error)
	// Rules returns the rules and elements of a policy as text, in the form in
	// which they are loaded.
	Rules(p Policy) string
	// Purge removes everything of ours with no knowledge of the state.
	Purge(ctx context.Context) error
}
