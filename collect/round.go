package collect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// sight is what one look at state and engines shows.
type sight struct {
	orphans []Orphan
	// strange says that the engines know nothing of what the state is about.
	strange bool
	held    int // how many networks the state has
}

// round removes what has been missing for long enough.
func (c *Collector) round(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.release()
	if err := c.settle(ctx, time.Now()); err != nil {
		return err
	}
	l, err := c.look(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		c.report(unasked, "what Docker has forgotten is kept: "+err.Error())
		return nil
	case l.strange:
		c.beginAnew()
		c.report(strangers, fmt.Sprintf("what Docker has forgotten is kept: the engines know none of the %d networks here; `drawbridge gc --dry-run` lists what they do not know, and `drawbridge gc` removes it", l.held))
		return nil
	}
	c.report(none, "")
	var errs []error
	for _, o := range l.orphans {
		if c.overdue(o, time.Now()) {
			errs = append(errs, c.remove(ctx, o).Err)
		}
	}
	return errors.Join(errs...)
}

// overdue counts the round in, and reports whether it is time for the orphan to go.
func (c *Collector) overdue(o Orphan, now time.Time) bool {
	a := c.missing[o.key()]
	if a.rounds == 0 {
		a.begun = now
	}
	a.rounds++
	c.missing[o.key()] = a
	return (o.Seen || o.Unanswered) && a.rounds >= leastRounds && now.Sub(a.begun) >= c.grace(o.Kind)
}

// beginAnew takes back the time that was counted.
func (c *Collector) beginAnew() {
	for k, a := range c.missing {
		a.rounds = 0
		c.missing[k] = a
	}
}

func (c *Collector) grace(k Kind) time.Duration {
	if k == Endpoint {
		return min(endpointGrace, c.options.Grace)
	}
	return c.options.Grace
}

// report remembers what is in the way, and logs it once, and when nothing is any more.
func (c *Collector) report(o obstacle, problem string) {
	c.mu.Lock()
	before := c.obstacle
	c.obstacle, c.problem = o, problem
	c.mu.Unlock()
	switch {
	case o == before:
	case o == none:
		c.options.Log.Info("the engines say what they know: what Docker has forgotten is removed")
	default:
		c.options.Log.Warn(problem)
	}
}

// look compares the state with what the engines know, and remembers since when something is missing. If the engines cannot be
// asked nothing is missing any more: the time begins anew.
func (c *Collector) look(ctx context.Context) (sight, error) {
	i, err := c.inventory(ctx)
	if err != nil {
		return sight{}, err
	}
	l := sight{held: len(i.state.Networks)}
	if len(i.state.Networks)+len(i.state.Pools) > 0 {
		known, err := c.ask(ctx, i)
		if err != nil {
			if !errors.Is(ctx.Err(), context.Canceled) { // who asked gave up, which says nothing of the engines
				clear(c.missing)
			}
			return sight{}, err
		}
		run := c.parts.Store.Run()
		l.orphans = i.orphans(known, run)
		l.strange = len(l.orphans) > 0 && strange(i.state, known, run)
	}
	c.note(l.orphans, time.Now())
	return l, nil
}

// inventory is made before the engines are asked: what comes to be meanwhile is not in it.
func (c *Collector) inventory(ctx context.Context) (i inventory, err error) {
	i.state = c.parts.Store.Snapshot()
	if i.endpoints, i.networks, err = c.parts.Networks.Detached(ctx); err != nil {
		return i, err
	}
	i.pools, err = c.parts.Pools.Loose(ctx)
	return i, err
}

// ask asks the engines about the networks of the endpoints in question, of which there are few or none, and writes down what they
// were seen to know.
func (c *Collector) ask(ctx context.Context, i inventory) (state.Known, error) {
	if c.parts.Engines == nil {
		return state.Known{}, ErrOff
	}
	var inspect []state.NetworkID
	asked := map[state.NetworkID]bool{}
	for _, e := range i.endpoints {
		if !asked[e.Network] {
			asked[e.Network] = true
			inspect = append(inspect, e.Network)
		}
	}
	known, err := c.parts.Engines.Ask(ctx, inspect)
	if err != nil {
		return known, err
	}
	return known, c.see(ctx, known)
}

// see writes down which networks and pools an engine knows, once for each.
func (c *Collector) see(ctx context.Context, known state.Known) error {
	_, err := c.parts.Store.Update(ctx, func(tx *store.Tx) error {
		for _, n := range tx.Networks() {
			if known.Networks[n.ID] && (!n.Seen || n.Made != "") {
				n.Seen, n.Made = true, ""
				tx.PutNetwork(n)
			}
		}
		for _, p := range tx.Pools() {
			if known.HasSubnet(p.Prefix) && (!p.Seen || p.Made != "") {
				p.Seen, p.Made = true, ""
				tx.PutPool(p)
			}
		}
		return nil
	})
	return err
}

// strange reports whether the engines know none of the networks; without networks, none of the pools. Those for which Docker may have got no
// answer say nothing of the engines.
func strange(s state.Snapshot, known state.Known, run string) bool {
	networks, pools := 0, 0
	for _, n := range s.Networks {
		if known.Networks[n.ID] {
			return false
		}
		if !unanswered(n.Made, run) {
			networks++
		}
	}
	if networks > 0 {
		return true
	}
	for _, p := range s.Pools {
		if known.HasPool(p) {
			return false
		}
		if !unanswered(p.Made, run) {
			pools++
		}
	}
	return pools > 0
}

// note keeps the time of what was missing before, and forgets that of what is back.
func (c *Collector) note(orphans []Orphan, now time.Time) {
	missing := map[key]absence{}
	for n, o := range orphans {
		a, known := c.missing[o.key()]
		if !known {
			a.since = now
		}
		missing[o.key()] = a
		orphans[n].Since = a.since
	}
	c.missing = missing
}
