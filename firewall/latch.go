package firewall

import (
	"context"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Latch refuses by itself what no rule of ours has seen: while somebody has flushed the rules, or taken a bridge out of its device group,
// containers stay as closed to new connections as they were. Nobody can flush it. nftables.Latch is one.
type Latch interface {
	// Hold has it for some bridges, and takes it away where there are none. It must be called when the rules that say what they have
	// seen are in force, and as long as they are.
	Hold(ctx context.Context, l Latched) error
	// Inspect says in words how it differs from that.
	Inspect(l Latched) ([]string, error)
	// Rules returns it as text.
	Rules(l Latched) string
}

// Latched is what a Latch is for: the bridges of both families and, for each family, whether packets of it could pass any of them.
type Latched struct {
	V4, V6  bool
	Bridges []string // sorted
}

// MarkPassed is the bit of a packet's mark by which iptables tells the latch that our rules have seen the packet. The latch takes
// it off.
const MarkPassed uint32 = 1 << 25

// latched returns what there is to be a latch for.
func latched(s state.Snapshot, h Host) Latched {
	has := func(v6 bool) bool {
		return slices.ContainsFunc(s.Networks, func(n state.Network) bool { return !n.Family(v6).IsZero() || stranger(n, v6) })
	}
	l := Latched{V4: has(false), V6: !h.NoIPv6 && has(true)}
	for _, n := range s.Networks {
		l.Bridges = append(l.Bridges, n.Bridge)
	}
	slices.Sort(l.Bridges)
	return l
}
