package nftables

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/drawbridge-net/drawbridge/firewall"
)

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

// sortNetworks does as firewall.Render.
func sortNetworks(networks []firewall.Network) {
	slices.SortFunc(networks, func(a, b firewall.Network) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), cmp.Compare(a.Bridge, b.Bridge))
	})
}

// always wants a policy on any host.
func always(p firewall.Policy) firewall.Wanted {
	return firewall.Wanted{Policy: func(firewall.Host) firewall.Policy { return p }}
}
