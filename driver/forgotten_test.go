package driver

import (
	"context"
	"errors"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// detached returns how many endpoints and networks an engine may have forgotten.
func (b *bench) detached() (endpoints, networks int) {
	b.t.Helper()
	e, n, err := b.Detached(b.ctx())
	b.ok(err)
	return len(e), len(n)
}

// lose says whether endpoint 1 has its link in no container.
func (b *bench) lose(lost bool) {
	b.host.lost = map[state.EndpointID]bool{state.EndpointID(id(1)): lost}
}

// TestDetached: what is in a container cannot be forgotten, nor what a call is at work on.
func TestDetached(t *testing.T) {
	for name, c := range map[string]struct {
		do                  func(b *bench)
		endpoints, networks int
	}{
		"in a container":  {func(*bench) {}, 0, 0},
		"lost":            {func(b *bench) { b.lose(true) }, 1, 1},
		"not joined":      {func(b *bench) { b.ok(b.leave(1, 1)) }, 1, 1},
		"a network alone": {func(b *bench) { b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 2))) }, 0, 1},
		"one in a container, one not": {func(b *bench) {
			b.createEndpoint(1, 2)
		}, 1, 0},
		"a call for the endpoint": {func(b *bench) {
			b.lose(true)
			_, release, err := b.lockEndpoint(b.ctx(), id(1), id(1))
			b.ok(err)
			t.Cleanup(release)
		}, 0, 1},
		"a call for the network": {func(b *bench) {
			b.lose(true)
			release, err := b.locks.take(b.ctx(), networkLock(state.NetworkID(id(1))))
			b.ok(err)
			t.Cleanup(release)
		}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			c.do(b)
			if e, n := b.detached(); e != c.endpoints || n != c.networks {
				t.Errorf("%d endpoints, %d networks", e, n)
			}
		})
	}
}

// TestCreationIsNotForgotten: an engine lists a network after CreateNetwork has returned.
func TestCreationIsNotForgotten(t *testing.T) {
	b := newBench(t, Options{})
	looked := false
	b.loop.wait = func(context.Context) error {
		looked = true
		if len(b.store.Snapshot().Networks) != 1 {
			t.Error("the network is not in the state while it is made")
		}
		if e, n := b.detached(); e+n > 0 {
			t.Errorf("%d endpoints, %d networks", e, n)
		}
		return nil
	}
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	if _, n := b.detached(); n != 1 || !looked {
		t.Errorf("afterwards: %d networks", n)
	}
}

func TestForgetEndpoint(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(b *bench)
		gone      bool
	}{
		"lost":              {func(b *bench) { b.lose(true) }, true},
		"in its container":  {func(*bench) {}, false},
		"closed its ports":  {func(b *bench) { b.lose(true); b.ok(b.revoke(1, 1)) }, false},
		"left its sandbox":  {func(b *bench) { b.lose(true); b.ok(b.leave(1, 1)) }, false},
		"deleted by Docker": {func(b *bench) { b.lose(true); b.ok(b.deleteEndpoint(1, 1)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			e := b.endpoint(1)
			c.meanwhile(b)
			before := len(b.store.Snapshot().Endpoints)
			gone, err := b.ForgetEndpoint(b.ctx(), e)
			b.ok(err)
			if left := len(b.store.Snapshot().Endpoints); gone != c.gone || (before-left == 1) != c.gone {
				t.Errorf("gone %t, %d left of %d", gone, left, before)
			}
			if c.gone && (len(b.ports.all()) > 0 || len(b.flows.addrs) == 0) {
				t.Error("it keeps ports or connections")
			}
		})
	}
	b := furnished(t)
	b.host.noLost = errors.New("no links")
	if gone, err := b.ForgetEndpoint(b.ctx(), b.endpoint(1)); gone || !errors.Is(err, b.host.noLost) {
		t.Errorf("gone %t, error %v", gone, err)
	}
}

func TestForgetNetwork(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(b *bench)
		gone      bool
	}{
		"empty":          {func(*bench) {}, true},
		"an endpoint":    {func(b *bench) { b.createEndpoint(2, 2) }, false},
		"seen meanwhile": {func(b *bench) { b.see(2) }, false},
		"deleted":        {func(b *bench) { b.ok(b.deleteNetwork(2)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 2)))
			n, _ := b.network(2)
			_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error {
				tx.PutPool(state.Pool{ID: "p", Prefix: n.V4.Prefix, Range: n.V4.Prefix})
				return nil
			})
			b.ok(err)
			c.meanwhile(b)
			_, before := b.network(2)
			gone, err := b.ForgetNetwork(b.ctx(), n)
			b.ok(err)
			if _, there := b.network(2); gone != c.gone || (before && !there) != c.gone {
				t.Errorf("gone %t, still there %t", gone, there)
			}
			if c.gone && len(b.store.Snapshot().Pools) > 0 {
				t.Error("its pool stays")
			}
			if _, there := b.network(1); !there || b.endpoint(1).ID == "" {
				t.Error("another network is gone too")
			}
		})
	}
}

// see does what the collector does with a network that an engine knows.
func (b *bench) see(n int) {
	b.t.Helper()
	_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error {
		v, _ := tx.Network(state.NetworkID(id(n)))
		v.Seen = true
		tx.PutNetwork(v)
		return nil
	})
	b.ok(err)
}

// TestSeenIsNoSetting: a network is the same one when it is created once more.
func TestSeenIsNoSetting(t *testing.T) {
	b := furnished(t)
	b.see(1)
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	if n, _ := b.network(1); !n.Seen {
		t.Error("the network was made anew")
	}
}
