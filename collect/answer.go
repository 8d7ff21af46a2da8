package collect

import (
	"context"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// A daemon that is killed between the commit of a network and the answer leaves Docker without one. Docker asks again, without the arguments, and gives
// up: no engine ever knows the network. It can be told from the network of an engine that nobody asks because the daemon that made it did
// not live on until it was sure to have answered: for answerTime, or until it ended in good order.

// answerTime is longer than any call lasts (plugin.Options.Deadline).
const answerTime = 30 * time.Second

// unanswered reports whether what a run has made may never have been answered for.
func unanswered(made, run string) bool { return made != "" && made != run }

// settle takes back the word of this run that it has made something, when it has had the time to answer.
func (c *Collector) settle(ctx context.Context, now time.Time) error {
	old := map[key]bool{}
	young := map[key]time.Time{}
	for k := range c.unsettled() {
		since, known := c.young[k]
		switch {
		case !known:
			young[k] = now
		case now.Sub(since) < answerTime:
			young[k] = since
		default:
			old[k] = true
		}
	}
	c.young = young
	return c.write(ctx, old)
}

// Answered takes back this run's word of all that it has made, whatever its age: the daemon ends, and all calls have been answered. Without it
// a later daemon would take what was made in the last moments for something that no engine was told of.
func (c *Collector) Answered(ctx context.Context) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.release()
	return c.write(ctx, c.unsettled())
}

// unsettled is what this run has made and gives its word for.
func (c *Collector) unsettled() map[key]bool {
	run := c.parts.Store.Run()
	s := c.parts.Store.Snapshot()
	out := map[key]bool{}
	for _, n := range s.Networks {
		if n.Made == run {
			out[key{Network, string(n.ID)}] = true
		}
	}
	for _, p := range s.Pools {
		if p.Made == run {
			out[key{Pool, string(p.ID)}] = true
		}
	}
	return out
}

// write takes the word back in the state.
func (c *Collector) write(ctx context.Context, settled map[key]bool) error {
	if len(settled) == 0 {
		return nil
	}
	_, err := c.parts.Store.Update(ctx, func(tx *store.Tx) error {
		settleIn(tx, settled)
		return nil
	})
	return err
}

// settleOnly is for a collector that asks no engine.
func (c *Collector) settleOnly(ctx context.Context) func(time.Time) {
	return func(now time.Time) {
		if err := c.take(ctx); err != nil {
			return
		}
		defer c.release()
		if err := c.settle(ctx, now); err != nil && ctx.Err() == nil {
			c.options.Log.Warn("writing down what Docker was answered", "error", err)
		}
	}
}

func settleIn(tx *store.Tx, old map[key]bool) {
	for k := range old {
		switch k.kind {
		case Network:
			if n, there := tx.Network(state.NetworkID(k.id)); there {
				n.Made = ""
				tx.PutNetwork(n)
			}
		case Pool:
			if p, there := tx.Pool(state.PoolID(k.id)); there {
				p.Made = ""
				tx.PutPool(p)
			}
		}
	}
}
