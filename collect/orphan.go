package collect

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Kind is what an orphan is.
type Kind string

// The kinds, in the order in which they are removed.
const (
	Endpoint Kind = "endpoint"
	Network  Kind = "network"
	Pool     Kind = "pool"
)

// Orphan is something in the state that the engines do not know.
type Orphan struct {
	Kind Kind
	ID   string
	What string // for a reader
	Why  string // a sentence
	// Seen says that an engine was once seen to know it, or the network that it is on.
	Seen bool
	// Unanswered says that the daemon that made it ended before it was sure to have answered: then no engine may ever have known it.
	Unanswered bool
	// Since is when it was first missing, without a break since.
	Since time.Time

	endpoint state.Endpoint
	network  state.Network
	pool     state.Pool
}

// inventory is what the state has and an engine may have forgotten.
type inventory struct {
	state     state.Snapshot
	endpoints []state.Endpoint
	networks  []state.Network
	pools     []state.Pool
}

// orphans compares the inventory with what the engines know.
func (i inventory) orphans(known state.Known, run string) []Orphan {
	var out []Orphan
	for _, e := range i.endpoints {
		if !known.HasEndpoint(e) {
			out = append(out, endpointOrphan(i.state, known, e))
		}
	}
	for _, n := range i.networks {
		if !known.Networks[n.ID] {
			out = append(out, Orphan{
				Kind: Network, ID: string(n.ID), Seen: n.Seen, Unanswered: unanswered(n.Made, run), network: n,
				What: fmt.Sprintf("bridge %s, %s", n.Bridge, subnets(n)),
				Why:  "no engine lists it",
			})
		}
	}
	for _, p := range i.pools {
		if !known.HasPool(p) {
			out = append(out, Orphan{
				Kind: Pool, ID: string(p.ID), Seen: p.Seen, Unanswered: unanswered(p.Made, run), pool: p,
				What: "subnet " + p.Prefix.String(),
				Why:  "no network of an engine has it",
			})
		}
	}
	return out
}

func endpointOrphan(s state.Snapshot, known state.Known, e state.Endpoint) Orphan {
	o := Orphan{Kind: Endpoint, ID: string(e.ID), Seen: true, endpoint: e, Why: "its network does not have it"}
	if !known.Networks[e.Network] {
		n, _ := s.Network(e.Network)
		o.Seen, o.Why = n.Seen, "no engine lists its network"
	}
	o.What = fmt.Sprintf("network %s, %s", e.Network.Short(), strings.Join(texts(e.Addrs()), " "))
	for _, p := range state.Bound(e.Ports) {
		o.What += fmt.Sprintf(", port %d/%s", p.HostPort, p.Proto)
	}
	return o
}

func subnets(n state.Network) string {
	var out []netip.Prefix
	for _, s := range n.Subnets() {
		out = append(out, s.Prefix)
	}
	return strings.Join(texts(out), " ")
}

func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
