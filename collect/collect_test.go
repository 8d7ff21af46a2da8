package collect

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is the state, and an engine that the test tells what to know. Nothing is in a container unless it is attached.
type world struct {
	t  *testing.T
	st *store.Store

	mu       sync.Mutex
	known    state.Known
	away     error         // what the engine says instead
	slow     time.Duration // what an answer takes
	hangs    bool          // the engine does not answer before its time is over
	asked    int           // how often
	wanted   []string      // networks that were inspected last
	attached map[string]bool
	refuses  error // of everything that is to be forgotten
	log      bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	w := &world{t: t, st: st, known: state.NewKnown(), attached: map[string]bool{}}
	w.edit(func(tx *store.Tx) {
		for i, n := range []state.NetworkID{"web", "gone"} {
			subnet := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", i))
			tx.PutNetwork(state.Network{ID: n, Bridge: "br-" + string(n), V4: state.Subnet{Prefix: subnet, Gateway: subnet.Addr().Next()}})
			tx.PutEndpoint(state.Endpoint{ID: state.EndpointID("on-" + n), Network: n, Addr4: netip.PrefixFrom(subnet.Addr().Next().Next(), 24)})
		}
		p := netip.MustParsePrefix("10.9.0.0/24")
		tx.PutPool(state.Pool{ID: "theirs", Prefix: p, Range: p})
	})
	w.knows("web", "gone", "on-web", "on-gone", "theirs")
	return w
}

