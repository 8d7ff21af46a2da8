package link

import (
	"net/netip"
	"testing"
)

// TestCondition: addresses that a bridge may have beside its own.
func TestCondition(t *testing.T) {
	own, other, local := netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fe80::1/64")
	c := condition{shape: shape{name: "br0"}, addrs: []netip.Prefix{own}}
	adopted := c
	adopted.others = true
	for _, tt := range []struct {
		name string
		c    condition
		now  []netip.Prefix
		want string
	}{
		{"as left", c, []netip.Prefix{own}, ""},
		{"link-local", c, []netip.Prefix{local, own}, ""},
		{"none", c, nil, "br0 lost its address 10.0.0.1/24"},
		{"another length", c, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/16")}, "br0 lost its address 10.0.0.1/24"},
		{"one more", c, []netip.Prefix{own, other}, "br0 got another address, 10.1.0.1/24"},
		{"IPv4's link-local", c, []netip.Prefix{own, netip.MustParsePrefix("169.254.0.1/16")}, "br0 got another address, 169.254.0.1/16"},
		{"its owner's", adopted, []netip.Prefix{own, other}, ""},
		{"only its owner's", adopted, []netip.Prefix{other}, "br0 lost its address 10.0.0.1/24"},
	} {
		if got := tt.c.strays(tt.now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
