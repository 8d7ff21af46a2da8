package ipam

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// firstFree returns the first piece of the base that overlaps none of taken, which
// must be sorted (sortPrefixes).
//
// It goes through taken once. Two prefixes overlap only if one contains the other, so
// behind an overlap the next piece that can be free begins where the larger one ends: a
// route that covers half of the base is passed in one step.
func (b BasePool) firstFree(taken []netip.Prefix) (netip.Prefix, bool) {
	piece := netip.PrefixFrom(b.Base.Addr(), b.Size)
	for _, t := range taken {
		if !piece.Overlaps(t) {
			if t.Addr().Compare(piece.Addr()) > 0 {
				return piece, true // and so are all that follow behind it
			}
			continue
		}
		larger := piece
		if t.Bits() < piece.Bits() {
			larger = t
		}
		next := netipx.PrefixLastIP(larger).Next() // the zero Addr behind the last address
		if !b.Base.Contains(next) {
			return netip.Prefix{}, false
		}
		piece = netip.PrefixFrom(next, b.Size)
	}
	return piece, true
}

// sortPrefixes brings prefixes into the order of their first addresses, the larger
// first of those that begin together. All IPv4 prefixes come before all IPv6 ones.
func sortPrefixes(ps []netip.Prefix) {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
}