func (w *world) edit(fn func(*store.Tx)) {
	w.t.Helper()
	if _, err := w.st.Update(context.Background(), func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// knows says what the engine knows from now on, and nothing else.
func (w *world) knows(what ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away, w.known = nil, state.NewKnown()
	for _, id := range what {
		switch {
		case id == "theirs":
			w.known.Subnets[netip.MustParsePrefix("10.9.0.0/24")] = true
		case strings.HasPrefix(id, "on-"):
			w.known.Endpoints[state.EndpointID(id)] = true
		default:
			w.known.Networks[state.NetworkID(id)] = true
		}
	}
}

func (w *world) fails(err error) { w.set(func() { w.away = err }) }

// set changes the world while a collector looks at it.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *world) questions() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// Ask is the engine.
func (w *world) Ask(ctx context.Context, inspect []state.NetworkID) (state.Known, error) {
	w.mu.Lock()
	hangs, slow, away, known := w.hangs, w.slow, w.away, w.known
	w.asked++
	w.wanted = nil
	for _, id := range inspect {
		w.wanted = append(w.wanted, string(id))
		known.Inspected[id] = true
	}
	w.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return state.Known{}, ctx.Err()
	}
	select {
	case <-time.After(slow):
		return known, away
	case <-ctx.Done():
		return state.Known{}, ctx.Err()
	}
}

func (w *world) Detached(context.Context) ([]state.Endpoint, []state.Network, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.st.Snapshot()
	return slices.DeleteFunc(slices.Clone(s.Endpoints), func(e state.Endpoint) bool { return w.attached[string(e.ID)] }),
		slices.DeleteFunc(slices.Clone(s.Networks), func(n state.Network) bool { return w.attached["on-"+string(n.ID)] }), nil
}

func (w *world) Loose(context.Context) ([]state.Pool, error) { return w.st.Snapshot().Pools, nil }

func (w *world) ForgetEndpoint(_ context.Context, e state.Endpoint) (bool, error) {
	return w.forget(func(tx *store.Tx) bool { tx.DeleteEndpoint(e.ID); return true })
}

func (w *world) ForgetNetwork(_ context.Context, n state.Network) (bool, error) {
	return w.forget(func(tx *store.Tx) bool {
		if len(tx.EndpointsOf(n.ID)) > 0 {
			return false
		}
		tx.DeleteNetwork(n.ID)
		return true
	})
}

func (w *world) ForgetPool(_ context.Context, p state.Pool) (bool, error) {
	return w.forget(func(tx *store.Tx) bool { tx.DeletePool(p.ID); return true })
}

func (w *world) forget(do func(*store.Tx) bool) (gone bool, err error) {
	if w.refuses != nil {
		return false, w.refuses
	}
	w.edit(func(tx *store.Tx) { gone = do(tx) })
	return gone, nil
}

// left is what the state has, sorted.
func (w *world) left() string {
	var out []string
	s := w.st.Snapshot()
	for _, n := range s.Networks {
		out = append(out, string(n.ID))
	}
	for _, e := range s.Endpoints {
		out = append(out, string(e.ID))
	}
	for _, p := range s.Pools {
		out = append(out, string(p.ID))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (w *world) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (w *world) logged(words string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), words)
}

func (w *world) collector(o Options) *Collector {
	o.Log = slog.New(slog.NewTextHandler(w, nil))
	return New(Parts{Store: w.st, Engines: w, Networks: w, Pools: w}, o)
}

// run runs a collector in virtual time, until the test function ends.
func run(t *testing.T, o Options, test func(*testing.T, *world, *Collector)) {
	w := newWorld(t) // outside: the file's lock is no matter of virtual time
	synctest.Test(t, func(t *testing.T) {
		c := w.collector(o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		test(t, w, c)
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) > 0 {
			t.Errorf("Run ends after %v with %v", time.Since(began), err)
		}
	})
}

const all = "gone on-gone on-web theirs web"

// TestGrace: what is missing goes after its time, endpoints first, and what comes back begins anew.
func TestGrace(t *testing.T) {
	for name, c := range map[string]struct {
		play func(w *world)
		left string
	}{
		"all known":                {func(*world) { time.Sleep(time.Hour) }, all},
		"missing for a moment":     {func(w *world) { w.knows("web", "on-web"); time.Sleep(55 * time.Second) }, all},
		"endpoints after a minute": {func(w *world) { w.knows("web", "on-web"); time.Sleep(2 * time.Minute) }, "gone on-web theirs web"},
		"all after five":           {func(w *world) { w.knows("web", "on-web"); time.Sleep(6 * time.Minute) }, "on-web web"},
		"an endpoint of a known network": {func(w *world) {
			w.knows("web", "gone", "on-gone", "theirs")
			time.Sleep(time.Hour)
		}, "gone on-gone theirs web"},
		"back in time": {func(w *world) {
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
			w.knows("web", "on-web", "gone", "theirs")
			time.Sleep(20 * time.Second)
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
		}, "gone on-web theirs web"},
		"the engine was away in between": {func(w *world) {
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
			w.fails(errors.New("starting"))
			time.Sleep(20 * time.Second)
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
		}, "gone on-web theirs web"},
		"the engine is away":          {func(w *world) { w.fails(errors.New("stopped")); time.Sleep(time.Hour) }, all},
		"the engine knows none of it": {func(w *world) { w.knows("bridge", "host"); time.Sleep(time.Hour) }, all},
		"the engine has begun anew": {func(w *world) {
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
			w.knows("bridge")
			time.Sleep(20 * time.Second)
			w.knows("web", "on-web")
			time.Sleep(4 * time.Minute)
		}, "gone on-web theirs web"},
		"a pool of a network that named a size": {func(w *world) {
			w.knows("web", "gone", "on-web", "on-gone")
			w.set(func() { w.known.Subnets[netip.MustParsePrefix("0.0.0.0/24")] = true })
			time.Sleep(time.Hour)
		}, all},
		"in a container": {func(w *world) {
			w.set(func() { w.attached["on-gone"] = true })
			w.knows("web", "on-web", "theirs")
			time.Sleep(time.Hour)
		}, all},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, func(t *testing.T, w *world, _ *Collector) {
				time.Sleep(time.Minute) // the engine is seen to know all
				c.play(w)
				if left := w.left(); left != c.left {
					t.Errorf("left %s, want %s", left, c.left)
				}
			})
		})
	}
}

// TestNeverSeen: what no engine was seen to know is left to the command, also by a later process.
func TestNeverSeen(t *testing.T) {
	run(t, Options{}, func(t *testing.T, w *world, c *Collector) {
		w.knows("web", "on-web")
		time.Sleep(time.Hour)
		if left := w.left(); left != all {
			t.Errorf("left %s", left)
		}
		results, err := c.Collect(t.Context())
		if left := w.left(); err != nil || left != "on-web web" || len(results) != 3 {
			t.Errorf("by hand: left %s, error %v, %+v", left, err, results)
		}
		for _, r := range results {
			if r.Seen || !r.Removed || time.Since(r.Since) < 50*time.Minute {
				t.Errorf("%+v", r)
			}
		}
	})
}

