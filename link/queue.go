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
	waiting []ending      // guarded by mu, as is all that follows
	round   chan struct{} // closed when the running round has ended; nil between rounds
	added   int           // how many were asked for
	done    int           // how many of them, the first ones, were carried out
	err     error         // of the last round
}

// maxWaiting bounds what is kept for another try.
const maxWaiting = 10_000

// add has an ending carried out soon.
func (q *queue) add(e ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxWaiting {
		q.waiting = q.waiting[1:] // the kernel has been failing for long
		q.done++
	}
	q.waiting = append(q.waiting, e)
	q.added++
	if q.round == nil {
		q.start()
	}
}

// start begins a round with all that wait; the caller holds mu.
func (q *queue) start() {
	round, ended := q.waiting, make(chan struct{})
	q.waiting, q.round = nil, ended
	go func() {
		err := q.do(round)
		q.mu.Lock()
		defer q.mu.Unlock()
		defer close(ended)
		q.err, q.round = err, nil
		if err != nil {
			q.waiting = append(round, q.waiting...) // for the next who asks
			q.failed(err)
			return
		}
		q.done += len(round)
		if len(q.waiting) > 0 {
			q.start()
		}
	}()
}

// settle returns when what was added before is carried out. What has failed it tries once more.
func (q *queue) settle(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	until, tried := q.added, false
	for q.done < until {
		if q.round == nil {
			if tried {
				return q.err
			}
			tried = true
			q.start()
		}
		if err := q.await(ctx, q.round); err != nil {
			return err
		}
	}
	return nil
}

// await waits for the end of a round; the caller holds mu, and has it again after.
func (q *queue) await(ctx context.Context, round chan struct{}) error {
	q.mu.Unlock()
	defer q.mu.Lock()
	select {
	case <-round:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
