package ipam

import (
	"net/netip"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

const (
	// underWay is how long after its last request a pool is taken for one whose network is being
	// created. An engine goes on within milliseconds.
	underWay = 5 * time.Second
	// auxPause is how soon after the request before it the one for an --aux-address comes at
	// the latest. What comes later is for a container.
	auxPause = 250 * time.Millisecond
)

// memory is what the driver knows for the life of the process. It is read and changed inside
// of functions for store.Update only, which run one after the other. If the commit fails it may
// name what is not in the store; therefore it is asked only about what is.
type memory struct {
	// begun has, for pools given out by this process of which no container has asked for an
	// address, the time of the last request.
	begun map[state.PoolID]time.Time
	// given has the addresses leased by this process while their pool had no network.
	given map[leaseKey]bool
	// orphans has the leases that nobody seems to have, and since when.
	orphans map[leaseKey]time.Time
}

type leaseKey struct {
	pool state.PoolID
	addr netip.Addr
}

func newMemory() memory {
	return memory{begun: map[state.PoolID]time.Time{}, given: map[leaseKey]bool{}, orphans: map[leaseKey]time.Time{}}
}

func (m *memory) isUnderWay(id state.PoolID, now time.Time) bool {
	last, ok := m.begun[id]
	return ok && now.Sub(last) < underWay
}

// noteRequest records a request for an address, which either is part of the creation of the
// pool's network or shows that a container is on it.
func (m *memory) noteRequest(id state.PoolID, gateway, named bool, now time.Time) {
	last, ok := m.begun[id]
	switch {
	case !ok:
	case gateway, named && now.Sub(last) <= auxPause:
		m.begun[id] = now
	default:
		delete(m.begun, id)
	}
}

func (m *memory) noteLease(id state.PoolID, a netip.Addr, made bool) {
	key := leaseKey{id, a}
	delete(m.orphans, key)
	if !made {
		m.given[key] = true
	}
}
