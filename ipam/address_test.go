package ipam

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Steps of TestAddresses: "+" requests the next address, "+a" that address, "g" the
// gateway, "ga" that address for the gateway, "-a" releases, "reopen" restarts. Behind "="
// is the answer, behind "!" a part of the error.
func TestAddresses(t *testing.T) {
	for _, row := range []struct {
		name          string
		subnet, rng   string
		steps         string
		wantAddresses string // in use at the end
	}{
		{
			"gateway, then containers", "10.1.0.0/24", "",
			"g=10.1.0.1/24 +=10.1.0.2/24 +=10.1.0.3/24", "10.1.0.1 10.1.0.2 10.1.0.3",
		},
		{
			"IPv6 gateway, then containers", "fd01::/64", "",
			"g=fd01::1/64 +=fd01::2/64 +=fd01::3/64", "fd01::1 fd01::2 fd01::3",
		},
		{"the same gateway when asked again", "10.1.0.0/24", "", "g=10.1.0.1/24 g=10.1.0.1/24 g10.1.0.1=10.1.0.1/24", "10.1.0.1"},
		{"a named gateway when asked again", "10.1.0.0/24", "", "g10.1.0.254=10.1.0.254/24 g=10.1.0.254/24 g10.1.0.254=10.1.0.254/24", "10.1.0.254"},
		{"named IPv6 gateway", "fd01::/64", "", "gfd01::ffff=fd01::ffff/64 +=fd01::1/64", "fd01::1 fd01::ffff"},
		{"a range has the gateway too", "10.1.0.0/24", "10.1.0.128/25", "g=10.1.0.128/24 +=10.1.0.129/24", "10.1.0.128 10.1.0.129"},
		{"an IPv6 range", "fd01::/64", "fd01::8000/113", "g=fd01::8000/64 +=fd01::8001/64", "fd01::8000 fd01::8001"},
		{"gateway outside the range", "10.1.0.0/24", "10.1.0.128/25", "g10.1.0.1=10.1.0.1/24 +=10.1.0.128/24", "10.1.0.1 10.1.0.128"},
		{"auxiliary address outside the range", "10.1.0.0/24", "10.1.0.128/25", "g=10.1.0.128/24 +10.1.0.9=10.1.0.9/24", "10.1.0.9 10.1.0.128"},
		{"a named address is passed over", "10.1.0.0/24", "", "+10.1.0.1=10.1.0.1/24 +10.1.0.2=10.1.0.2/24 g=10.1.0.3/24 +=10.1.0.4/24", "10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.4"},
		{"an auxiliary address for the gateway", "10.1.0.0/24", "", "+10.1.0.7=10.1.0.7/24 g10.1.0.7!address·10.1.0.7·of·subnet·10.1.0.0/24·is·in·use·already:·choose·another", "10.1.0.7"},
		{"a repeated request", "10.1.0.0/24", "", "+10.1.0.7=10.1.0.7/24 reopen +10.1.0.7=10.1.0.7/24 +=10.1.0.1/24 reopen +10.1.0.1=10.1.0.1/24", "10.1.0.1 10.1.0.7"},
		{"twice the same", "10.1.0.0/24", "", "+10.1.0.7=10.1.0.7/24 +10.1.0.7!in·use·already +=10.1.0.1/24 +10.1.0.1!in·use·already -10.1.0.7 +10.1.0.7=10.1.0.7/24", "10.1.0.1 10.1.0.7"},
		{"the gateway for a container", "10.1.0.0/24", "", "g=10.1.0.1/24 +10.1.0.1!gateway·of·subnet·10.1.0.0/24 +=10.1.0.2/24", "10.1.0.1 10.1.0.2"},
		{"IPv6 form", "fd01::/64", "", "+FD01:0:0:0:0:0:0:9=fd01::9/64 -fd01::0009", ""},

		{"not right after its release", "10.1.0.0/24", "", "+=10.1.0.1/24 +=10.1.0.2/24 -10.1.0.1 +=10.1.0.3/24 -10.1.0.3 +=10.1.0.4/24", "10.1.0.2 10.1.0.4"},
		{"not after a restart either", "fd01::/64", "", "+=fd01::1/64 -fd01::1 reopen +=fd01::2/64 reopen +=fd01::3/64", "fd01::2 fd01::3"},
		{"nor a named one", "10.1.0.0/24", "", "+10.1.0.1=10.1.0.1/24 -10.1.0.1 +=10.1.0.2/24", "10.1.0.2"},
		{"nor a named one behind others", "10.1.0.0/24", "", "+10.1.0.1=10.1.0.1/24 +10.1.0.2=10.1.0.2/24 -10.1.0.2 +=10.1.0.3/24 -10.1.0.1", "10.1.0.3"},
		{
			"round the end", "10.1.0.0/29", "", "+10.1.0.5=10.1.0.5/29 +=10.1.0.1/29 +=10.1.0.2/29 +=10.1.0.3/29 +=10.1.0.4/29 -10.1.0.2 +=10.1.0.6/29 +=10.1.0.2/29 +!no·free·address",
			"10.1.0.1 10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6",
		},
		{
			"round the end of a range", "10.1.0.0/24", "10.1.0.16/30", "+=10.1.0.16/24 +=10.1.0.17/24 -10.1.0.16 +=10.1.0.18/24 +=10.1.0.19/24 +=10.1.0.16/24 +!no·free·address",
			"10.1.0.16 10.1.0.17 10.1.0.18 10.1.0.19",
		},
		{"the only free one", "10.1.0.0/30", "", "g=10.1.0.1/30 +=10.1.0.2/30 -10.1.0.2 +=10.1.0.2/30 -10.1.0.2 reopen +=10.1.0.2/30", "10.1.0.1 10.1.0.2"},
		{"up to the last IPv4 address that there is", "255.255.255.252/31", "", "+=255.255.255.252/31 +=255.255.255.253/31 +!no·free", "255.255.255.252 255.255.255.253"},

		{"two addresses", "10.1.0.0/31", "", "g=10.1.0.0/31 +=10.1.0.1/31 +!all·2·of·10.1.0.0/31", "10.1.0.0 10.1.0.1"},
		{"two IPv6 addresses", "fd01::/127", "", "g=fd01::/127 +=fd01::1/127 +!all·2·of·fd01::/127", "fd01:: fd01::1"},
		{"one address", "10.1.0.7/32", "", "g=10.1.0.7/32 +!the·gateway·has·the·only·one·of·10.1.0.7/32;·use·a·network·with·a·larger·--subnet", "10.1.0.7"},
		{"one IPv6 address", "fd01::7/128", "", "g=fd01::7/128 +!subnet·fd01::7/128·has·no·free·address:·the·gateway·has·the·only·one", "fd01::7"},
		{"no address for the gateway", "fd01::7/128", "", "+=fd01::7/128 g!fd01::7/128·has·no·free·address·for·the·gateway:·name·one +!all·1·of", "fd01::7"},
		{"a range of one address", "10.1.0.0/24", "10.1.0.9/32", "g=10.1.0.9/24 +!the·gateway·has·the·only·one·of·10.1.0.9/32 +10.1.0.10=10.1.0.10/24", "10.1.0.9 10.1.0.10"},
		{"a range of one address beside the gateway", "10.1.0.0/24", "10.1.0.9/32", "g10.1.0.1=10.1.0.1/24 +=10.1.0.9/24 +!all·1·of·10.1.0.9/32", "10.1.0.1 10.1.0.9"},
		{"four addresses", "10.1.0.0/30", "", "+=10.1.0.1/30 +=10.1.0.2/30 +!all·2·of·10.1.0.0/30", "10.1.0.1 10.1.0.2"},
		{"four IPv6 addresses", "fd01::/126", "", "+=fd01::1/126 +=fd01::2/126 +=fd01::3/126 +!all·3·of·fd01::/126", "fd01::1 fd01::2 fd01::3"},
		{"a range with the broadcast address", "10.1.0.0/24", "10.1.0.252/30", "+=10.1.0.252/24 +=10.1.0.253/24 +=10.1.0.254/24 +!all·3·of·10.1.0.252/30", "10.1.0.252 10.1.0.253 10.1.0.254"},
		{"a range of nothing but the network address", "10.1.0.0/24", "10.1.0.0/32", "g!name·one·with·--gateway g10.1.0.1=10.1.0.1/24 +!10.1.0.0/32·holds·none·that·can·be·given·out +10.1.0.5=10.1.0.5/24", "10.1.0.1 10.1.0.5"},

		{"/22", "10.1.4.0/22", "", "g=10.1.4.1/22 +=10.1.4.2/22 +10.1.4.255=10.1.4.255/22 +10.1.5.0=10.1.5.0/22 +10.1.7.255!broadcast +10.1.8.0!outside", "10.1.4.1 10.1.4.2 10.1.4.255 10.1.5.0"},
		{"/29", "10.1.0.8/29", "", "g=10.1.0.9/29 +=10.1.0.10/29 +10.1.0.15!broadcast +10.1.0.8!network +10.1.0.16!outside", "10.1.0.9 10.1.0.10"},
		{"/80", "fd01::/80", "", "g=fd01::1/80 +=fd01::2/80 +fd01::ffff:ffff:ffff=fd01::ffff:ffff:ffff/80 +fd01::1:0:0:0!outside", "fd01::1 fd01::2 fd01::ffff:ffff:ffff"},
		{"/112", "fd01::7:0/112", "", "g=fd01::7:1/112 +=fd01::7:2/112 +fd01::7:ffff=fd01::7:ffff/112 +fd01::8:0!outside +fd01::7:0!anycast", "fd01::7:1 fd01::7:2 fd01::7:ffff"},
		{"/48", "fd01:2:3::/48", "", "g=fd01:2:3::1/48 +=fd01:2:3::2/48 +fd01:2:3:4::5=fd01:2:3:4::5/48 +fd01:2:4::!outside", "fd01:2:3::1 fd01:2:3::2 fd01:2:3:4::5"},

		{"network address", "10.1.0.0/24", "", "+10.1.0.0!is·the·network·address·of·subnet·10.1.0.0/24 g10.1.0.0!network", ""},
		{"broadcast address", "10.1.0.0/24", "", "+10.1.0.255!is·the·broadcast·address g10.1.0.255!broadcast", ""},
		{"anycast address", "fd01::/64", "", "+fd01::!is·the·subnet-router·anycast·address gfd01::!anycast", ""},
		{"the last IPv6 address is like any other", "fd01::/120", "", "+fd01::ff=fd01::ff/120", "fd01::ff"},
		{"outside", "10.1.0.0/24", "", "+10.1.1.1!address·10.1.1.1·is·outside·subnet·10.1.0.0/24 g10.2.0.1!outside", ""},
		{"the other family", "10.1.0.0/24", "", "+fd01::1!outside +::ffff:10.1.0.7!outside", ""},
		{"the other family for IPv6", "fd01::/64", "", "+10.1.0.1!outside", ""},
		{"malformed", "10.1.0.0/24", "", "+10.1.0!malformed +10.1.0.7/24!malformed +web!malformed +10.1.0.07!malformed g10.1.0.256!malformed", ""},
		{"with a zone", "fd01::/64", "", "+fd01::1%eth0!malformed", ""},
		{"malformed release", "10.1.0.0/24", "", "+=10.1.0.1/24 -10.1.0!malformed -!malformed -10.1.0.1/24!malformed", "10.1.0.1"},
		{"release of what is free or elsewhere", "10.1.0.0/24", "", "+=10.1.0.1/24 -10.1.0.2 -10.1.0.0 -192.0.2.1 -fd01::1 -0.0.0.0", "10.1.0.1"},
		{"release twice", "10.1.0.0/24", "", "+=10.1.0.1/24 -10.1.0.1 -10.1.0.1", ""},
		{"release of the gateway", "10.1.0.0/24", "", "g=10.1.0.1/24 -10.1.0.1 g=10.1.0.1/24 +=10.1.0.2/24", "10.1.0.1 10.1.0.2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			id := b.pool(row.subnet, row.rng)
			for step := range strings.FieldsSeq(row.steps) {
				b.step(id, strings.ReplaceAll(step, "·", " "))
			}
			if diff := cmp.Diff(strings.Fields(row.wantAddresses), b.leases(id), equateEmpty); diff != "" {
				t.Errorf("addresses in use (-want +got):\n%s", diff)
			}
		})
	}
}

