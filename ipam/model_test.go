package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go4.org/netipx"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// model is what the driver should hold for one pool, in the simplest form.
type model struct {
	id            string
	subnet, rng   netip.Prefix
	leased        map[netip.Addr]bool // true: the gateway
	aux           map[netip.Addr]bool // of leased
	network       bool                // there is one
	endpoints     map[netip.Addr]state.EndpointID
	lastReleased  netip.Addr // until an address is given out
	endpointsMade int
}

// modelPools are small, so that a random address often meets another.
var modelPools = []struct{ subnet, rng string }{
	{"10.1.0.0/28", ""},
	{"10.1.0.0/29", "10.1.0.4/30"},
	{"10.1.0.0/30", ""},
	{"10.1.0.0/31", ""},
	{"10.1.0.5/32", ""},
	{"10.1.0.0/24", "10.1.0.248/29"},
	{"fd01::/124", ""},
	{"fd01::/126", ""},
	{"fd01::/127", ""},
	{"fd01::9/128", ""},
	{"fd01::/64", "fd01::8/125"},
	{"fd01::/64", "fd01::/126"},
}

// TestModel does random calls, restarts among them, and compares with the model.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		defer func() { b.store.Close() }()
		b.t = rt
		pool := rapid.SampledFrom(modelPools).Draw(rt, "pool")
		m := &model{id: b.pool(pool.subnet, pool.rng), leased: map[netip.Addr]bool{}, aux: map[netip.Addr]bool{}, endpoints: map[netip.Addr]state.EndpointID{}}
		p, _ := b.storedPool(m.id)
		m.subnet, m.rng = p.Prefix, p.Range
		rt.Repeat(map[string]func(*rapid.T){
			"":         func(t *rapid.T) { m.check(t, b) },
			"next":     func(t *rapid.T) { m.next(t, b) },
			"next ":    func(t *rapid.T) { m.next(t, b) }, // twice as often
			"named":    func(t *rapid.T) { m.named(t, b) },
			"gateway":  func(t *rapid.T) { m.gateway(t, b) },
			"release":  func(t *rapid.T) { m.release(t, b) },
			"endpoint": func(t *rapid.T) { m.endpoint(t, b) },
			"gone":     func(t *rapid.T) { m.gone(t, b) },
			"reopen":   func(*rapid.T) { b.reopen() },
		})
	})
}

func (b *bench) storedPool(id string) (p state.Pool, ok bool) {
	b.store.View(func(tx *store.Tx) error {
		p, ok = tx.Pool(state.PoolID(id))
		return nil
	})
	return p, ok
}

// usable is written apart from reserved, by what the RFCs say.
func (m *model) usable(a netip.Addr) bool {
	if !m.subnet.Contains(a) {
		return false
	}
	hosts := m.subnet.Addr().BitLen() - m.subnet.Bits()
	if hosts <= 1 {
		return true
	}
	return a != netipx.RangeOfPrefix(m.subnet).From() && (a.Is6() || a != netipx.RangeOfPrefix(m.subnet).To())
}

// free returns the addresses of the range that can be given out; the ranges here are small.
func (m *model) free() []netip.Addr {
	var out []netip.Addr
	for a := m.rng.Addr(); m.rng.Contains(a); a = a.Next() {
		if _, leased := m.leased[a]; m.usable(a) && !leased {
			out = append(out, a)
		}
	}
	return out
}

// answer checks the form of an answer and returns its address.
func (m *model) answer(t *rapid.T, s string) netip.Addr {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Bits() != m.subnet.Bits() || !m.usable(p.Addr()) {
		t.Fatalf("answer %q cannot be an address of %s", s, m.subnet)
	}
	return p.Addr()
}

func (m *model) next(t *rapid.T, b *bench) {
	free := m.free()
	got, err := b.request(m.id, "")
	if len(free) == 0 {
		checkError(t, err, fmt.Sprintf("all %d of %s are in use", m.capacity(), m.rng))
		return
	}
	checkError(t, err, "")
	a := m.answer(t, got)
	if !slices.Contains(free, a) {
		t.Fatalf("%s was given, of %v that are free", a, free)
	}
	if a == m.lastReleased && len(free) > 1 {
		t.Fatalf("%s was given right after its release, of %v", a, free)
	}
	m.leased[a] = false
	m.lastReleased = netip.Addr{}
}

