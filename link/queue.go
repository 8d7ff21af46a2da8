package link

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// ending is flows that are to end.
type ending struct {
	// ends says whether a flow is among them; local are the host's own addresses.
	ends func(c flow, local own) bool
	// addrs are addresses whose neighbours are to be forgotten, too.
	addrs []netip.Addr
	// again is how often it is carried out once more, a moment later, as long as it meets flows.
	again int
}

// queue collects endings while others are carried out.
type queue struct {
	do     func([]ending) error
	failed func(error)
	// delay lets more come together, and keeps the processors free for the engine, which moves links at that moment.
	delay time.Duration

	mu      sync.Mutex
	closed  bool // guarded by mu, as is all that follows
	waiting []ending
	round   chan struct{} // closed when the round that was begun has ended; nil between rounds
	hurry   chan struct{} // ends that round's delay
	added   int           // how many were asked for
	done    int           // how many of them, the first ones, were carried out
	err     error         // of the last round
}

// maxWaiting bounds what is kept for another try.
const maxWaiting = 10_000

// close has nothing more added.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// add has an ending carried out soon.
func (q *queue) add(e ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
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

// start begins a round with all that wait when the delay is over; the caller holds mu.
func (q *queue) start() {
	over, hurry := make(chan struct{}), make(chan struct{}, 1)
	q.round, q.hurry = over, hurry
	go func() {
		select {
		case <-time.After(q.delay):
		case <-hurry:
		}
		q.carryOut()
		close(over)
	}()
}

// carryOut is a round.
func (q *queue) carryOut() {
	q.mu.Lock()
	round := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	q.ended(round, q.do(round))
}

// ended takes note of how a round went, and begins the next.
func (q *queue) ended(round []ending, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
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
		select {
		case q.hurry <- struct{}{}:
		default:
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
