package collect

import (
	"context"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// A daemon that is killed between the commit of a network and the answer leaves Docker without one. Docker asks again, without the arguments, and gives
// up: no engine ever knows the network. It can be told from the network of an engine that nobody asks because the daemon that made it did
// not live on until it was sure to have answered.

// answerTime is longer than any call lasts (plugin.Options.Deadline).
const answerTime = 30 * time.Second

// unanswered reports whether what a run has made may never have been answered for.
func unanswered(made, run string) bool { return made != "" && made != run }

// settle takes back the word of this run that it has made something, when it has had the time to answer.
func (c *Collector) settle(ctx context.Context, now time.Time) error {
	run := c.parts.Store.Run()
	s := c.parts.Store.Snapshot()
	old := map[key]bool{}
	young := map[key]time.Time{}
	look := func(k key, made string) {
		since, known := c.young[k]
		switch {
		case made != run:
		case !known:
			young[k] = now
		case now.Sub(since) < answerTime:
			young[k] = since
		default:
			old[k] = true
		}
	}
	for _, n := range s.Networks {
		look(key{Network, string(n.ID)}, n.Made)
	}
	for _, p := range s.Pools {
		look(key{Pool, string(p.ID)}, p.Made)
	}
	c.young = young
	if len(old) == 0 {
		return nil
	}
	_, err := c.parts.Store.Update(ctx, func(tx *store.Tx) error {
		settleIn(tx, old)
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
