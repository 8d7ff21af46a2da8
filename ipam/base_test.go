package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/store"
)

func TestParseBasePool(t *testing.T) {
	for _, row := range []struct {
		name, value string
		want        string // base and size
		err         string
	}{
		{"IPv4", "base=10.0.0.0/8,size=24", "10.0.0.0/8 24", ""},
		{"IPv6", "base=fd00:1::/32,size=64", "fd00:1::/32 64", ""},
		{"other order", "size=24,base=10.0.0.0/8", "10.0.0.0/8 24", ""},
		{"any case", "Base=FD00::/8,SIZE=48", "fd00::/8 48", ""},
		{"quoted as CSV", `"base=10.0.0.0/8","size=24"`, "10.0.0.0/8 24", ""},
		{"host bits are ignored as by dockerd", "base=10.1.2.3/16,size=24", "10.1.0.0/16 24", ""},
		{"IPv6 host bits too", "base=fd00::1/48,size=64", "fd00::/48 64", ""},
		{"one pool", "base=192.168.7.0/24,size=24", "192.168.7.0/24 24", ""},
		{"pools of one address", "base=192.168.7.0/24,size=32", "192.168.7.0/24 32", ""},

		{"empty", "", "", "not a list of fields"},
		{"not CSV", `base="10.0.0.0/8,size=24`, "", "not a list of fields"},
		{"no value", "base,size=24", "", `field "base" is not a key=value pair`},
		{"unknown key", "base=10.0.0.0/8,length=24", "", `key "length" is neither base nor size`},
		{"blank before a key", "base=10.0.0.0/8, size=24", "", `key " size" is neither`},
		{"base is an address", "base=10.0.0.0,size=24", "", `base "10.0.0.0" is not a prefix`},
		{"base with a zone", "base=fe80::%eth0/64,size=64", "", "is not a prefix"},
		{"size is no number", "base=10.0.0.0/8,size=/24", "", `size "/24" is not a number`},
		{"no base", "size=24", "", "it has no base"},
		{"no size", "base=10.0.0.0/8", "", "it has no size"},
		{"size 0", "base=10.0.0.0/8,size=0", "", "it has no size"},
		{"negative size", "base=10.0.0.0/8,size=-1", "", "does not fit into base 10.0.0.0/8"},
		{"size larger than the base", "base=10.0.0.0/16,size=15", "", "a pool of size 15 does not fit into base 10.0.0.0/16"},
		{"IPv6 size larger than the base", "base=fd00::/48,size=40", "", "does not fit into base fd00::/48"},
		{"size beyond IPv4", "base=10.0.0.0/8,size=33", "", "size 33 is more than the 32 bits"},
		{"size beyond IPv6", "base=fd00::/48,size=129", "", "size 129 is more than the 128 bits"},
		{"IPv4 in IPv6 form", "base=::ffff:10.0.0.0/104,size=120", "", "is an IPv4 prefix in IPv6 form"},
		{"multicast", "base=224.0.0.0/8,size=24", "", "224.0.0.0/4 is for multicast"},
		{"everything", "base=0.0.0.0/0,size=24", "", "cannot be used for containers"},
		{"IPv6 link-local", "base=fe80::/32,size=64", "", "link-local"},
		{"very long", "base=" + strings.Repeat("9", 10000) + ",size=24", "", "…"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseBasePool(row.value)
			checkError(t, err, row.err)
			if row.err != "" {
				return
			}
			if diff := cmp.Diff(row.want, fmt.Sprintf("%s %d", got.Base, got.Size)); diff != "" {
				t.Errorf("pool (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultBasePools(t *testing.T) {
	pools := DefaultBasePools()
	for i, shadowed := range pools {
		left := 0
		for _, p := range pools {
			if err := p.check(); err != nil {
				t.Errorf("%v: %v", p, err)
			}
			if p != shadowed {
				left += 1 << (p.Size - p.Base.Bits())
			}
		}
		if left < 1000 {
			t.Errorf("without base %d there are %d pools left, want 1000", i, left)
		}
	}
}

func TestUniqueLocalPrefix(t *testing.T) {
	b := newBench(t)
	first := b.must(poolOf(b.requestPool("", "", true)))
	var ula netip.Prefix
	b.store.View(func(tx *store.Tx) error {
		ula, _ = tx.ULA()
		return nil
	})
	if ula.Bits() != 48 || ula.Addr().As16()[0] != 0xfd || ula != ula.Masked() {
		t.Errorf("unique local prefix %s is none of RFC 4193", ula)
	}
	b.reopen()
	second := b.must(poolOf(b.requestPool("", "", true)))
	for _, p := range []string{first, second} {
		if p := netip.MustParsePrefix(p); p.Bits() != 64 || !ula.Contains(p.Addr()) {
			t.Errorf("pool %s is not a /64 of %s", p, ula)
		}
	}
	if first == second {
		t.Errorf("%s was given twice", first)
	}
	if other := newULA(); other == ula {
		t.Errorf("two hosts have %s", ula)
	}
}

// poolOf makes the answer to RequestPool fit bench.must.
func poolOf(r *api.RequestPoolResponse, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return r.Pool, nil
}

func TestFirstFree(t *testing.T) {
	for _, row := range []struct {
		name  string
		base  string
		size  int
		taken string
		want  string // empty: none is free
	}{
		{"nothing taken", "10.0.0.0/8", 24, "", "10.0.0.0/24"},
		{"IPv6", "fd00::/48", 64, "fd00::/64 fd00:0:0:1::/64", "fd00:0:0:2::/64"},
		{"first taken", "10.0.0.0/8", 24, "10.0.0.0/24", "10.0.1.0/24"},
		{"a gap", "10.0.0.0/8", 24, "10.0.0.0/24 10.0.2.0/24", "10.0.1.0/24"},
		{"a host route", "10.0.0.0/8", 24, "10.0.0.77/32", "10.0.1.0/24"},
		{"several host routes in one piece", "10.0.0.0/8", 24, "10.0.0.77/32 10.0.0.78/32 10.0.1.0/25 10.0.1.200/32", "10.0.2.0/24"},
		{"a route over many pieces", "10.0.0.0/8", 24, "10.0.0.0/9", "10.128.0.0/24"},
		{"nested routes", "10.0.0.0/8", 24, "10.0.0.0/9 10.0.0.0/16 10.0.0.0/24 10.5.0.0/16 10.128.0.0/24", "10.128.1.0/24"},
		{"a route over the base", "10.1.0.0/16", 24, "10.0.0.0/8", ""},
		{"the base itself", "10.1.0.0/16", 24, "10.1.0.0/16", ""},
		{"the last piece", "10.0.0.0/30", 32, "10.0.0.0/31 10.0.0.2/32", "10.0.0.3/32"},
		{"all pieces", "10.0.0.0/30", 32, "10.0.0.0/31 10.0.0.2/32 10.0.0.3/32", ""},
		{"before and behind the base", "10.1.0.0/16", 24, "9.0.0.0/8 10.0.255.0/24 10.2.0.0/16 11.0.0.0/8", "10.1.0.0/24"},
		{"the other family", "10.1.0.0/16", 24, "::/0 fd00::/8", "10.1.0.0/24"},
		{"IPv6 with IPv4 taken", "fd00::/48", 64, "10.0.0.0/8", "fd00::/64"},
		{"up to the last address", "255.0.0.0/8", 9, "255.0.0.0/9 255.255.0.0/16", ""},
		{"up to the last IPv6 address", "ffff::/16", 17, "ffff::/17 ffff:8000::/17", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var taken []netip.Prefix
			for p := range strings.FieldsSeq(row.taken) {
				taken = append(taken, netip.MustParsePrefix(p))
			}
			sortPrefixes(taken)
			got, ok := BasePool{Base: netip.MustParsePrefix(row.base), Size: row.size}.firstFree(taken)
			if text := got.String(); ok != (row.want != "") || ok && text != row.want {
				t.Errorf("firstFree = %s %v, want %q", got, ok, row.want)
			}
		})
	}
}

// TestFirstFreeIsFirst compares with the slow way: all pieces in turn.
func TestFirstFreeIsFirst(t *testing.T) {
	for _, base := range []string{"10.1.0.0/16", "fd00::/112"} {
		base := netip.MustParsePrefix(base)
		rapid.Check(t, func(t *rapid.T) {
			pool := BasePool{Base: base, Size: base.Bits() + rapid.IntRange(0, 6).Draw(t, "pieces")}
			var taken []netip.Prefix
			for range rapid.IntRange(0, 20).Draw(t, "taken") {
				bytes := base.Addr().AsSlice()
				copy(bytes[len(bytes)-2:], rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "address"))
				a, _ := netip.AddrFromSlice(bytes)
				bits := base.Bits() + rapid.IntRange(-1, 16).Draw(t, "bits")
				taken = append(taken, netip.PrefixFrom(a, bits).Masked())
			}
			sortPrefixes(taken)
			got, ok := pool.firstFree(taken)
			want, wantOK := firstFreeSlowly(pool, taken)
			if ok != wantOK || got != want {
				t.Fatalf("firstFree of %v with %v taken = %s %v, want %s %v", pool, taken, got, ok, want, wantOK)
			}
		})
	}
}

func firstFreeSlowly(pool BasePool, taken []netip.Prefix) (netip.Prefix, bool) {
	for a := pool.Base.Addr(); pool.Base.Contains(a); a = a.Next() {
		piece := netip.PrefixFrom(a, pool.Size)
		if piece != piece.Masked() {
			continue
		}
		free := true
		for _, t := range taken {
			free = free && !piece.Overlaps(t)
		}
		if free {
			return piece, true
		}
	}
	return netip.Prefix{}, false
}

// BenchmarkFirstFree has all 4,096 pieces taken and 500 routes besides.
func BenchmarkFirstFree(b *testing.B) {
	pool := BasePool{Base: netip.MustParsePrefix("10.0.0.0/12"), Size: 24}
	var taken []netip.Prefix
	for i := range 4096 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		taken = append(taken, netip.PrefixFrom(a, 24))
	}
	for i := range 500 {
		taken = append(taken, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i), 0, 1}), 32))
	}
	for b.Loop() {
		sortPrefixes(taken)
		if p, ok := pool.firstFree(taken); ok {
			b.Fatalf("%s is free", p)
		}
	}
}
