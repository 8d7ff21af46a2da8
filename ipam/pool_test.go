package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func TestRequestPool(t *testing.T) {
	long := strings.Repeat("1", 5000)
	for _, row := range []struct {
		name      string
		pool, sub string
		v6        bool
		id        string
		err       string
	}{
		{"IPv4", "10.1.0.0/24", "", false, "drawbridge/10.1.0.0/24", ""},
		{"IPv6", "fd01::/64", "", true, "drawbridge/fd01::/64", ""},
		{"range", "10.1.0.0/24", "10.1.0.128/25", false, "drawbridge/10.1.0.0/24/10.1.0.128/25", ""},
		{"IPv6 range", "fd01::/64", "fd01::8000/113", true, "drawbridge/fd01::/64/fd01::8000/113", ""},
		{"range that is the subnet", "10.1.0.0/24", "10.1.0.0/24", false, "drawbridge/10.1.0.0/24", ""},
		{"range of one address", "10.1.0.0/24", "10.1.0.9/32", false, "drawbridge/10.1.0.0/24/10.1.0.9/32", ""},
		{"largest", "10.0.0.0/8", "", false, "drawbridge/10.0.0.0/8", ""},
		{"two addresses", "10.1.0.0/31", "", false, "drawbridge/10.1.0.0/31", ""},
		{"one address", "10.1.0.1/32", "", false, "drawbridge/10.1.0.1/32", ""},
		{"one IPv6 address", "fd01::1/128", "", true, "drawbridge/fd01::1/128", ""},
		{"public", "198.51.100.0/24", "", false, "drawbridge/198.51.100.0/24", ""},
		{"IPv6 not in short form", "FD01:0:0::/64", "", true, "drawbridge/fd01::/64", ""},
		{"a range next to the wildcard", "0.0.0.0/24", "0.0.0.128/25", false, "", "an --ip-range needs the --subnet"},

		{"host bits", "10.1.0.1/24", "", false, "", "subnet 10.1.0.1/24 has host bits set: write 10.1.0.0/24"},
		{"IPv6 host bits", "fd01::1/64", "", true, "", "subnet fd01::1/64 has host bits set: write fd01::/64"},
		{"host bits in the range", "10.1.0.0/24", "10.1.0.129/25", false, "", "ip range 10.1.0.129/25 has host bits set: write 10.1.0.128/25"},
		{"IPv4 where IPv6 is wanted", "10.1.0.0/24", "", true, "", "subnet 10.1.0.0/24 is not an IPv6 prefix"},
		{"IPv6 where IPv4 is wanted", "fd01::/64", "", false, "", "subnet fd01::/64 is not an IPv4 prefix"},
		{"range of the other family", "10.1.0.0/24", "fd01::/120", false, "", "ip range fd01::/120 is not an IPv4 prefix"},
		{"IPv4 in IPv6 form", "::ffff:10.1.0.0/120", "", true, "", "IPv4 prefix in IPv6 form"},
		{"range outside", "10.1.0.0/24", "10.2.0.0/25", false, "", "ip range 10.2.0.0/25 is not inside subnet 10.1.0.0/24: choose one that is"},
		{"range around", "10.1.0.0/24", "10.0.0.0/8", false, "", "ip range 10.0.0.0/8 is not inside subnet 10.1.0.0/24"},
		{"range around from the same address", "10.1.0.0/24", "10.1.0.0/16", false, "", "ip range 10.1.0.0/16 is not inside subnet 10.1.0.0/24"},
		{"range without a subnet", "", "10.1.0.0/24", false, "", "an --ip-range needs the --subnet"},
		{"too large", "10.0.0.0/7", "", false, "", "a subnet of size /7 is too large: the largest is /8"},
		{"everything", "0.0.0.0/0", "", false, "", "a subnet of size /0 is too large"},
		{"everything in IPv6", "::/0", "", true, "", "a subnet of size /0 is too large"},
		{"this network", "0.1.0.0/16", "", false, "", "means this network"},
		{"loopback", "127.1.0.0/16", "", false, "", "is the loopback network"},
		{"multicast", "239.1.0.0/16", "", false, "", "is for multicast"},
		{"broadcast", "255.255.255.0/24", "", false, "", "is the broadcast address"},
		{"IPv6 loopback", "::1/128", "", true, "", "holds the loopback address"},
		{"IPv6 link-local", "fe80::/64", "", true, "", "link-local"},
		{"IPv6 multicast", "ff05::/64", "", true, "", "is for multicast"},
		{"an address", "10.1.0.0", "", false, "", `subnet "10.1.0.0" is not a prefix such as 10.1.0.0/24`},
		{"no length", "10.1.0.0/", "", false, "", "is not a prefix"},
		{"too long a length", "10.1.0.0/33", "", false, "", "is not a prefix"},
		{"a name", "web", "", true, "", `subnet "web" is not a prefix such as fd00:1:2:3::/64`},
		{"a line break", "10.1.0.0/24\n", "", false, "", `subnet "10.1.0.0/24�" is not a prefix`},
		{"oversized", long, "", false, "", "…"},
		{"oversized range", "10.1.0.0/24", long, false, "", "…"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			got, err := b.requestPool(row.pool, row.sub, row.v6)
			checkError(t, err, row.err)
			if row.err != "" {
				if s := b.store.Snapshot(); s.Revision != 0 {
					t.Errorf("the refused request left a trace: %+v", s)
				}
				return
			}
			subnet := netip.MustParsePrefix(row.pool).String()
			if diff := cmp.Diff(&api.RequestPoolResponse{PoolID: row.id, Pool: subnet}, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			_, err = b.requestPool(row.pool, row.sub, row.v6)
			checkError(t, err, "of a network that is being created at this moment: choose another with --subnet, or try again in 5s")
			b.pass(underWay)
			again, err := b.requestPool(row.pool, row.sub, row.v6)
			checkError(t, err, "")
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("answer to the retry (-first +second):\n%s", diff)
			}
		})
	}
}

