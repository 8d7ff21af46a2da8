package hostfw

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/legacytables"
	"github.com/drawbridge-net/drawbridge/internal/periodic"
)

// Runner runs a program and returns what it printed; process.Run is one.
type Runner func(ctx context.Context, stdin string, argv ...string) (stdout string, err error)

// Firewalld is asked whether firewalld runs.
type Firewalld interface {
	Running(ctx context.Context) (bool, error)
}

// Options of a [Looker].
type Options struct {
	// Run runs iptables-legacy-save.
	Run Runner
	// Firewalld may be nil: then firewalld is a firewall like any other, seen by its rules.
	Firewalld Firewalld
}

// Looker looks at the rules of the network namespace in which it was made. Its methods may be called concurrently.
type Looker struct {
	options Options
	legacy  *legacytables.Tables
	now     func() time.Time

	mu    sync.Mutex // one look at a time
	last  reading    // guarded by mu
	known bool       // that last is of use; guarded by mu
}

// reading is what the rules said, and by what it is known whether they have changed since.
type reading struct {
	generation uint32
	sizes      legacytables.Sizes
	at         time.Time
	found      Finding
}

// staleAfter is how long legacy rules are taken for unchanged while their numbers and sizes are.
const staleAfter = 25 * time.Second

// New returns a Looker, which reads nothing yet.
func New(o Options) *Looker {
	return &Looker{options: o, legacy: legacytables.Open(), now: time.Now}
}

// Close gives back what New opened.
func (l *Looker) Close() { l.legacy.Close() }

// Look finds whether a firewall is active. It reads rules only if they may have changed since the last look. With an error nothing is
// known: who must not open a host takes it for guarded, and for one that looks at each connection.
func (l *Looker) Look(ctx context.Context) (Finding, error) {
	var failed error
	var running bool
	if l.options.Firewalld != nil {
		running, failed = l.options.Firewalld.Running(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	found, err := l.rules(ctx)
	switch {
	case err == nil && running:
		return Finding{Active: true, Why: "firewalld runs", Beyond: found.Beyond}, nil
	case err == nil && (failed == nil || found.Active):
		return found, nil
	}
	return Finding{}, fmt.Errorf("looking for a firewall of the host: %w", errors.Join(failed, err))
}

const (
	// changingTime is for how long rules are read anew that somebody changed meanwhile. dockerd does at its start, with a rule every few
	// milliseconds: on a host of legacy rules, each of whose tables a program has to read, a few attempts all meet a change, and who is told
	// that nothing is known serves ports otherwise for no reason.
	changingTime = 3 * time.Second
	// changingPause is between two attempts.
	changingPause = 20 * time.Millisecond
)

// rules judges the rules, those that were read last if nothing has changed.
func (l *Looker) rules(ctx context.Context) (Finding, error) {
	c, err := dial(ctx)
	if err != nil {
		return Finding{}, err
	}
	defer c.close()
	now, err := l.mark(c)
	for began := time.Now(); time.Since(began) < changingTime; {
		if err != nil {
			return Finding{}, err
		}
		if l.known && l.last.same(now) {
			return l.last.found, nil
		}
		l.known = false
		tables, failed := l.tables(ctx, c)
		var after reading
		if after, err = l.mark(c); err == nil && failed == nil && after.same(now) {
			now.found = judge(tables)
			l.last, l.known = now, true
			return now.found, nil
		}
		if err == nil && after.same(now) {
			return Finding{}, failed // and not because of a change
		}
		now = after
		select {
		case <-ctx.Done():
			return Finding{}, errors.Join(ctx.Err(), errChanging)
		case <-time.After(changingPause):
		}
	}
	return Finding{}, errors.Join(err, errChanging)
}

var errChanging = errors.New("somebody keeps changing the host's rules")

// mark returns by what the rules of this moment are known again.
func (l *Looker) mark(c *conn) (reading, error) {
	gen, err := c.generation()
	return reading{generation: gen, sizes: l.legacy.Sizes(legacyTables...), at: l.now()}, err
}

// same reports whether nothing has changed from r to a later reading.
func (r reading) same(later reading) bool {
	return r.generation == later.generation && r.sizes.Equal(later.sizes) && (len(r.sizes) == 0 || later.at.Sub(r.at) < staleAfter)
}

func (l *Looker) tables(ctx context.Context, c *conn) ([]table, error) {
	tables, err := c.tables()
	if err != nil {
		return nil, err
	}
	legacy, err := readLegacy(ctx, l.options.Run)
	return append(tables, legacy...), err
}

// watchPause is the time between two looks at the sizes of legacy tables.
const watchPause = time.Second

// Watch calls changed when rules of legacy iptables may have changed since the last Look, until ctx ends. While the kernel has none it
// reads two small files a second.
func (l *Looker) Watch(ctx context.Context, changed func(reason string)) error {
	return periodic.Do(ctx, watchPause, func(now time.Time) {
		if l.stray(l.now()) {
			changed("rules of legacy iptables may have changed")
		}
	})
}

func (l *Looker) stray(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	later := reading{generation: l.last.generation, sizes: l.legacy.Sizes(legacyTables...), at: now}
	return l.known && !l.last.same(later)
}