var equateEmpty = cmp.Transformer("joined", func(s []string) string { return strings.Join(s, " ") })

// step does one step of TestAddresses.
func (b *bench) step(pool, step string) {
	b.t.Helper()
	call, want, _ := strings.Cut(step, "=")
	call, wantErr, _ := strings.Cut(call, "!")
	before := b.store.Snapshot().Revision
	var got string
	var err error
	switch {
	case call == "reopen":
		b.reopen()
		return
	case call[0] == '+':
		got, err = b.request(pool, call[1:])
	case call[0] == 'g':
		got, err = b.gateway(pool, call[1:])
	case call[0] == '-':
		err = b.release(pool, call[1:])
	}
	if (err != nil) != (wantErr != "") || got != want {
		b.t.Fatalf("step %q: answer %q, error %v", step, got, err)
	}
	checkError(b.t, err, wantErr)
	if after := b.store.Snapshot().Revision; err != nil && after != before {
		b.t.Errorf("step %q: the refused request left a trace", step)
	}
}

func TestUnknownPool(t *testing.T) {
	b := newBench(t)
	b.pool("10.1.0.0/24", "")
	for _, row := range []struct{ name, id, say string }{
		{"empty", "", `no address pool ""`},
		{"never given out", "drawbridge/10.2.0.0/24", `no address pool "drawbridge/10.2.0.0/24": remove the network and create it again`},
		{"of another driver", "LocalDefault/10.1.0.0/24", "LocalDefault"},
		{"with a range", "drawbridge/10.1.0.0/24/10.1.0.0/25", "no address pool"},
		{"oversized", strings.Repeat("x", 1<<16), "…"},
		{"control characters", "drawbridge/\n\x00", "drawbridge/��"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := b.request(row.id, "10.1.0.9")
			checkError(t, err, row.say)
			checkError(t, b.release(row.id, "10.1.0.9"), "")
		})
	}
	_, err := b.request("drawbridge/10.1.0.0/24", strings.Repeat("1", 1<<16))
	checkError(t, err, "…")
}

