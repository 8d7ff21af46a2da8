package driver

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func (b *bench) sweep(at time.Time) []state.Endpoint {
	b.t.Helper()
	removed, err := b.Sweep(b.ctx(), at)
	b.ok(err)
	return removed
}

// TestSweep: an endpoint goes when it has looked forgotten for long enough, without a break.
func TestSweep(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	always := func(n int) []bool { return slices.Repeat([]bool{true}, n) }
	for name, c := range map[string]struct {
		joined string // before: by an earlier process; here: by this one; no
		lost   []bool // at each look, 20 s apart
		gone   bool
	}{
		"in its container":         {"before", make([]bool, 20), false},
		"about to be moved":        {"before", []bool{true, false, false, false}, false},
		"lost":                     {"before", always(3), true},
		"lost, but not for long":   {"before", always(2), false},
		"lost, back and lost":      {"before", []bool{true, true, false, true, true}, false},
		"the engine is stalled":    {"here", always(15), false},
		"lost in this process":     {"here", always(17), true},
		"not joined yet":           {"no", always(15), false},
		"never joined":             {"no", always(17), true},
		"moved after a long stall": {"here", append(always(10), make([]bool, 10)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			if c.joined == "no" {
				b.ok(b.leave(1, 1))
			}
			if c.joined != "here" {
				b.Driver = New(b.store, b.loop, b.ports, b.host, b.flows, Options{})
			}
			_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error {
				pool := state.Pool{ID: "p", Prefix: b.endpoint(1).Addr4.Masked(), Range: b.endpoint(1).Addr4.Masked()}
				tx.PutPool(pool)
				tx.PutLease(state.Lease{Pool: "p", Addr: b.endpoint(1).Addr4.Addr()})
				return nil
			})
			b.ok(err)
			var removed int
			for i, lost := range c.lost {
				b.host.lost = map[state.EndpointID]bool{state.EndpointID(id(1)): lost}
				removed += len(b.sweep(start.Add(time.Duration(i) * 20 * time.Second)))
			}
			_, stays := b.store.Snapshot().Endpoint(state.EndpointID(id(1)))
			if stays == c.gone || (removed == 1) != c.gone {
				t.Errorf("removed %d, stays %t", removed, stays)
			}
			b.ok(b.store.View(func(tx *store.Tx) error {
				if leases := tx.LeaseCount("p"); (leases == 0) != c.gone {
					t.Errorf("%d leases", leases)
				}
				return nil
			}))
			if c.gone && len(b.ports.all()) > 0 {
				t.Error("its ports are held")
			}
		})
	}
}

// TestSweepLeavesWhatChanged: between the look and the removal the engine may have come back.
func TestSweepLeavesWhatChanged(t *testing.T) {
	b := furnished(t)
	old := b.endpoint(1)
	b.ok(b.revoke(1, 1))
	removed, err := b.forget(b.ctx(), []state.Endpoint{old})
	if err != nil || len(removed) > 0 || b.endpoint(1).ID == "" {
		t.Errorf("removed %v, error %v", removed, err)
	}
}

func TestSweepWithoutAnswer(t *testing.T) {
	b := furnished(t)
	b.host.noLost = errors.New("no links")
	if _, err := b.Sweep(b.ctx(), time.Now()); !errors.Is(err, b.host.noLost) {
		t.Errorf("error %v", err)
	}
}

// TestPortOfForgottenEndpoint: what an earlier process joined and is lost must not keep a port.
func TestPortOfForgottenEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		restarted, lost bool
		want            bool
	}{
		"lost before this process began": {true, true, true},
		"lost in this process":           {false, true, false},
		"alive":                          {true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			if c.restarted {
				b.Driver = New(b.store, b.loop, b.ports, b.host, b.flows, Options{})
			}
			b.host.lost = map[state.EndpointID]bool{state.EndpointID(id(1)): c.lost}
			b.createEndpoint(1, 2)
			b.join(1, 2)
			err := b.program(1, 2, `[`+tcp(80, 8080)+`]`)
			if (err == nil) != c.want || !c.want && !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("error %v", err)
			}
			if _, stays := b.store.Snapshot().Endpoint(state.EndpointID(id(1))); stays == c.want {
				t.Errorf("the first endpoint stays: %t", stays)
			}
		})
	}
}

