package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	given         map[netip.Addr]bool // by this process, without a network
	network       bool                // there is one
	networkHas    netip.Addr          // its gateway
	endpoints     map[netip.Addr]state.EndpointID
	orphans       map[netip.Addr]time.Time // as found by Sweep
	lastReleased  netip.Addr               // until an address is given out
	endpointsMade int
}

func (m *model) reset() {
	m.leased, m.aux, m.given = map[netip.Addr]bool{}, map[netip.Addr]bool{}, map[netip.Addr]bool{}
	m.endpoints, m.orphans = map[netip.Addr]state.EndpointID{}, map[netip.Addr]time.Time{}
	m.network, m.networkHas, m.lastReleased = false, netip.Addr{}, netip.Addr{}
}

// lease notes that a was given out.
func (m *model) lease(a netip.Addr, gateway, aux bool) {
	m.leased[a], m.aux[a] = gateway, aux
	m.lastReleased = netip.Addr{}
	m.asked(a)
}

func (m *model) asked(a netip.Addr) {
	delete(m.orphans, a)
	if !m.network {
		m.given[a] = true
	}
}

func (m *model) forget(a netip.Addr) {
	delete(m.leased, a)
	delete(m.aux, a)
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
		m := &model{id: b.pool(pool.subnet, pool.rng)}
		m.reset()
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
			"lost":     func(t *rapid.T) { m.lost(t, b) },
			"sweep":    func(t *rapid.T) { m.sweep(t, b) },
			"again":    func(t *rapid.T) { m.again(t, b, pool.subnet, pool.rng) },
			"duplicate": func(t *rapid.T) {
				_, err := b.requestPool(pool.subnet, pool.rng, m.subnet.Addr().Is6())
				if m.network {
					checkError(t, err, "of network "+networkID.Short())
				} else if err == nil {
					m.reset() // it was abandoned
				}
			},
			"reopen": func(*rapid.T) {
				b.reopen()
				clear(m.given)
				clear(m.orphans)
			},
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
		words := fmt.Sprintf("all %d of %s are in use", m.capacity(), m.rng)
		for a, gateway := range m.leased {
			if gateway && m.capacity() == 1 && m.rng.Contains(a) {
				words = "the gateway has the only one of " + m.rng.String()
			}
		}
		checkError(t, err, words)
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
	m.lease(a, false, false)
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
	isGateway, isLeased := m.leased[a]
	_, hasEndpoint := m.endpoints[a]
	switch {
	case !m.subnet.Contains(a):
		checkError(t, err, "outside subnet")
	case !m.usable(a):
		checkError(t, err, "cannot be given out")
	case isGateway && asGateway:
		checkError(t, err, "")
		m.asked(a)
	case isGateway, hasEndpoint:
		checkError(t, err, "is in use")
	case m.network && m.aux[a]:
		checkError(t, err, "is reserved by --aux-address")
	case isLeased && !m.network && m.given[a]:
		checkError(t, err, "is in use already")
	default:
		checkError(t, err, "")
		if m.answer(t, got) != a {
			t.Fatalf("answer %s to the request for %s", got, a)
		}
		m.lease(a, asGateway, !asGateway && !m.network)
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
		m.asked(m.answer(t, got))
	case len(free) == 0:
		checkError(t, err, "no free address for the gateway")
	default:
		checkError(t, err, "")
		if m.answer(t, got) != free[0] {
			t.Fatalf("gateway %s, want the first of %v", got, free)
		}
		m.lease(free[0], true, false)
	}
}

func (m *model) release(t *rapid.T, b *bench) {
	a := m.some(t)
	if len(m.leased) > 0 && rapid.Bool().Draw(t, "one that is leased") {
		a = rapid.SampledFrom(slices.SortedFunc(maps.Keys(m.leased), netip.Addr.Compare)).Draw(t, "address")
	}
	checkError(t, b.release(m.id, a.String()), "")
	_, leased := m.leased[a]
	if _, ok := m.endpoints[a]; ok || !leased || a == m.networkHas {
		return
	}
	m.forget(a)
	m.lastReleased = a
}