func TestAddressWithoutContext(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/24", "")
	b.must(b.request(id, "10.1.0.7"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.RequestAddress(ctx, &api.RequestAddressRequest{PoolID: id})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("request: error %v, want that of the context", err)
	}
	err = b.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: id, Address: "10.1.0.7"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("release: error %v, want that of the context", err)
	}
	if diff := cmp.Diff([]string{"10.1.0.7"}, b.leases(id)); diff != "" {
		t.Errorf("addresses in use (-want +got):\n%s", diff)
	}
}

// TestLargePools would not end if anything went through a pool address by address.
func TestLargePools(t *testing.T) {
	for _, row := range []struct{ name, subnet, steps string }{
		{"IPv4", "10.0.0.0/8", "g=10.0.0.1/8 +=10.0.0.2/8 +10.255.255.254=10.255.255.254/8 -10.0.0.2 +=10.0.0.3/8"},
		{"IPv6", "fd00::/8", "g=fd00::1/8 +=fd00::2/8 -fd00::2 +=fd00::3/8"},
		{"IPv6 /64", "fd01::/64", "+fd01::ffff:ffff:ffff:ffff=fd01::ffff:ffff:ffff:ffff/64 +=fd01::1/64"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			id := b.pool(row.subnet, "")
			start := time.Now()
			for step := range strings.FieldsSeq(row.steps) {
				b.step(id, step)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestCapacity(t *testing.T) {
	for _, row := range []struct {
		subnet, rng string
		want        uint64
	}{
		{"10.1.0.0/24", "10.1.0.0/24", 254},
		{"10.1.0.0/24", "10.1.0.0/25", 127},
		{"10.1.0.0/24", "10.1.0.64/26", 64},
		{"10.1.0.0/24", "10.1.0.255/32", 0},
		{"10.1.0.0/31", "10.1.0.0/31", 2},
		{"10.1.0.0/32", "10.1.0.0/32", 1},
		{"10.0.0.0/8", "10.0.0.0/8", 1<<24 - 2},
		{"fd01::/120", "fd01::/120", 255},
		{"fd01::/127", "fd01::/127", 2},
		{"fd01::/128", "fd01::/128", 1},
		{"fd01::/64", "fd01::/64", 1<<63 - 1},
	} {
		pool := newPool(netip.MustParsePrefix(row.subnet), netip.MustParsePrefix(row.rng))
		if got := capacity(pool); got != row.want {
			t.Errorf("capacity of %s in %s = %d, want %d", row.rng, row.subnet, got, row.want)
		}
	}
}

// TestAddressOfEndpoint is about the leases of endpoints that exist.
func TestAddressOfEndpoint(t *testing.T) {
	for _, row := range []struct{ name, gateway, addr, free string }{
		{"IPv4", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.3/24"},
		{"IPv6", "fd01::1/64", "fd01::2/64", "fd01::3/64"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			addr := netip.MustParsePrefix(row.addr)
			gateway := netip.MustParsePrefix(row.gateway).Addr()
			id := b.pool(addr.Masked().String(), "")
			b.must(b.gateway(id, ""))
			b.must(b.request(id, ""))
			b.edit(func(tx *store.Tx) {
				tx.PutNetwork(network(networkID, row.gateway))
				tx.PutEndpoint(endpoint(networkID, endpointID, row.addr))
			})

			_, err := b.request(id, addr.Addr().String())
			checkError(t, err, "is in use by endpoint aaaaaaaaaaaa of network 111111111111: choose another")
			_, err = b.gateway(id, addr.Addr().String())
			checkError(t, err, "is in use by endpoint aaaaaaaaaaaa")
			_, err = b.request(id, gateway.String())
			checkError(t, err, "is in use as the gateway")

			// The rollback of somebody whose request was taken for a repetition.
			checkError(t, b.release(id, addr.Addr().String()), "")
			checkError(t, b.release(id, gateway.String()), "")
			if diff := cmp.Diff([]string{gateway.String(), addr.Addr().String()}, b.leases(id)); diff != "" {
				t.Errorf("addresses in use after a stranger's release (-want +got):\n%s", diff)
			}
			if got := b.must(b.request(id, "")); got != row.free {
				t.Errorf("next address %s, want %s", got, row.free)
			}

			// Docker's own order: the endpoint goes first.
			b.edit(func(tx *store.Tx) { tx.DeleteEndpoint(endpointID) })
			checkError(t, b.release(id, addr.Addr().String()), "")
			if got := b.must(b.request(id, addr.Addr().String())); got != row.addr {
				t.Errorf("address %s, want %s", got, row.addr)
			}
		})
	}
}

// TestAddressWithoutLease: a release that came before the endpoint was stored takes the
// lease, but does not make the address free once the endpoint is there.
func TestAddressWithoutLease(t *testing.T) {
	b := newBench(t)
	id := b.pool("10.1.0.0/29", "")
	b.must(b.gateway(id, ""))
	b.must(b.request(id, "10.1.0.2"))
	checkError(t, b.release(id, "10.1.0.2"), "")
	b.edit(func(tx *store.Tx) {
		tx.PutNetwork(network(networkID, "10.1.0.1/29"))
		tx.PutEndpoint(endpoint(networkID, endpointID, "10.1.0.2/29"))
	})
	_, err := b.request(id, "10.1.0.2")
	checkError(t, err, "is in use by endpoint")
	for _, want := range []string{"10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29", "10.1.0.6/29"} {
		if got := b.must(b.request(id, "")); got != want {
			t.Errorf("address %s, want %s", got, want)
		}
	}
	_, err = b.request(id, "")
	checkError(t, err, "no free address")
}

// TestAuxAddress: what was named before there was a network is kept from its containers.
func TestAuxAddress(t *testing.T) {
	for _, row := range []struct{ name, subnet, rng, gateway, aux, other, next string }{
		{"IPv4", "10.1.0.0/24", "", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.9/24", "10.1.0.3/24"},
		{"IPv4 outside the range", "10.1.0.0/24", "10.1.0.128/25", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.9/24", "10.1.0.128/24"},
		{"IPv6", "fd01::/64", "", "fd01::1/64", "fd01::2/64", "fd01::9/64", "fd01::3/64"},
		{"IPv6 outside the range", "fd01::/64", "fd01::8000/113", "fd01::1/64", "fd01::2/64", "fd01::9/64", "fd01::8000/64"},
	} {
		t.Run(row.name, func(t *testing.T) {
			addr := func(s string) string { return netip.MustParsePrefix(s).Addr().String() }
			b := newBench(t)
			id := b.pool(row.subnet, row.rng)
			b.edit(func(tx *store.Tx) { // somebody else's
				tx.PutNetwork(network(state.NetworkID(numbered(2)), "10.2.0.1/24", "fd02::1/64"))
			})
			b.must(b.gateway(id, addr(row.gateway)))
			for range 2 { // Docker's retry
				if got := b.must(b.request(id, addr(row.aux))); got != row.aux {
					t.Errorf("auxiliary address %s, want %s", got, row.aux)
				}
				b.reopen()
			}
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, row.gateway)) })
			b.reopen()

			refusal := "address " + addr(row.aux) + " is reserved by --aux-address of subnet " + row.subnet + ": choose another"
			for range 2 {
				_, err := b.request(id, addr(row.aux))
				checkError(t, err, refusal)
				_, err = b.gateway(id, addr(row.aux))
				checkError(t, err, refusal)
			}
			for range 2 { // a container's --ip is no auxiliary address
				if got := b.must(b.request(id, addr(row.other))); got != row.other {
					t.Errorf("named address %s, want %s", got, row.other)
				}
			}
			if got := b.must(b.request(id, "")); got != row.next {
				t.Errorf("next address %s, want %s", got, row.next)
			}

			// Docker's `network rm` releases it.
			checkError(t, b.release(id, addr(row.aux)), "")
			if got := b.must(b.request(id, addr(row.aux))); got != row.aux {
				t.Errorf("address %s after its release, want %s", got, row.aux)
			}
		})
	}
}

// TestAuxAddressGoesWithPool: the next network of the same subnet has none of it.
func TestAuxAddressGoesWithPool(t *testing.T) {
	for _, row := range []struct{ name, gateway, aux string }{
		{"IPv4", "10.1.0.1/24", "10.1.0.2"},
		{"IPv6", "fd01::1/64", "fd01::2"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t)
			subnet := netip.MustParsePrefix(row.gateway).Masked().String()
			id := b.pool(subnet, "")
			b.must(b.request(id, row.aux))
			checkError(t, b.releasePool(id), "")
			b.pool(subnet, "")
			b.edit(func(tx *store.Tx) { tx.PutNetwork(network(networkID, row.gateway)) })
			b.must(b.request(id, row.aux))
		})
	}
}
