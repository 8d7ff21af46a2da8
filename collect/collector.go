package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/periodic"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Engines answer what they know (engine.Engines).
type Engines interface {
	Ask(ctx context.Context, inspect []state.NetworkID) (state.Known, error)
}

// Networks tells which endpoints and networks may be forgotten, and forgets them (driver.Driver).
type Networks interface {
	Detached(ctx context.Context) ([]state.Endpoint, []state.Network, error)
	ForgetEndpoint(ctx context.Context, e state.Endpoint) (bool, error)
	ForgetNetwork(ctx context.Context, n state.Network) (bool, error)
}

// Pools does the same for address pools (ipam.Driver).
type Pools interface {
	Loose(ctx context.Context) ([]state.Pool, error)
	ForgetPool(ctx context.Context, p state.Pool) (bool, error)
}

// Parts are what a collector works with.
type Parts struct {
	Store    *store.Store
	Engines  Engines // nil where none is to be asked
	Networks Networks
	Pools    Pools
}

// Options say how patient a collector is; zero values stand for the defaults.
type Options struct {
	Log *slog.Logger // slog.Default()
	// Grace is how long something must have been missing before it is removed by itself. 5 minutes.
	Grace time.Duration
	// Gap is how far the two rounds of Collect are apart. 5 seconds.
	Gap time.Duration
}

const (
	defaultGrace = 5 * time.Minute
	defaultGap   = 5 * time.Second
	// endpointGrace is enough for an endpoint, of which an engine tells from the moment after its creation.
	endpointGrace = time.Minute
	// leastRounds is in how many rounds something must have been missing.
	leastRounds = 3
)

// ErrOff says that there is no engine to ask.
var ErrOff = errors.New("the daemon runs with --engine-socket=off: it asks no engine what Docker has forgotten")

// Collector finds and removes orphans. Its methods may be called concurrently.
type Collector struct {
	parts   Parts
	options Options

	// turn holds one token: rounds come one after the other. What follows belongs to its holder.
	turn    chan struct{}
	missing map[key]absence
	young   map[key]time.Time // since when it is known that this run has made them, until they are settled

	mu       sync.Mutex
	obstacle obstacle // guarded by mu
	problem  string   // the obstacle in words; guarded by mu
}

// obstacle is why nothing is removed by itself.
type obstacle int

const (
	none      obstacle = iota
	unasked            // an engine cannot be asked
	strangers          // the engines know nothing of what the state is about
)

type key struct {
	kind Kind
	id   string
}

type absence struct {
	since time.Time
	// begun is when the grace period began, and rounds how many rounds it had.
	begun  time.Time
	rounds int
}

// New returns a collector that does nothing until it is run.
func New(p Parts, o Options) *Collector {
	o.Log = cmp.Or(o.Log, slog.Default())
	o.Grace = cmp.Or(o.Grace, defaultGrace)
	o.Gap = cmp.Or(o.Gap, defaultGap)
	return &Collector{parts: p, options: o, turn: make(chan struct{}, 1), missing: map[key]absence{}}
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	if c.parts.Engines == nil {
		return periodic.Do(ctx, answerTime, c.settleOnly(ctx))
	}
	// The grace period of endpoints has room for the rounds that it takes.
	return periodic.Do(ctx, c.grace(Endpoint)/(leastRounds+1), func(time.Time) {
		if err := c.round(ctx); err != nil && ctx.Err() == nil {
			c.options.Log.Warn("removing what Docker forgot", "error", err)
		}
	})
}

// Problem says why nothing is removed by itself at present, and is empty if nothing is in the way.
func (c *Collector) Problem() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// List returns the orphans there are.
func (c *Collector) List(ctx context.Context) ([]Orphan, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.release()
	l, err := c.look(ctx)
	return l.orphans, err
}

// Result is what became of an orphan.
type Result struct {
	Orphan
	Removed bool
	Err     error // why not; nil too for one that turned out not to be forgotten
}

// Collect removes all orphans that are such in two rounds.
func (c *Collector) Collect(ctx context.Context) ([]Result, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.release()
	first, err := c.look(ctx)
	if err != nil || len(first.orphans) == 0 {
		return nil, err
	}
	before := map[key]bool{}
	for _, o := range first.orphans {
		before[o.key()] = true
	}
	select {
	case <-time.After(c.options.Gap):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	second, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, o := range second.orphans {
		if before[o.key()] {
			results = append(results, c.remove(ctx, o))
		}
	}
	return results, nil
}

func (c *Collector) take(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("an earlier collection is still at work: %w", ctx.Err())
	}
}

func (c *Collector) release() { <-c.turn }

func (o Orphan) key() key { return key{o.Kind, o.ID} }

// remove takes one orphan out of the state.
func (c *Collector) remove(ctx context.Context, o Orphan) Result {
	r := Result{Orphan: o}
	switch o.Kind {
	case Endpoint:
		r.Removed, r.Err = c.parts.Networks.ForgetEndpoint(ctx, o.endpoint)
	case Network:
		r.Removed, r.Err = c.parts.Networks.ForgetNetwork(ctx, o.network)
	case Pool:
		r.Removed, r.Err = c.parts.Pools.ForgetPool(ctx, o.pool)
	}
	if r.Removed {
		delete(c.missing, o.key())
		c.options.Log.Warn("removed what Docker forgot", string(o.Kind), o.ID, "what", o.What, "reason", o.Why)
	}
	return r
}
