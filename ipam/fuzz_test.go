package ipam

import (
	"strings"
	"testing"

	api "github.com/docker/go-plugins-helpers/ipam"
)

// FuzzInput: what is taken is within its bounds, and what is refused is refused in one sentence.
func FuzzInput(f *testing.F) {
	f.Add("10.1.0.0/24", "10.1.0.128/25", false)
	f.Add("fd00::/64", "", true)
	f.Add("0.0.0.0/24", "", false)
	f.Add("base=10.0.0.0/8,size=24", "", false)
	f.Add("Size=64,BASE=fd00::1/48", "::ffff:10.0.0.0/104", true)
	f.Fuzz(func(t *testing.T, pool, ipRange string, v6 bool) {
		sentence := func(err error) {
			if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 500) {
				t.Errorf("error is not one sentence: %q", err)
			}
		}
		base, err := ParseBasePool(pool)
		sentence(err)
		if err == nil && (base.Base != base.Base.Masked() || base.Size < base.Base.Bits() || base.Size > base.Base.Addr().BitLen()) {
			t.Errorf("ParseBasePool(%q) = %+v", pool, base)
		}
		a, err := parseAddr(pool)
		sentence(err)
		if err == nil && a.Zone() != "" {
			t.Errorf("parseAddr(%q) = %v", pool, a)
		}
		want, err := parsePoolRequest(&api.RequestPoolRequest{Pool: pool, SubPool: ipRange, V6: v6})
		sentence(err)
		if s, r := want.subnet, want.ipRange; err == nil && s.IsValid() &&
			(s != s.Masked() || s.Bits() < minBits || s.Addr().Is6() != v6 || r != r.Masked() || !s.Contains(r.Addr()) || r.Bits() < s.Bits() || checkUsable(s) != nil) {
			t.Errorf("parsePoolRequest(%q, %q, %t) = %+v", pool, ipRange, v6, want)
		}
	})
}