// TestEvictSparesOthers: a port that somebody else holds is no reason to remove who has nothing to
// do with it.
func TestEvictSparesOthers(t *testing.T) {
	b := furnished(t)
	b.Driver = New(b.store, b.loop, b.ports, b.host, b.flows, Options{})
	b.host.lost = map[state.EndpointID]bool{state.EndpointID(id(1)): true}
	for _, want := range []state.PortRequest{
		{Proto: state.TCP, HostPort: 8081, HostPortEnd: 8081, ContainerPort: 80},
		{Proto: state.UDP, HostPort: 8080, HostPortEnd: 8080, ContainerPort: 80},
		{Proto: state.TCP, ContainerPort: 80},
	} {
		if gone, err := b.evict(b.ctx(), "", []state.PortRequest{want}); gone || err != nil {
			t.Errorf("%v: %t, %v", want, gone, err)
		}
	}
	inRange := state.PortRequest{Proto: state.TCP, HostPort: 8000, HostPortEnd: 9000, ContainerPort: 80}
	if gone, err := b.evict(b.ctx(), "", []state.PortRequest{inRange}); !gone || err != nil {
		t.Errorf("%t, %v", gone, err)
	}
}

// TestJoinsAreForgotten: what is remembered of a join goes with the endpoint.
func TestJoinsAreForgotten(t *testing.T) {
	b := furnished(t)
	if _, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(1), EndpointID: id(9), SandboxKey: "/x"}); err == nil {
		t.Error("an unknown endpoint joins")
	}
	b.ok(b.deleteEndpoint(1, 1))
	b.sweep(time.Now())
	if n := len(b.suspects.joined); n != 0 {
		t.Errorf("%d joins are remembered", n)
	}
}

// TestMACFollowsTheAddress: neighbours remember it.
func TestMACFollowsTheAddress(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	first := newEndpoint(t, 1, 1)
	r, err := b.CreateEndpoint(b.ctx(), first)
	b.ok(err)
	b.ok(b.deleteEndpoint(1, 1))
	second := newEndpoint(t, 1, 2)
	// The IPv6 address goes on by itself where only the IPv4 address was asked for.
	second.Interface = &network.EndpointInterface{Address: first.Interface.Address, AddressIPv6: "fd00:1::77/64"}
	again, err := b.CreateEndpoint(b.ctx(), second)
	b.ok(err)
	if r.Interface.MacAddress != again.Interface.MacAddress {
		t.Errorf("%s, then %s", r.Interface.MacAddress, again.Interface.MacAddress)
	}
	b.createEndpoint(1, 3)
	if b.endpoint(3).MAC == b.endpoint(2).MAC {
		t.Error("two addresses have one MAC")
	}
}

// TestUnlinked: who has been without a link for a sweep is told of, until there is one again; and whether the container runs.
func TestUnlinked(t *testing.T) {
	b := furnished(t)
	e := state.EndpointID(id(1))
	unlinked := func(when string, wantRunning, wantGone int) {
		t.Helper()
		running, gone, err := b.Unlinked(b.ctx())
		if err != nil || len(running) != wantRunning || len(gone) != wantGone || slices.ContainsFunc(slices.Concat(running, gone), func(f state.Endpoint) bool { return f.ID != e }) {
			t.Errorf("%s: %v run, %v are gone, %v", when, running, gone, err)
		}
	}
	b.host.lost, b.host.running = map[state.EndpointID]bool{e: true}, map[state.EndpointID]bool{e: true}
	unlinked("before a sweep", 0, 0)
	b.sweep(time.Now())
	unlinked("after a sweep", 1, 0)
	b.host.running = nil
	unlinked("with its container gone", 0, 1)
	b.host.lost = nil
	unlinked("with a link, before the next sweep", 0, 0)
	b.sweep(time.Now())
	unlinked("with a link", 0, 0)
}

// TestSweepRunning: a container that runs keeps its endpoint and its ports, though somebody deleted its link.
func TestSweepRunning(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, runs := range []bool{true, false} {
		b := furnished(t)
		b.Driver = New(b.store, b.loop, b.ports, b.host, b.flows, Options{}) // which has seen no Join
		e := state.EndpointID(id(1))
		b.host.lost, b.host.running = map[state.EndpointID]bool{e: true}, map[state.EndpointID]bool{e: runs}
		removed := len(b.sweep(start)) + len(b.sweep(start.Add(lostPatience)))
		if (removed == 0) != runs {
			t.Errorf("runs %t: %d removed", runs, removed)
		}
	}
}