func TestRequestPoolOverlap(t *testing.T) {
	for _, row := range []struct {
		name      string
		before    func(b *bench)
		pool, sub string
		err       string
	}{
		{"a host route is the driver's business", func(b *bench) { b.occupy("10.0.0.0/8") }, "10.1.0.0/24", "", ""},
		{"neighbour", func(b *bench) { b.pool("10.1.1.0/24", "") }, "10.1.0.0/24", "", ""},
		{"the other family", func(b *bench) { b.pool("10.1.0.0/24", "") }, "fd01::/64", "", ""},
		{"abandoned larger pool", func(b *bench) { b.pool("10.1.0.0/16", "") }, "10.1.0.0/24", "", ""},
		{"abandoned smaller pool", func(b *bench) { b.must(b.gateway(b.pool("10.1.0.0/28", ""), "")) }, "10.1.0.0/24", "", ""},
		{"abandoned smaller pools", func(b *bench) { b.pool("10.1.0.0/28", ""); b.pool("10.1.0.16/28", "") }, "10.1.0.0/24", "", ""},
		{"larger pool from before a restart", func(b *bench) { b.pool("10.1.0.0/16", ""); b.reopen() }, "10.1.0.0/24", "", "subnet 10.1.0.0/24 overlaps 10.1.0.0/16, which another network has"},
		{"smaller pool from before a restart", func(b *bench) { b.pool("10.1.0.0/28", ""); b.reopen() }, "10.1.0.0/24", "", "overlaps 10.1.0.0/28"},
		{"IPv6 from before a restart", func(b *bench) { b.pool("fd01::/48", ""); b.reopen() }, "fd01::/64", "", "overlaps fd01::/48"},
		{"abandoned with another range", func(b *bench) { b.pool("10.1.0.0/24", "10.1.0.0/25") }, "10.1.0.0/24", "10.1.0.128/25", ""},
		{"with another range from before a restart", func(b *bench) { b.pool("10.1.0.0/24", "10.1.0.0/25"); b.reopen() }, "10.1.0.0/24", "10.1.0.128/25", "overlaps 10.1.0.0/24"},
		{"without a range from before a restart", func(b *bench) { b.pool("10.1.0.0/24", "10.1.0.0/25"); b.reopen() }, "10.1.0.0/24", "", "overlaps 10.1.0.0/24"},
		{"the same from before a restart", func(b *bench) { b.pool("10.1.0.0/24", ""); b.reopen() }, "10.1.0.0/24", "", ""},
		{"the same with an address in use", func(b *bench) {
			b.must(b.request(b.pool("10.1.0.0/24", ""), ""))
		}, "10.1.0.0/24", "", "overlaps 10.1.0.0/24, which another network has (one of another network driver"},
		{"the same with an --aux-address", func(b *bench) {
			id := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, ""))
			b.must(b.request(id, "10.1.0.9"))
		}, "10.1.0.0/24", "", ""},
		{"the same with an --aux-address from before a restart", func(b *bench) {
			b.must(b.request(b.pool("10.1.0.0/24", ""), "10.1.0.9"))
			b.reopen()
		}, "10.1.0.0/24", "", "overlaps 10.1.0.0/24, which another network has"},
		{"the same with a container's --ip", func(b *bench) {
			id := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, ""))
			b.pass(time.Second)
			b.must(b.request(id, "10.1.0.9"))
		}, "10.1.0.0/24", "", "overlaps 10.1.0.0/24, which another network has"},
		{"the same with its gateway on the host", func(b *bench) {
			b.must(b.gateway(b.pool("10.1.0.0/24", ""), ""))
			b.occupy("10.1.0.0/24", "10.1.0.1/32")
		}, "10.1.0.0/24", "", "overlaps 10.1.0.0/24, which another network has"},
		{"the same with its gateway on the LAN", func(b *bench) {
			b.must(b.gateway(b.pool("10.1.0.0/24", ""), ""))
			b.occupy("10.1.0.0/24", "10.1.0.9/32")
		}, "10.1.0.0/24", "", ""},
		{"the same with its IPv6 gateway on the host", func(b *bench) {
			b.must(b.gateway(b.pool("fd01::/64", ""), ""))
			b.occupy("fd01::/64", "fd01::1/128")
		}, "fd01::/64", "", "overlaps fd01::/64, which another network has"},
		{"the same with a gateway", func(b *bench) { b.must(b.gateway(b.pool("10.1.0.0/24", ""), "")) }, "10.1.0.0/24", "", ""},
		{"the same with a gateway, IPv6", func(b *bench) { b.must(b.gateway(b.pool("fd01::/64", ""), "")) }, "fd01::/64", "", ""},
		{"the same with a gateway and its network", func(b *bench) {
			b.must(b.gateway(b.pool("10.1.0.0/24", ""), ""))
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/24")) })
		}, "10.1.0.0/24", "", "subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of network 111111111111"},
		{"the same with a network", func(b *bench) {
			b.pool("10.1.0.0/24", "")
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/24")) })
		}, "10.1.0.0/24", "", "subnet 10.1.0.0/24 overlaps 10.1.0.0/24 of network 111111111111"},
		{"network of another IPAM driver", func(b *bench) {
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/25")) })
		}, "10.1.0.0/24", "", "overlaps 10.1.0.0/25 of network 111111111111"},
		{"IPv6 of a network of both families", func(b *bench) {
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "10.1.0.1/25", "fd01::1/64")) })
		}, "fd01::/48", "", "overlaps fd01::/64 of network 111111111111"},
		{"released before", func(b *bench) {
			id := b.pool("10.1.0.0/24", "")
			b.must(b.gateway(id, ""))
			checkError(b.t, b.releasePool(id), "")
		}, "10.1.0.0/24", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			row.before(b)
			b.pass(time.Minute)
			_, err := b.requestPool(row.pool, row.sub, strings.Contains(row.pool, ":"))
			checkError(t, err, row.err)
		})
	}
}