// TestUnanswered: what an earlier daemon made, and may have ended before it answered for, goes by itself, although no engine knows anything of ours. What this
// one made stays, and after a while a later daemon keeps it too.
func TestUnanswered(t *testing.T) {
	for name, row := range map[string]struct{ made, left string }{"by an earlier daemon": {"earlier", ""}, "by this one": {"", "lonely pool"}} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, func(t *testing.T, w *world, _ *Collector) {
				made := cmp.Or(row.made, w.st.Run())
				w.knows()
				w.edit(func(tx *store.Tx) {
					for _, n := range tx.Networks() {
						tx.DeleteNetwork(n.ID)
						tx.DeleteEndpoint(state.EndpointID("on-" + n.ID))
					}
					tx.DeletePool("theirs")
					p := netip.MustParsePrefix("10.8.0.0/24")
					tx.PutNetwork(state.Network{ID: "lonely", Bridge: "br-lonely", V4: state.Subnet{Prefix: p, Gateway: p.Addr().Next()}, Made: made})
					tx.PutPool(state.Pool{ID: "pool", Prefix: p, Range: p, Made: made})
				})
				time.Sleep(time.Hour)
				if left := w.left(); left != row.left {
					t.Errorf("left %q, want %q", left, row.left)
				}
				for _, n := range w.st.Snapshot().Networks {
					if n.Made != "" {
						t.Errorf("%+v", n)
					}
				}
			})
		})
	}
}

