package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

var errHost = errors.New("the host said no")

// moody is a host that agrees to everything, until it is told to fail.
type moody struct {
	willing
	err error
}

func (m *moody) Wait(context.Context, uint64, state.Scope) error { return m.err }

// life is both drivers on one store, and what they should have given out by the answers so far.
type life struct {
	t     *testing.T
	store *store.Store
	host  *moody
	net   *driver.Driver
	ipam  *ipam.Driver
	now   time.Time

	pools     [lifeNetworks * 2]poolOf // by network and family
	networks  [lifeNetworks]bool
	endpoints map[string]attached // by id
}

// poolOf is a pool; leased is nil if there is none.
type poolOf struct {
	leased  map[netip.Addr]leaseKind
	gateway netip.Addr // of the network, if there is one
}

type leaseKind int

const (
	forContainer leaseKind = iota
	forGateway
	forNobody // --aux-address
)

type attached struct {
	network int
	addrs   []netip.Addr
}

const lifeNetworks = 2

// oddIDs are what no engine sends.
var oddIDs = []string{"", "x", strings.Repeat("f", 100_000), "ünïcödé-ünïcödé", "aaaaaaaaaaaa\n", "../../../../../etc", "drawbridge/10.0.0.0/29\n"}

func lifeID(i int) string { return fmt.Sprintf("%012x%052x", i+1, 7) }

// idOf returns an id by its number; some are odd.
func idOf(i, choice int) string {
	if choice >= 250 {
		return oddIDs[(choice-250)%len(oddIDs)]
	}
	return lifeID(i)
}

func prefixOf(pool int) netip.Prefix {
	if pool%2 == 1 {
		return netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/125", pool/2))
	}
	return netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/29", pool/2))
}

func addrOf(pool, i int) netip.Addr {
	a := prefixOf(pool).Addr()
	for range i % 9 { // the last is outside
		a = a.Next()
	}
	return a
}

func poolID(pool, choice int) string {
	if choice >= 250 {
		return oddIDs[(choice-250)%len(oddIDs)]
	}
	return "drawbridge/" + prefixOf(pool).String()
}

// FuzzLife plays calls of both APIs in any order, some of which fail on the host: at each moment the leases are those that were
// given out and not given back, nobody gets what another has, a call that is refused changes nothing, a call that is made again
// answers the same, and in the end nothing is left.
func FuzzLife(f *testing.F) {
	for _, script := range [][]byte{
		{0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1, 0, 5, 0, 0, 2, 0, 0, 6, 0, 2, 7, 0, 0, 8, 0, 0, 11, 0, 0, 4, 0, 2, 13, 0, 0, 12, 0, 0},
		{0, 0, 0, 1, 0, 0, 3, 0, 5, 5, 0, 1, 3, 0, 5, 2, 0, 0, 6, 0, 2, 4, 0, 2, 4, 0, 1, 13, 0, 0, 12, 0, 0, 0, 0, 0},
		{0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 4, 0, 3, 2, 0, 0, 12, 0, 0},
		{0, 0, 0, 1, 0, 0, 5, 0, 1, 2, 0, 0, 2, 0, 0, 14, 0, 0, 6, 128, 2, 6, 0, 2, 13, 128, 0, 0, 0, 250, 12, 0, 251, 1, 0, 252, 5, 0, 253, 6, 0, 254},
		{5, 0, 0, 0, 0, 0, 13, 0, 0, 6, 0, 1, 7, 0, 0, 8, 128, 0, 9, 0, 0, 10, 0, 0, 11, 128, 0},
	} {
		f.Add(script)
	}
	s, err := store.Open(filepath.Join(f.TempDir(), "state.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, script []byte) {
		host := &moody{}
		l := &life{
			t: t, store: s, host: host, now: time.Now(), endpoints: map[string]attached{},
			net: driver.New(s, host, host, host, host, driver.Options{}), ipam: ipam.New(s, emptyHost{}, nil),
		}
		l.wipe()
		for ; len(script) >= 3 && !t.Failed(); script = script[3:] {
			l.play(int(script[0]), int(script[1]), int(script[2]))
		}
		if !t.Failed() {
			l.end()
		}
	})
}

