package outage

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// Patience is how long a new connection may take until its answer has come. One whose SYN was lost counts as not let in, though the next
// one passed a second later: so this may be long enough for a machine that others keep busy.
const Patience = 3 * time.Second

// glance is how long one waits that is not to be let in. There are many of them.
const glance = 900 * time.Millisecond

// A Request is one that has come to its end.
type Request struct {
	Began   time.Time
	Took    time.Duration
	Addr    string
	Outcome string // ok, or the probe's word for what happened
	Server  string // who answered
}

// Knocks are new connections, one after the other.
type Knocks struct {
	client

	mu       sync.Mutex
	requests []Request // guarded by mu
}

// Knock makes a request over a new connection to each of the addresses every so often, over tcp or udp.
func Knock(ctx context.Context, from lab.Place, every time.Duration, network string, addrs ...string) (*Knocks, error) {
	ctx, cancel := context.WithCancel(ctx)
	return follow(cancel, from.Command(ctx, from.Probe(), arguments(Patience, every, network, addrs)...))
}

// Try does the same with addresses that are to be closed.
func Try(ctx context.Context, from lab.Place, every time.Duration, network string, addrs ...string) (*Knocks, error) {
	ctx, cancel := context.WithCancel(ctx)
	return follow(cancel, from.Command(ctx, from.Probe(), TryArgs(every, network, addrs...)...))
}

// TryArgs are the arguments of the probe that tries, for where it is started by others.
func TryArgs(every time.Duration, network string, addrs ...string) []string {
	return arguments(glance, every, network, addrs)
}

func arguments(patience, every time.Duration, network string, addrs []string) []string {
	return append([]string{"knock", "-every", every.String(), "-timeout", patience.String(), network}, addrs...)
}

// Follow reads what a probe that knocks writes to a file of the host, from its beginning and over its restarts.
func Follow(ctx context.Context, on *lab.Host, path string) (*Knocks, error) {
	ctx, cancel := context.WithCancel(ctx)
	return follow(cancel, on.Command(ctx, "tail", "-n", "+1", "-F", path))
}

func follow(cancel context.CancelFunc, cmd *exec.Cmd) (*Knocks, error) {
	k := &Knocks{client: newClient(cancel, "nobody knocks any more")}
	cmd.Stderr = k.stderr
	if err := k.start(cmd); err != nil {
		cancel()
		return nil, err
	}
	return k, nil
}

func (k *Knocks) start(cmd *exec.Cmd) error {
	lines, err := start(cmd)
	if err != nil {
		return err
	}
	go func() {
		defer close(k.ended)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			if r, ok := parse(line); ok {
				k.mu.Lock()
				k.requests = append(k.requests, r)
				k.mu.Unlock()
			}
		}
		_ = cmd.Wait()
	}()
	return nil
}

func parse(line string) (r Request, ok bool) {
	var began, took int64
	n, _ := fmt.Sscan(line, &began, &took, &r.Addr, &r.Outcome, &r.Server)
	r.Began, r.Took = moment(began), time.Duration(took)*time.Microsecond
	return r, n >= 4
}

// moment is that at which the clock that nobody sets stood at so many microseconds. Whatever becomes of the time of day meanwhile, it compares
// with what time.Now returns.
func moment(microseconds int64) time.Time {
	return origin().Add(time.Duration(microseconds) * time.Microsecond)
}

// origin is the moment at which that clock stood at nothing. Of some looks at both clocks the quickest tells it best.
var origin = sync.OnceValue(func() time.Time {
	var best time.Time
	least := time.Duration(-1)
	for range 20 {
		var at unix.Timespec
		before := time.Now()
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &at) // there is none that lacks it
		if took := time.Since(before); least < 0 || took < least {
			best, least = before.Add(-time.Duration(at.Nano())), took
		}
	}
	return best
})

// Await waits until so many requests have come to their end that began since a moment.
func (k *Knocks) Await(since time.Time, n int, within time.Duration) error {
	for deadline := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		have := len(k.Between(since, time.Now()))
		if have >= n {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("in %v %d requests have come to their end, of %d", within, have, n)
		}
	}
}

// Between returns the requests that began between two moments, in that order.
func (k *Knocks) Between(from, to time.Time) []Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Request
	for _, r := range k.requests {
		if !r.Began.Before(from) && !r.Began.After(to) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Request) int { return a.Began.Compare(b.Began) })
	return out
}

// A Sum says what became of the requests to one address, or to all.
type Sum struct {
	Requests int
	Failed   map[string]int // by outcome
	Longest  time.Duration  // in which none that began was answered
}

// Sum sums up the requests that began between two moments; wait for [Patience] after the later one.
func (k *Knocks) Sum(from, to time.Time) Sum { return sum(k.Between(from, to), from, to) }

func sum(requests []Request, from, to time.Time) Sum {
	s := Sum{Requests: len(requests), Failed: map[string]int{}}
	answered := map[string][]time.Time{}
	for _, r := range requests {
		answered[r.Addr] = append(answered[r.Addr], nil...) // one that never answers counts too
		if r.Outcome == "ok" {
			answered[r.Addr] = append(answered[r.Addr], r.Began)
		} else {
			s.Failed[r.Outcome]++
		}
	}
	for _, moments := range answered {
		s.Longest = max(s.Longest, Longest(moments, from, to))
	}
	return s
}

// Lost is how many requests had no answer.
func (s Sum) Lost() (n int) {
	for _, count := range s.Failed {
		n += count
	}
	return n
}

func (s Sum) String() string {
	var words []string
	for _, outcome := range slices.Sorted(maps.Keys(s.Failed)) {
		words = append(words, fmt.Sprintf("%d %s", s.Failed[outcome], outcome))
	}
	if words == nil {
		words = []string{"none"}
	}
	return fmt.Sprintf("%d new connections, failed: %s; nobody let in for %v", s.Requests, strings.Join(words, ", "), s.Longest.Round(time.Millisecond))
}