// TestAnswered: a daemon that ends in good order has answered for the youngest too, and says nothing of what others made.
func TestAnswered(t *testing.T) {
	w := newWorld(t)
	p := netip.MustParsePrefix("10.8.0.0/24")
	w.edit(func(tx *store.Tx) {
		for id, made := range map[state.NetworkID]string{"ours": tx.Run(), "earlier": "earlier"} {
			tx.PutNetwork(state.Network{ID: id, Bridge: "br-" + string(id), V4: state.Subnet{Prefix: p, Gateway: p.Addr().Next()}, Made: made})
		}
		tx.PutPool(state.Pool{ID: "pool", Prefix: p, Range: p, Made: tx.Run()})
	})
	if err := w.collector(Options{}).Answered(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	s := w.st.Snapshot()
	for _, n := range s.Networks {
		made[string(n.ID)] = n.Made
	}
	for _, p := range s.Pools {
		made[string(p.ID)] = p.Made
	}
	if want := map[string]string{"gone": "", "web": "", "ours": "", "earlier": "earlier", "theirs": "", "pool": ""}; !maps.Equal(made, want) {
		t.Errorf("%v, want %v", made, want)
	}
}

// TestSeenIsRemembered: a later process knows what an earlier one saw.
func TestSeenIsRemembered(t *testing.T) {
	w := newWorld(t)
	if _, err := w.collector(Options{}).List(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.st.Snapshot().Networks {
		if !n.Seen {
			t.Errorf("%+v", n)
		}
	}
	revision := w.st.Snapshot().Revision
	list, err := w.collector(Options{}).List(t.Context())
	if err != nil || len(list) > 0 || w.st.Snapshot().Revision != revision {
		t.Errorf("error %v, orphans %v; the state was written again: %t", err, list, w.st.Snapshot().Revision != revision)
	}
	w.knows("web", "on-web")
	list, err = w.collector(Options{}).List(t.Context())
	if err != nil || len(list) != 3 || !list[0].Seen || !list[1].Seen || !list[2].Seen {
		t.Errorf("error %v, orphans %+v", err, list)
	}
}

// TestShortGrace: there are several rounds in the shortest grace period too.
func TestShortGrace(t *testing.T) {
	run(t, Options{Grace: time.Second}, func(t *testing.T, w *world, _ *Collector) {
		time.Sleep(time.Second)
		before := w.questions()
		w.knows("web", "on-web")
		time.Sleep(900 * time.Millisecond)
		if left, rounds := w.left(), w.questions()-before; left != all || rounds < leastRounds {
			t.Errorf("left %s after %d rounds", left, rounds)
		}
		time.Sleep(time.Second)
		if left := w.left(); left != "on-web web" {
			t.Errorf("left %s", left)
		}
	})
}

// TestSlowEngine: time alone is not enough.
func TestSlowEngine(t *testing.T) {
	run(t, Options{}, func(t *testing.T, w *world, _ *Collector) {
		time.Sleep(time.Minute)
		w.knows("web", "on-web")
		w.set(func() { w.slow = defaultGrace + time.Minute })
		time.Sleep(defaultGrace*2 + 3*time.Minute)
		if left := w.left(); left != all {
			t.Errorf("left %s", left)
		}
		time.Sleep(defaultGrace + 2*time.Minute)
		if left := w.left(); left != "on-web web" {
			t.Errorf("left %s", left)
		}
	})
}

// TestCollect: two questions, some seconds apart; what came back meanwhile is spared.
func TestCollect(t *testing.T) {
	run(t, Options{Grace: time.Hour}, func(t *testing.T, w *world, c *Collector) {
		w.knows("web", "on-web")
		began := time.Now()
		go func() {
			time.Sleep(2 * time.Second)
			w.knows("web", "gone") // and another endpoint is missing
		}()
		results, err := c.Collect(t.Context())
		if left := w.left(); err != nil || left != "gone on-web web" || len(results) != 2 || time.Since(began) != defaultGap {
			t.Errorf("left %s, error %v, after %v: %+v", left, err, time.Since(began), results)
		}
		w.knows("web", "on-web")
		w.refuses = errors.New("the host said no")
		results, err = c.Collect(t.Context())
		if err != nil || len(results) != 1 || results[0].Removed || !errors.Is(results[0].Err, w.refuses) {
			t.Errorf("error %v, results %+v", err, results)
		}
	})
}

// TestListGivenUp: who asks for a list and does not wait for it puts nothing off.
func TestListGivenUp(t *testing.T) {
	run(t, Options{}, func(t *testing.T, w *world, c *Collector) {
		time.Sleep(time.Minute)
		w.knows("web", "on-web")
		time.Sleep(4*time.Minute + 50*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		w.set(func() { w.hangs = true })
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := c.List(ctx); err == nil {
			t.Error("it was answered")
		}
		w.set(func() { w.hangs = false })
		time.Sleep(30 * time.Second)
		if left, want := w.left(), "on-web web"; left != want {
			t.Errorf("left %s, want %s", left, want)
		}
	})
}

// TestCollectUnasked: without an answer to both questions nothing is removed.
func TestCollectUnasked(t *testing.T) {
	gone := errors.New("stopped")
	run(t, Options{Grace: time.Hour}, func(t *testing.T, w *world, c *Collector) {
		w.knows("web", "on-web")
		go func() {
			time.Sleep(2 * time.Second)
			w.fails(gone)
		}()
		if _, err := c.Collect(t.Context()); !errors.Is(err, gone) || w.left() != all {
			t.Errorf("left %s, error %v", w.left(), err)
		}
		if _, err := c.List(t.Context()); !errors.Is(err, gone) {
			t.Errorf("error %v", err)
		}
	})
	w := newWorld(t)
	c := New(Parts{Store: w.st, Networks: w, Pools: w}, Options{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ended); err != nil {
		t.Errorf("without an engine: %v", err)
	}
	if _, err := c.Collect(t.Context()); !errors.Is(err, ErrOff) {
		t.Errorf("without an engine: %v", err)
	}
}

// TestProblem: what is in the way is told as long as it is, and logged once.
func TestProblem(t *testing.T) {
	run(t, Options{}, func(t *testing.T, w *world, c *Collector) {
		says := func(want string) {
			t.Helper()
			time.Sleep(10 * time.Minute)
			if got := c.Problem(); !strings.Contains(got, want) || (got == "") != (want == "") {
				t.Errorf("problem %q, want %q", got, want)
			}
		}
		says("")
		w.fails(errors.New("connection refused"))
		says("connection refused")
		w.fails(errors.New("no such file"))
		says("no such file")
		w.knows("bridge")
		says("know none of the 2 networks")
		w.knows("web", "on-web", "gone", "on-gone", "theirs")
		says("")
		w.fails(errors.New("connection refused"))
		says("connection refused")
		for words, want := range map[string]int{"connection refused": 2, "no such file": 0, "know none": 1, "the engines say": 1} {
			if n := w.logged(words); n != want {
				t.Errorf("%q is logged %d times, want %d", words, n, want)
			}
		}
	})
}

// TestHangingEngine: Run ends at once, and whoever waits behind a round is told.
func TestHangingEngine(t *testing.T) {
	run(t, Options{}, func(t *testing.T, w *world, c *Collector) {
		w.set(func() { w.hangs = true })
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.List(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "still at work") {
			t.Errorf("error %v", err)
		}
	})
}

// TestCheapQuestions: no network is inspected whose endpoints are all in containers, and nobody is asked when there is nothing.
func TestCheapQuestions(t *testing.T) {
	w := newWorld(t)
	c := w.collector(Options{})
	look := func() {
		t.Helper()
		if _, err := c.List(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if !slices.Equal(w.wanted, []string{"gone", "web"}) {
		t.Errorf("inspected %v", w.wanted)
	}
	w.attached["on-web"] = true
	look()
	if !slices.Equal(w.wanted, []string{"gone"}) {
		t.Errorf("inspected %v", w.wanted)
	}
	w.edit(func(tx *store.Tx) {
		for _, e := range tx.Endpoints() {
			tx.DeleteEndpoint(e.ID)
		}
		for _, n := range tx.Networks() {
			tx.DeleteNetwork(n.ID)
		}
		tx.DeletePool("theirs")
	})
	asked := w.asked
	look()
	if w.asked != asked {
		t.Error("the engine is asked about nothing")
	}
}