// endpoint makes one of a leased address, as CreateEndpoint does.
func (m *model) endpoint(t *rapid.T, b *bench) {
	var ready []netip.Addr
	var gateways []netip.Addr
	for a, gateway := range m.leased {
		if gateway {
			gateways = append(gateways, a)
		}
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
	if !m.network && len(gateways) > 0 {
		m.networkHas = slices.MinFunc(gateways, netip.Addr.Compare)
	}
	b.edit(func(tx *store.Tx) {
		n := network(networkID, p)
		if m.subnet.Addr().Is6() {
			n.V6.Gateway = m.networkHas
		} else {
			n.V4.Gateway = m.networkHas
		}
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
	m.forget(a)
	m.lastReleased = a
}

// lost ends an endpoint whose address nobody releases.
func (m *model) lost(t *rapid.T, b *bench) {
	if len(m.endpoints) == 0 {
		t.Skip("no endpoint")
	}
	a := rapid.SampledFrom(slices.SortedFunc(maps.Keys(m.endpoints), netip.Addr.Compare)).Draw(t, "address")
	b.edit(func(tx *store.Tx) { tx.DeleteEndpoint(m.endpoints[a]) })
	delete(m.endpoints, a)
}

// sweep lets time pass and looks for what nobody has.
func (m *model) sweep(t *rapid.T, b *bench) {
	b.pass(time.Duration(rapid.IntRange(1, 70).Draw(t, "seconds")) * time.Second)
	var want []string
	since := map[netip.Addr]time.Time{}
	for _, a := range slices.SortedFunc(maps.Keys(m.leased), netip.Addr.Compare) {
		if _, ok := m.endpoints[a]; ok || !m.network || a == m.networkHas || m.aux[a] {
			continue
		}
		first, ok := m.orphans[a]
		if !ok {
			first = b.clock
		}
		if b.clock.Sub(first) < time.Minute {
			since[a] = first
			continue
		}
		want = append(want, a.String())
		m.forget(a)
		m.lastReleased = a
	}
	m.orphans = since
	if diff := cmp.Diff(want, b.sweep()); diff != "" {
		t.Fatalf("freed (-want +got):\n%s", diff)
	}
}

// again releases the pool, which has an effect once there is no network, and takes it anew.
func (m *model) again(t *rapid.T, b *bench, subnet, rng string) {
	checkError(t, b.releasePool(m.id), "")
	if m.network {
		m.check(t, b)
		b.removeNetwork(networkID)
	}
	m.reset()
	m.check(t, b)
	if id := b.pool(subnet, rng); id != m.id {
		t.Fatalf("pool %s, then %s", m.id, id)
	}
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
				m := &poolModel{b: b, base: base, v6: row.v6, live: map[string]*livePool{}}
				rt.Repeat(map[string]func(*rapid.T){
					"":        m.check,
					"choose":  m.choose,
					"named":   func(t *rapid.T) { m.named(t, some(t)) },
					"release": func(t *rapid.T) { m.release(t, m.oneOf(t, some)) },
					"network": func(t *rapid.T) { m.network(t, m.oneOf(t, some)) },
					"rm":      func(t *rapid.T) { m.rm(t, m.oneOf(t, some)) },
					"route":   func(t *rapid.T) { b.host.occupied = []netip.Prefix{some(t)} },
					"wait":    func(*rapid.T) { b.pass(3 * time.Second) },
					"reopen": func(*rapid.T) {
						b.reopen()
						for _, p := range m.live {
							p.begun = time.Time{}
						}
					},
				})
			})
		})
	}
}

// livePool is a pool as the model knows it.
type livePool struct {
	prefix  netip.Prefix
	begun   time.Time // zero: by an earlier process
	network state.NetworkID
}

