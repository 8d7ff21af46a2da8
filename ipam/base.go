package ipam

import (
	"crypto/rand"
	"encoding/csv"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// BasePool is a prefix that is cut into pools of one size.
type BasePool struct {
	Base netip.Prefix
	Size int // prefix length of a pool, not less than that of Base
}

// Sizes of the unique local prefix (RFC 4193, section 3.1) and of the pools in it.
const (
	ulaBits  = 48
	ulaPiece = 64
)

// DefaultBasePools returns the IPv4 base pools for a host whose administrator gave
// none: 2,048 networks of 254 addresses in each of two private ranges (RFC 1918), so
// that over a thousand are left where a VPN or a LAN has one of the ranges. The default
// for IPv6 is not among them: it is a random prefix, made when it is first needed.
func DefaultBasePools() []BasePool {
	return []BasePool{
		{Base: netip.MustParsePrefix("172.24.0.0/13"), Size: 24},
		{Base: netip.MustParsePrefix("10.200.0.0/13"), Size: 24},
	}
}

// ParseBasePool reads the value of --default-address-pool, such as
// base=10.0.0.0/8,size=24, as dockerd does: fields in any order, keys and values in
// any case, host bits of the base ignored (moby, daemon/pkg/opts/address_pools.go and
// splitByIPFamily of its default IPAM driver).
func ParseBasePool(s string) (BasePool, error) {
	pool, err := parseBasePool(s)
	if err != nil {
		return BasePool{}, fmt.Errorf("default address pool %q: %w; write base=10.0.0.0/8,size=24", state.Clip(s), err)
	}
	return pool, nil
}

func parseBasePool(s string) (BasePool, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return BasePool{}, fmt.Errorf("it is not a list of fields: %w", err)
	}
	var pool BasePool
	for _, field := range fields {
		if err := pool.set(field); err != nil {
			return BasePool{}, err
		}
	}
	return pool, pool.check()
}

// set takes one key=value field.
func (b *BasePool) set(field string) error {
	key, value, ok := strings.Cut(strings.ToLower(field), "=")
	if !ok {
		return fmt.Errorf("field %q is not a key=value pair", state.Clip(field))
	}
	switch key {
	case "base":
		p, err := netip.ParsePrefix(value)
		if err != nil {
			return fmt.Errorf("base %q is not a prefix", state.Clip(value))
		}
		b.Base = p.Masked()
	case "size":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("size %q is not a number", state.Clip(value))
		}
		b.Size = n
	default:
		return fmt.Errorf("key %q is neither base nor size", state.Clip(key))
	}
	return nil
}

func (b BasePool) check() error {
	switch {
	case !b.Base.IsValid():
		return fmt.Errorf("it has no base")
	case b.Size == 0:
		return fmt.Errorf("it has no size")
	case b.Size < b.Base.Bits():
		return fmt.Errorf("a pool of size %d does not fit into base %s", b.Size, b.Base)
	case b.Size > b.Base.Addr().BitLen():
		return fmt.Errorf("size %d is more than the %d bits of an address", b.Size, b.Base.Addr().BitLen())
	case b.Base.Addr().Is4In6():
		return fmt.Errorf("base %s is an IPv4 prefix in IPv6 form", b.Base)
	}
	return checkUsable(b.Base)
}

// basesOf returns the base pools of one family. It makes the unique local prefix where
// that is needed for the first time.
func (d *Driver) basesOf(tx *store.Tx, v6 bool) []BasePool {
	family := func(pools []BasePool) []BasePool {
		return slices.DeleteFunc(slices.Clone(pools), func(b BasePool) bool { return b.Base.Addr().Is6() != v6 })
	}
	if own := family(d.bases); len(own) > 0 {
		return own
	}
	if !v6 {
		return DefaultBasePools()
	}
	ula, ok := tx.ULA()
	if !ok {
		ula = newULA()
		tx.SetULA(ula)
	}
	return []BasePool{{Base: ula, Size: ulaPiece}}
}

// newULA makes a prefix that no other host has: fd00::/8 and 40 random bits (RFC 4193,
// section 3.2). crypto/rand.Read does not fail.
func newULA() netip.Prefix {
	addr := [16]byte{0: 0xfd}
	rand.Read(addr[1 : ulaBits/8])
	return netip.PrefixFrom(netip.AddrFrom16(addr), ulaBits)
}
