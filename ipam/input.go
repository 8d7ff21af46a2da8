package ipam

import (
	"fmt"
	"net/netip"

	api "github.com/docker/go-plugins-helpers/ipam"

	"github.com/drawbridge-net/drawbridge/state"
)

// minBits is the length of the largest subnet that a network can have.
const minBits = 8

// unusable lists what can be no container's network, and why.
var unusable = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "means this network (RFC 1122)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "is the loopback network"},
	{netip.MustParsePrefix("224.0.0.0/4"), "is for multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "is the broadcast address"},
	{netip.MustParsePrefix("::/96"), "holds the loopback address"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "is IPv4 in IPv6 form"},
	{netip.MustParsePrefix("fe80::/10"), "is the link-local prefix that every interface has already"},
	{netip.MustParsePrefix("ff00::/8"), "is for multicast"},
}

// poolRequest is what a RequestPool asks for, checked.
type poolRequest struct {
	v6 bool

	// subnet and ipRange are set if the user named a subnet; ipRange is subnet
	// if there is no --ip-range.
	subnet  netip.Prefix
	ipRange netip.Prefix

	// size is the prefix length that a chosen subnet must have, 0 for any.
	size int
}

func parsePoolRequest(r *api.RequestPoolRequest) (poolRequest, error) {
	want := poolRequest{v6: r.V6}
	var err error
	if r.Pool != "" {
		if want.subnet, err = parsePrefix("subnet", r.Pool, r.V6); err != nil {
			return poolRequest{}, err
		}
		if bits := want.subnet.Bits(); bits < minBits {
			return poolRequest{}, fmt.Errorf("a subnet of size /%d is too large: the largest is /%d", bits, minBits)
		}
	}
	// Docker 29 writes "any subnet of this size" as 0.0.0.0/24 or ::/64.
	if r.Pool == "" || want.subnet.Addr().IsUnspecified() {
		if r.SubPool != "" {
			return poolRequest{}, fmt.Errorf("an --ip-range needs the --subnet that it is part of")
		}
		size := max(want.subnet.Bits(), 0) // -1 without a subnet
		return poolRequest{v6: r.V6, size: size}, nil
	}
	if err := checkUsable(want.subnet); err != nil {
		return poolRequest{}, err
	}
	want.ipRange, err = parseRange(r.SubPool, want.subnet)
	return want, err
}

func parseRange(s string, subnet netip.Prefix) (netip.Prefix, error) {
	if s == "" {
		return subnet, nil
	}
	p, err := parsePrefix("ip range", s, subnet.Addr().Is6())
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Bits() < subnet.Bits() || !subnet.Contains(p.Addr()) {
		return netip.Prefix{}, fmt.Errorf("ip range %s is not inside subnet %s: choose one that is", p, subnet)
	}
	return p, nil
}

// parsePrefix reads a prefix of the family that was asked for, without host bits.
func parsePrefix(what, s string, v6 bool) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s %q is not a prefix such as %s", what, state.Clip(s), example(v6))
	}
	switch {
	case p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%s %s is an IPv4 prefix in IPv6 form: write it as IPv4", what, p)
	case p.Addr().Is6() != v6:
		return netip.Prefix{}, fmt.Errorf("%s %s is not an %s prefix, but an %s one was asked for", what, p, family(v6), family(v6))
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%s %s has host bits set: write %s", what, p, p.Masked())
	}
	return p, nil
}

func checkUsable(p netip.Prefix) error {
	for _, u := range unusable {
		if u.prefix.Overlaps(p) {
			return fmt.Errorf("%s cannot be used for containers, because %s %s: choose another", p, u.prefix, u.what)
		}
	}
	return nil
}

// parseAddr reads an address without a zone or a length.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %q is malformed: write an IP address without a length", state.Clip(s))
	}
	return a, nil
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func example(v6 bool) string {
	if v6 {
		return "fd00:1:2:3::/64"
	}
	return "10.1.0.0/24"
}
