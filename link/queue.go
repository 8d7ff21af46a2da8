package link

import (
	"context"
	"net/netip"
	"sync"
)

// ending is flows that are to end.
type ending struct {
	// ends says whether a flow is among them; local are the host's own addresses.
	ends func(c flow, local map[netip.Addr]bool) bool
	// addrs are addresses whose neighbours are to be forgotten, too.
	addrs []netip.Addr
}

// queue collects endings while others are carried out.
type queue struct {
	do     func([]ending) error
	failed func(error)

	mu      sync.Mutex
	waiting []ending      // guarded by mu
	running chan struct{} // closed when the queue is empty again; nil while it is; guarded by mu
	err     error         // of the last round; guarded by mu
}

// maxWaiting bounds what is kept for another try.
const maxWaiting = 10_000

// add has an ending carried out soon.
func (q *queue) add(e ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) < maxWaiting {
		q.waiting = append(q.waiting, e)
	}
	q.start()
}

// start carries out what waits, unless somebody does already; the caller holds mu.
func (q *queue) start() {
	if q.running != nil || len(q.waiting) == 0 {
		return
	}
	q.running = make(chan struct{})
	go q.run()
}

func (q *queue) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.err = nil; len(q.waiting) > 0 && q.err == nil; {
		round := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		err := q.do(round)
		q.mu.Lock()
		if q.err = err; err != nil {
			q.waiting = append(round, q.waiting...) // for the next who asks
		}
	}
	if q.err != nil {
		q.failed(q.err)
	}
	close(q.running)
	q.running = nil
}

// settle tries what has failed once more, and returns when nothing is being carried out.
func (q *queue) settle(ctx context.Context) error {
	q.mu.Lock()
	q.start()
	running := q.running
	q.mu.Unlock()
	if running == nil {
		return nil
	}
	select {
	case <-running:
	case <-ctx.Done():
		return ctx.Err()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}