// wipe removes what an earlier life left, if it failed.
func (l *life) wipe() {
	if _, err := l.store.Update(l.t.Context(), func(tx *store.Tx) error {
		for _, e := range tx.Endpoints() {
			tx.DeleteEndpoint(e.ID)
		}
		for _, n := range tx.Networks() {
			tx.DeleteNetwork(n.ID)
		}
		for _, p := range tx.Pools() {
			tx.DeletePool(p.ID)
		}
		for _, bridge := range tx.Retired() {
			tx.Unretire(bridge)
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
}

// move is a call. It notes what its answer means.
type move struct {
	name    string
	call    func(l *life, n, e, choice int) (any, error)
	removes bool // a failure of the host undoes nothing
	repeats bool // made again it answers the same and changes nothing
}

var moves = []move{
	{"RequestPool", (*life).requestPool, false, false},
	{"RequestAddress of the gateway", (*life).requestGateway, false, true},
	{"RequestAddress", (*life).requestAny, false, false},
	{"RequestAddress by name", (*life).requestNamed, false, false},
	{"ReleaseAddress", (*life).releaseAddress, true, true},
	{"CreateNetwork", (*life).createNetwork, false, true},
	{"CreateEndpoint", (*life).createEndpoint, false, true},
	{"Join", (*life).join, false, true},
	{"ProgramExternalConnectivity", (*life).program, false, true},
	{"RevokeExternalConnectivity", (*life).revoke, true, true},
	{"Leave", (*life).leave, true, true},
	{"DeleteEndpoint", (*life).deleteEndpoint, true, true},
	{"ReleasePool", (*life).releasePool, true, true},
	{"DeleteNetwork", (*life).deleteNetwork, true, true},
	{"Sweep", (*life).sweep, true, true},
}

func (l *life) play(which, of, choice int) {
	m := moves[which%len(moves)]
	n, e := of%(lifeNetworks*2), of/4%8
	if of >= 128 {
		l.host.err = errHost
	}
	before := l.everything()
	first, err := m.call(l, n, e, choice)
	l.host.err = nil
	what := fmt.Sprintf("%s (%d, %d, %d)", m.name, n, e, choice)
	l.check(what)
	after := l.everything()
	switch {
	case err != nil:
		if text := err.Error(); strings.Contains(text, "\n") || len(text) > 700 {
			l.t.Errorf("%s: not one sentence: %q", what, text)
		}
		if !m.removes || !errors.Is(err, errHost) {
			l.same(what+", refused ("+err.Error()+")", before, after)
		}
		if m.removes && !errors.Is(err, errHost) && choice < 250 {
			l.t.Errorf("%s: %v", what, err)
		}
	case m.repeats:
		second, err := m.call(l, n, e, choice)
		if d := gocmp.Diff(first, second); d != "" || err != nil {
			l.t.Errorf("%s, made again: %v %s", what, err, d)
		}
		l.same(what+", made again", after, l.everything())
	}
}

type allOfIt struct {
	State  state.Snapshot
	Leases []state.Lease
}

// everything leaves out what outlives a call that failed on the host: the name of a bridge, until the host was cleaned.
func (l *life) everything() (all allOfIt) {
	all.State = l.store.Snapshot()
	all.State.Revision, all.State.Retired = 0, nil
	_ = l.store.View(func(tx *store.Tx) error {
		for _, p := range tx.Pools() {
			all.Leases = append(all.Leases, tx.Leases(p.ID)...)
		}
		return nil
	})
	return all
}

func (l *life) same(what string, before, after allOfIt) {
	if d := gocmp.Diff(before, after, gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		l.t.Errorf("%s, changes (-before +after):\n%s", what, d)
	}
}

// check compares pools, leases, networks and endpoints with what the answers said.
func (l *life) check(what string) {
	var want, got []string
	for i, p := range l.pools {
		if p.leased == nil {
			continue
		}
		want = append(want, poolID(i, 0))
		for a := range p.leased {
			want = append(want, a.String())
		}
	}
	for n, there := range l.networks {
		if there {
			want = append(want, lifeID(n))
		}
	}
	for id, e := range l.endpoints {
		want = append(want, fmt.Sprint(id, e.addrs))
	}
	all := l.everything()
	for _, p := range all.State.Pools {
		got = append(got, string(p.ID))
	}
	for _, lease := range all.Leases {
		got = append(got, lease.Addr.String())
	}
	for _, n := range all.State.Networks {
		got = append(got, string(n.ID))
	}
	for _, e := range all.State.Endpoints {
		got = append(got, fmt.Sprint(string(e.ID), e.Addrs()))
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := gocmp.Diff(want, got); d != "" {
		l.t.Errorf("after %s (-want +got):\n%s", what, d)
	}
}

// end removes everything, as Docker does.
func (l *life) end() {
	for id, e := range l.endpoints {
		if err := l.net.DeleteEndpoint(l.t.Context(), &network.DeleteEndpointRequest{NetworkID: lifeID(e.network), EndpointID: id}); err != nil {
			l.t.Error(err)
		}
	}
	for n := range lifeNetworks {
		for _, pool := range []int{2 * n, 2*n + 1} {
			if err := l.ipam.ReleasePool(l.t.Context(), &ipamapi.ReleasePoolRequest{PoolID: poolID(pool, 0)}); err != nil {
				l.t.Error(err)
			}
		}
		if err := l.net.DeleteNetwork(l.t.Context(), &network.DeleteNetworkRequest{NetworkID: lifeID(n)}); err != nil {
			l.t.Error(err)
		}
	}
	l.same("the end", allOfIt{State: state.Snapshot{Forwarding: l.store.Snapshot().Forwarding}}, l.everything())
	if retired := l.store.Snapshot().Retired; len(retired) > 0 {
		l.t.Errorf("bridges %v are not forgotten", retired)
	}
}

// uses reports whether a network or an endpoint has the address.
func (l *life) uses(pool int, a netip.Addr) bool {
	if l.pools[pool].gateway == a {
		return true
	}
	for _, e := range l.endpoints {
		if e.network == pool/2 && slices.Contains(e.addrs, a) {
			return true
		}
	}
	return false
}