// TestPoolAgain: Docker died before CreateNetwork, and the next network of the same subnet
// has a gateway of its own.
func TestPoolAgain(t *testing.T) {
	for _, row := range []struct{ name, subnet, rng, first, second, want string }{
		{"IPv4", "10.1.0.0/24", "", "", "", "10.1.0.1/24"},
		{"IPv4, named before", "10.1.0.0/24", "", "10.1.0.254", "", "10.1.0.1/24"},
		{"IPv4, named after", "10.1.0.0/24", "", "", "10.1.0.254", "10.1.0.254/24"},
		{"IPv4 range", "10.1.0.0/24", "10.1.0.128/25", "10.1.0.1", "", "10.1.0.128/24"},
		{"IPv6", "fd01::/64", "", "", "", "fd01::1/64"},
		{"IPv6, named before", "fd01::/64", "", "fd01::ff", "", "fd01::1/64"},
		{"IPv6, named after", "fd01::/64", "", "", "fd01::ff", "fd01::ff/64"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			id := b.pool(row.subnet, row.rng)
			b.must(b.gateway(id, row.first))
			b.reopen()
			if again := b.pool(row.subnet, row.rng); again != id {
				t.Errorf("pool %s, then %s", id, again)
			}
			if got := b.must(b.gateway(id, row.second)); got != row.want {
				t.Errorf("gateway %s, want %s", got, row.want)
			}
			want := netip.MustParsePrefix(row.want).Addr().String()
			if diff := cmp.Diff([]string{want}, b.leases(id)); diff != "" {
				t.Errorf("addresses in use (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChoosePool(t *testing.T) {
	for _, row := range []struct {
		name   string
		bases  []string
		before func(b *bench)
		pool   string // of the request
		v6     bool
		want   string
	}{
		{"default", nil, nil, "", false, "172.24.0.0/24"},
		{"second", nil, func(b *bench) { b.requestPool("", "", false) }, "", false, "172.24.1.0/24"},
		{"own bases", []string{"base=10.9.0.0/16,size=26", "base=fd09::/48,size=80"}, nil, "", false, "10.9.0.0/26"},
		{"own IPv6 base", []string{"base=10.9.0.0/16,size=26", "base=fd09::/48,size=80"}, nil, "", true, "fd09::/80"},
		{"default where only IPv6 is given", []string{"base=fd09::/48,size=80"}, nil, "", false, "172.24.0.0/24"},
		{"a network of another IPAM driver", nil, func(b *bench) {
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, "172.24.0.1/16")) })
		}, "", false, "172.25.0.0/24"},
		{"a nameserver", nil, func(b *bench) { b.occupy("172.24.0.53/32") }, "", false, "172.24.1.0/24"},
		{"a prefix with host bits", nil, func(b *bench) { b.occupy("172.24.200.1/16", "172.24.3.0/24") }, "", false, "172.25.0.0/24"},
		{"a VPN", nil, func(b *bench) { b.occupy("172.16.0.0/12") }, "", false, "10.200.0.0/24"},
		{"default routes are no use", nil, func(b *bench) { b.occupy("0.0.0.0/0", "::/0") }, "", false, "172.24.0.0/24"},
		{"an IPv6 route", []string{"base=fd09::/48,size=64"}, func(b *bench) { b.occupy("fd09::/52") }, "", true, "fd09:0:0:1000::/64"},
		{"a size", nil, nil, "0.0.0.0/28", false, "172.24.0.0/28"},
		{"a larger size", nil, func(b *bench) { b.requestPool("", "", false) }, "0.0.0.0/16", false, "172.25.0.0/16"},
		{"an IPv6 size", []string{"base=fd09::/48,size=64"}, nil, "::/56", true, "fd09::/56"},
		{"a size that only the second base has", []string{"base=10.9.0.0/24,size=26", "base=10.8.0.0/16,size=24"}, nil, "0.0.0.0/20", false, "10.8.0.0/20"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, row.bases...)
			if row.before != nil {
				row.before(b)
			}
			got, err := b.requestPool(row.pool, "", row.v6)
			checkError(t, err, "")
			want := &api.RequestPoolResponse{PoolID: "drawbridge/" + row.want, Pool: row.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestChoosePoolFails(t *testing.T) {
	for _, row := range []struct {
		name  string
		bases []string
		use   int // requests that succeed first
		host  fakeHost
		pool  string
		v6    bool
		want  string
	}{
		{
			"all in use",
			[]string{"base=10.9.0.0/24,size=25", "base=10.8.0.0/24,size=25"},
			4,
			fakeHost{},
			"", false,
			"no IPv4 address pool is free: 4 are in use, and together with this host's routes and addresses they take all of 10.9.0.0/24 and 10.8.0.0/24; remove unused networks",
		},
		{"IPv6 all in use", []string{"base=fd09::/64,size=65"}, 2, fakeHost{}, "", true, "no IPv6 address pool is free: 2 are in use"},
		{
			"routes over everything", nil, 0,
			fakeHost{occupied: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12")}},
			"", false,
			"no IPv4 address pool is free: 0 are in use",
		},
		{
			"a route over all unique local addresses", nil, 0,
			fakeHost{occupied: []netip.Prefix{netip.MustParsePrefix("fc00::/7")}},
			"", true,
			"name a subnet with --subnet, or give more room with --default-address-pool",
		},
		{"too large a size", nil, 0, fakeHost{}, "0.0.0.0/12", false, "no subnet of size /12 can be chosen: the IPv4 address pools are cut from 172.24.0.0/13 and 10.200.0.0/13"},
		{"too large an IPv6 size", []string{"base=fd09::/48,size=64"}, 0, fakeHost{}, "::/40", true, "no subnet of size /40 can be chosen"},
		{"the host cannot be asked", nil, 0, fakeHost{err: errors.New("netlink is gone")}, "", false, "finding out which addresses the host uses: netlink is gone"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, row.bases...)
			b.Driver.host = &row.host
			for range row.use {
				if _, err := b.requestPool(row.pool, "", row.v6); err != nil {
					t.Fatal(err)
				}
			}
			before := b.store.Snapshot().Revision
			_, err := b.requestPool(row.pool, "", row.v6)
			checkError(t, err, row.want)
			if after := b.store.Snapshot().Revision; after != before {
				t.Errorf("the refused request left a trace: revision %d became %d", before, after)
			}
		})
	}
}

// TestThousandNetworks makes as many as are promised with a VPN over the first base, and
// looks at each for overlaps, as Docker does while it rejects one pool after the other.
func TestThousandNetworks(t *testing.T) {
	b := newBench(t)
	b.occupy("172.16.0.0/12", "10.203.7.0/24", "10.201.0.1/32")
	b.edit(func(tx *store.Tx) {
		for i := range 1000 { // in one commit, for speed
			taken := takenPrefixes(tx, b.host.occupied)
			p, ok := DefaultBasePools()[1].firstFree(taken)
			if !ok {
				t.Fatalf("there is no pool %d", i)
			}
			tx.PutPool(newPool(p, p))
		}
	})
	got, err := b.requestPool("", "", false)
	checkError(t, err, "")
	p := netip.MustParsePrefix(got.Pool)
	seen := map[netip.Prefix]bool{}
	for _, pool := range b.store.Snapshot().Pools {
		for _, o := range b.host.occupied {
			if pool.Prefix.Overlaps(o) {
				t.Errorf("pool %s overlaps %s of the host", pool.Prefix, o)
			}
		}
		if pool.ID != state.PoolID(got.PoolID) && pool.Prefix.Overlaps(p) || seen[pool.Prefix] {
			t.Errorf("pool %s is there twice", pool.Prefix)
		}
		seen[pool.Prefix] = true
	}
	if len(seen) != 1001 {
		t.Errorf("%d pools, want 1001", len(seen))
	}
}

func TestReleasePool(t *testing.T) {
	b := newBench(t)
	keep := b.pool("10.2.0.0/24", "")
	b.must(b.request(keep, ""))
	id := b.pool("10.1.0.0/24", "")
	b.must(b.gateway(id, ""))
	b.must(b.request(id, ""))
	b.must(b.request(id, "10.1.0.200"))
	for _, attempt := range []string{"first", "second"} {
		if err := b.releasePool(id); err != nil {
			t.Errorf("%s release: %v", attempt, err)
		}
	}
	for _, unknown := range []string{"", "drawbridge/10.3.0.0/24", "LocalDefault/10.2.0.0/24", strings.Repeat("x", 1<<16)} {
		checkError(t, b.releasePool(unknown), "")
	}
	if got := b.leases(id); got != nil {
		t.Errorf("addresses %v are in use after the release of their pool", got)
	}
	if got := b.leases(keep); len(got) != 1 {
		t.Errorf("the other pool has %v, want one address", got)
	}
	b.pool("10.1.0.0/24", "")
	if got, want := b.must(b.gateway(id, "")), "10.1.0.1/24"; got != want {
		t.Errorf("gateway of the new pool %s, want %s", got, want)
	}
}

func TestRequestPoolWithoutContext(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, pool := range []string{"", "10.1.0.0/24"} {
		_, err := b.RequestPool(ctx, &api.RequestPoolRequest{Pool: pool})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("pool %q: error %v, want that of the context", pool, err)
		}
	}
	if pools := b.store.Snapshot().Pools; len(pools) != 0 {
		t.Errorf("pools %v are left", pools)
	}
}

func TestCapabilities(t *testing.T) {
	b := newBench(t)
	caps, err := b.GetCapabilities(t.Context())
	if err != nil || *caps != (CapabilitiesResponse{}) {
		t.Errorf("capabilities %+v, %v: want none", caps, err)
	}
	spaces, err := b.GetDefaultAddressSpaces(t.Context())
	checkError(t, err, "")
	local, global := spaces.LocalDefaultAddressSpace, spaces.GlobalDefaultAddressSpace
	if local == "" || global == "" || local == global {
		t.Errorf("address spaces %s must be set and differ", fmt.Sprint(*spaces))
	}
}
