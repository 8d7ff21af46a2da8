package firewall

import (
	"context"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Latch refuses by itself what no rule of ours has seen: while somebody has flushed the rules, containers stay as closed to new
// connections as they were. Nobody can flush it. nftables.Latch is one.
type Latch interface {
	// Hold has it for the bridges of the families, and takes it away where neither has any. It must be called when the rules that
	// say what they have seen are in force, and as long as they are.
	Hold(ctx context.Context, v4, v6 bool) error
	// Inspect says in words how it differs from that.
	Inspect(v4, v6 bool) ([]string, error)
	// Rules returns it as text.
	Rules(v4, v6 bool) string
}

// MarkPassed is the bit of a packet's mark by which iptables tells the latch that our rules have seen the packet. The latch takes
// it off.
const MarkPassed uint32 = 1 << 25

// latched returns the families for which there is to be a latch: those with a bridge that packets could pass.
func latched(s state.Snapshot, h Host) (v4, v6 bool) {
	has := func(v6 bool) bool {
		return slices.ContainsFunc(s.Networks, func(n state.Network) bool { return !n.Family(v6).IsZero() || stranger(n, v6) })
	}
	return has(false), !h.NoIPv6 && has(true)
}
