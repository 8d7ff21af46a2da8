package driver

import (
	"errors"
	"syscall"
	"testing"
	"time"

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
	for name, c := range map[string]struct {
		joined bool
		lost   []bool // at each look, 20 s apart
		gone   bool
	}{
		"in its container":         {true, []bool{false, false, false, false}, false},
		"about to be moved":        {true, []bool{true, false, false, false}, false},
		"lost":                     {true, []bool{true, true, true}, true},
		"lost, but not for long":   {true, []bool{true, true}, false},
		"lost, back and lost":      {true, []bool{true, true, false, true, true}, false},
		"not joined yet":           {false, []bool{true, true, true, true}, false},
		"never joined":             {false, make([]bool, 17), true},
		"joined after a long time": {false, make([]bool, 15), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			if !c.joined {
				b.ok(b.leave(1, 1))
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

// TestFlowsOfThePreviousOwner: an address is clean when a container gets it.
func TestFlowsOfThePreviousOwner(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	b.createEndpoint(1, 1)
	if got := len(b.flows.addrs); got != len(b.endpoint(1).Addrs()) {
		t.Errorf("%d addresses forgotten", got)
	}
	b.createEndpoint(1, 1) // a repetition must not cut the container's connections
	if got := len(b.flows.addrs); got != len(b.endpoint(1).Addrs()) {
		t.Errorf("%d addresses forgotten", got)
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
	second.Interface = first.Interface
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