func (m *model) capacity() int {
	n := 0
	for a := m.rng.Addr(); m.rng.Contains(a); a = a.Next() {
		if m.usable(a) {
			n++
		}
	}
	return n
}

// some draws an address in or shortly behind the subnet.
func (m *model) some(t *rapid.T) netip.Addr {
	a := m.rng.Addr()
	if rapid.Bool().Draw(t, "of the whole subnet") {
		a = m.subnet.Addr()
	}
	for range rapid.IntRange(0, 20).Draw(t, "offset") {
		a = a.Next()
	}
	return a
}

func (m *model) named(t *rapid.T, b *bench) {
	a := m.some(t)
	asGateway := rapid.Bool().Draw(t, "as gateway")
	call := b.request
	if asGateway {
		call = b.gateway
	}
	got, err := call(m.id, a.String())
	isGateway := m.leased[a]
	_, hasEndpoint := m.endpoints[a]
	switch {
	case !m.subnet.Contains(a):
		checkError(t, err, "outside subnet")
	case !m.usable(a):
		checkError(t, err, "cannot be given out")
	case isGateway && !asGateway, hasEndpoint:
		checkError(t, err, "is in use")
	case m.network && m.aux[a]:
		checkError(t, err, "is reserved by --aux-address")
	default:
		checkError(t, err, "")
		if m.answer(t, got) != a {
			t.Fatalf("answer %s to the request for %s", got, a)
		}
		m.leased[a], m.aux[a] = asGateway, !asGateway && !m.network
		m.lastReleased = netip.Addr{}
	}
}

func (m *model) gateway(t *rapid.T, b *bench) {
	free := m.free()
	got, err := b.gateway(m.id, "")
	var gateways []netip.Addr
	for a, gateway := range m.leased {
		if gateway {
			gateways = append(gateways, a)
		}
	}
	switch {
	case len(gateways) > 0:
		checkError(t, err, "")
		if !slices.Contains(gateways, m.answer(t, got)) {
			t.Fatalf("gateway %s, want one of %v", got, gateways)
		}
	case len(free) == 0:
		checkError(t, err, "no free address")
	default:
		checkError(t, err, "")
		if m.answer(t, got) != free[0] {
			t.Fatalf("gateway %s, want the first of %v", got, free)
		}
		m.leased[free[0]] = true
		m.lastReleased = netip.Addr{}
	}
}

func (m *model) release(t *rapid.T, b *bench) {
	a := m.some(t)
	if len(m.leased) > 0 && rapid.Bool().Draw(t, "one that is leased") {
		a = rapid.SampledFrom(slices.SortedFunc(maps.Keys(m.leased), netip.Addr.Compare)).Draw(t, "address")
	}
	checkError(t, b.release(m.id, a.String()), "")
	_, leased := m.leased[a]
	if _, ok := m.endpoints[a]; ok || !leased {
		return
	}
	delete(m.leased, a)
	delete(m.aux, a)
	m.lastReleased = a
}

// endpoint makes one of a leased address, as CreateEndpoint does.
func (m *model) endpoint(t *rapid.T, b *bench) {
	var ready []netip.Addr
	for a, gateway := range m.leased {
		if _, ok := m.endpoints[a]; !gateway && !ok && !m.aux[a] {
			ready = append(ready, a)
		}
	}
	if len(ready) == 0 {
		t.Skip("no address without an endpoint")
	}
	slices.SortFunc(ready, netip.Addr.Compare)
	a := rapid.SampledFrom(ready).Draw(t, "address")
	m.endpointsMade++
	id := state.EndpointID(numbered(m.endpointsMade))
	p := netip.PrefixFrom(a, m.subnet.Bits()).String()
	b.edit(func(tx *store.Tx) {
		// Its gateway is outside: which one the bridge has is no matter here.
		n := network(networkID, p)
		n.V4.Gateway, n.V6.Gateway = netip.Addr{}, netip.Addr{}
		tx.PutNetwork(n)
		tx.PutEndpoint(endpoint(networkID, id, p))
	})
	m.endpoints[a] = id
	m.network = true
}

