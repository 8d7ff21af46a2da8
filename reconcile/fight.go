package reconcile

import (
	"context"
	"slices"
	"time"
)

// How a fight is told from a number of accidents: the same repair so often, each time within so long of the one before. While
// it lasts a pass that events ask for does not come for its sake, for twice as long each time. What differs beside it is repaired at
// once, and with it what is fought over. Calls of the engine do not wait, and the pass that is due by time is not later than ever. What
// leaves something open (state.Difference.Opens) waits for the shortest truce each time: that it costs more passes is less of an evil.
const (
	fightCount = 4
	fightPause = 20 * time.Second
	minTruce   = 2 * time.Second
	maxTruce   = time.Minute
	maxRepairs = 512 // that are remembered
	// lookPause is the time between two looks at the host in a truce, of whatever many events.
	lookPause = 400 * time.Millisecond
)

// fight tells which repairs somebody undoes as soon as they are made.
type fight struct {
	seen map[Finding]repaired
	// futile is what passes were made for in a truce and did not mend, which is no reason for another until one is due by time.
	futile map[Finding]bool
}

// repaired is how often something was repaired in short succession.
type repaired struct {
	times int
	last  time.Time
	truce time.Duration // 0 while it is not fought over
}

func (r repaired) until() time.Time { return r.last.Add(r.truce) }

// note counts repairs, and returns those over which a fight has begun.
func (f *fight) note(found []Finding, now time.Time) (news []Finding) {
	f.forget(now)
	for _, d := range found {
		delete(f.futile, d)
		if d.Paced {
			continue
		}
		r := f.seen[d]
		r.times, r.last = r.times+1, now
		if r.times >= fightCount {
			if r.truce == 0 {
				news = append(news, d)
			}
			longest := maxTruce
			if d.Opens {
				longest = minTruce
			}
			r.truce = min(max(2*r.truce, minTruce), longest)
		}
		if f.seen == nil {
			f.seen = map[Finding]repaired{}
		}
		if len(f.seen) < maxRepairs || r.times > 1 {
			f.seen[d] = r
		}
	}
	return news
}

// forget drops what was not repaired again for longer than its truce.
func (f *fight) forget(now time.Time) {
	for d, r := range f.seen {
		if now.Sub(r.last) > r.truce+fightPause {
			delete(f.seen, d)
		}
	}
}

// truce reports whether there is anything that events do not have repaired at once.
func (f *fight) truce(now time.Time) bool {
	for _, r := range f.seen {
		if now.Before(r.until()) {
			return true
		}
	}
	return false
}

// wait returns how long a pass has to wait that would mend what was found: not at all if anything of it is not fought over, or if
// the event was of something that is not looked at.
func (f *fight) wait(found []Finding, now time.Time) time.Duration {
	wait, urgent := time.Duration(0), len(found) == 0
	for _, d := range found {
		switch left := f.seen[d].until().Sub(now); {
		case left > 0 && (wait == 0 || left < wait):
			wait = left
		case left <= 0 && !f.futile[d]:
			if f.futile == nil {
				f.futile = map[Finding]bool{}
			}
			f.futile[d] = true // unless the pass mends it
			urgent = true
		}
	}
	switch {
	case urgent:
		return 0
	case wait == 0: // all is futile
		return maxTruce
	}
	return wait
}

// disputed returns what is fought over, in words.
func (f *fight) disputed() []string {
	var out []string
	for d, r := range f.seen {
		if r.truce > 0 {
			out = append(out, d.Text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// truce returns how long the pass waits for which events have asked. Where nobody fights that takes no look at the host.
func (l *Loop) truce(ctx context.Context) time.Duration {
	if !l.fight.truce(time.Now()) {
		return 0
	}
	drain(l.soon)
	defer l.work()()
	ctx, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	found := l.findings(ctx)
	return l.fight.wait(found, time.Now())
}