// poolModel is which pools there should be.
type poolModel struct {
	b    *bench
	base netip.Prefix
	v6   bool
	live map[string]*livePool
	made int
}

// oneOf draws a prefix that often is that of a pool.
func (m *poolModel) oneOf(t *rapid.T, other func(*rapid.T) netip.Prefix) netip.Prefix {
	ids := slices.Sorted(maps.Keys(m.live))
	if len(ids) == 0 || rapid.IntRange(0, 3).Draw(t, "of a pool") == 0 {
		return other(t)
	}
	return m.live[rapid.SampledFrom(ids).Draw(t, "pool")].prefix
}

func (m *poolModel) check(t *rapid.T) {
	var got, want []string
	for _, p := range m.b.store.Snapshot().Pools {
		got = append(got, string(p.ID))
	}
	want = slices.Sorted(maps.Keys(m.live))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("pools (-want +got):\n%s", diff)
	}
	for id, p := range m.live {
		for other, q := range m.live {
			if id != other && p.prefix.Overlaps(q.prefix) {
				t.Fatalf("%s overlaps %s", id, other)
			}
		}
	}
}

func (m *poolModel) choose(t *rapid.T) {
	r, err := m.b.requestPool("", "", m.v6)
	if err != nil {
		checkError(t, err, fmt.Sprintf("%d are in use", len(m.live)))
		return
	}
	p := netip.MustParsePrefix(r.Pool)
	if _, ok := m.live[r.PoolID]; ok || p.Bits() != m.b.bases[0].Size || !m.base.Contains(p.Addr()) {
		t.Fatalf("%s was chosen with %v in use", p, m.live)
	}
	for _, o := range m.b.host.occupied {
		if o.Overlaps(p) {
			t.Fatalf("%s was chosen, the host has %s", p, o)
		}
	}
	m.live[r.PoolID] = &livePool{prefix: p, begun: m.b.clock}
}

// named says who must not give way: networks, pools under way, and what an earlier process gave
// out for another prefix.
func (m *poolModel) named(t *rapid.T, p netip.Prefix) {
	refused := ""
	for _, q := range m.live {
		switch {
		case !q.prefix.Overlaps(p):
		case q.network != "":
			refused = "of network"
		case m.b.clock.Sub(q.begun) < 5*time.Second, q.begun.IsZero() && q.prefix != p:
			if refused == "" {
				refused = "overlaps"
			}
		}
	}
	r, err := m.b.requestPool(p.String(), "", m.v6)
	checkError(t, err, refused)
	if refused != "" {
		return
	}
	for id, q := range m.live {
		if q.prefix.Overlaps(p) {
			delete(m.live, id)
		}
	}
	m.live[r.PoolID] = &livePool{prefix: p, begun: m.b.clock}
}

func (m *poolModel) release(t *rapid.T, p netip.Prefix) {
	id := "drawbridge/" + p.String()
	checkError(t, m.b.releasePool(id), "")
	if q, ok := m.live[id]; ok && q.network == "" {
		delete(m.live, id)
	}
}

// network makes one of a pool.
func (m *poolModel) network(t *rapid.T, p netip.Prefix) {
	q, ok := m.live["drawbridge/"+p.String()]
	if !ok || q.network != "" {
		t.Skip("no pool for it")
	}
	q.network = state.NetworkID(numbered(m.made))
	m.made++
	m.b.edit(func(tx *store.Tx) { tx.PutNetwork(network(q.network, p.String())) })
}

// rm removes a network as Docker does.
func (m *poolModel) rm(t *rapid.T, p netip.Prefix) {
	id := "drawbridge/" + p.String()
	q, ok := m.live[id]
	if !ok || q.network == "" {
		t.Skip("no such network")
	}
	checkError(t, m.b.releasePool(id), "")
	m.check(t)
	m.b.removeNetwork(q.network)
	delete(m.live, id)
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