// gone ends an endpoint as Docker does.
func (m *model) gone(t *rapid.T, b *bench) {
	if len(m.endpoints) == 0 {
		t.Skip("no endpoint")
	}
	a := rapid.SampledFrom(slices.SortedFunc(maps.Keys(m.endpoints), netip.Addr.Compare)).Draw(t, "address")
	b.edit(func(tx *store.Tx) { tx.DeleteEndpoint(m.endpoints[a]) })
	checkError(t, b.release(m.id, a.String()), "")
	delete(m.endpoints, a)
	delete(m.leased, a)
	m.lastReleased = a
}

// check compares all leases with the model's.
func (m *model) check(t *rapid.T, b *bench) {
	var want []string
	for _, a := range slices.SortedFunc(maps.Keys(m.leased), netip.Addr.Compare) {
		want = append(want, a.String())
	}
	if diff := cmp.Diff(want, b.leases(m.id)); diff != "" {
		t.Fatalf("addresses in use (-want +got):\n%s", diff)
	}
}

// TestModelOfPools makes and releases pools at random: none overlaps another, nor what the
// host or a network has.
func TestModelOfPools(t *testing.T) {
	for _, row := range []struct {
		name, base string
		v6         bool
	}{
		{"IPv4", "base=10.1.0.0/27,size=29", false},
		{"IPv6", "base=fd01::/123,size=125", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				b := newBench(t, row.base)
				defer func() { b.store.Close() }()
				b.t = rt
				base := b.bases[0].Base
				some := func(t *rapid.T) netip.Prefix {
					a := base.Addr()
					for range rapid.IntRange(0, 31).Draw(t, "offset") {
						a = a.Next()
					}
					return netip.PrefixFrom(a, rapid.IntRange(base.Bits(), a.BitLen()).Draw(t, "bits")).Masked()
				}
				live := map[string]netip.Prefix{}
				got := func(t *rapid.T, id, pool string) {
					p := netip.MustParsePrefix(pool)
					for other, q := range live {
						if other != id && q.Overlaps(p) {
							t.Fatalf("%s overlaps %s", p, q)
						}
					}
					live[id] = p
				}
				rt.Repeat(map[string]func(*rapid.T){
					"choose": func(t *rapid.T) {
						r, err := b.requestPool("", "", row.v6)
						if err != nil {
							checkError(t, err, fmt.Sprintf("%d are in use", len(live)))
							return
						}
						p := netip.MustParsePrefix(r.Pool)
						if _, ok := live[r.PoolID]; ok || p.Bits() != b.bases[0].Size || !base.Contains(p.Addr()) {
							t.Fatalf("%s was chosen with %v in use", p, live)
						}
						for _, o := range b.host.occupied {
							if o.Overlaps(p) {
								t.Fatalf("%s was chosen, the host has %s", p, o)
							}
						}
						got(t, r.PoolID, r.Pool)
					},
					"named": func(t *rapid.T) {
						p := some(t)
						r, err := b.requestPool(p.String(), "", row.v6)
						if err == nil {
							got(t, r.PoolID, r.Pool)
						}
						clash := slices.ContainsFunc(slices.Collect(maps.Values(live)), func(q netip.Prefix) bool { return q != p && q.Overlaps(p) })
						if clash != (err != nil) {
							t.Fatalf("request for %s: error %v with %v in use", p, err, live)
						}
					},
					"release": func(t *rapid.T) {
						p := some(t)
						id := "drawbridge/" + p.String()
						checkError(t, b.releasePool(id), "")
						delete(live, id)
					},
					"route":  func(t *rapid.T) { b.host.occupied = []netip.Prefix{some(t)} },
					"reopen": func(*rapid.T) { b.reopen() },
				})
			})
		})
	}
}

// TestConcurrentRequests asks for everything at once.
func TestConcurrentRequests(t *testing.T) {
	defer goleak.VerifyNone(t)
	b := newBench(t)
	id := b.pool("10.1.0.0/27", "")
	const callers = 40 // for 30 addresses
	answers := make([]string, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { answers[i], _ = b.request(id, "") })
	}
	wg.Wait()
	slices.Sort(answers)
	answers = slices.DeleteFunc(answers, func(s string) bool { return s == "" })
	if distinct := slices.Compact(slices.Clone(answers)); len(answers) != 30 || len(distinct) != 30 {
		t.Errorf("%d answers of which %d differ, want 30: %s", len(answers), len(distinct), strings.Join(answers, " "))
	}
}
