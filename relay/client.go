package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/publish"
	"github.com/drawbridge-net/drawbridge/state"
)

// Options configure a Client.
type Options struct {
	Socket   string // of the relay
	Settings Settings
	// Mode resolves what endpoints and networks leave open, so that the relay gets modes that stand for themselves; nil sends exposures
	// as they are. It is asked with each state.
	Mode func(state.Exposure) state.Publish
	// Undiverted is that of publish.Options, asked with each state.
	Undiverted func() string
	// Inquire says in which families DOCKER-USER has to be asked about clients of sockets, and whether that is known; nil for none. It is
	// asked with each state.
	Inquire func() (in Inquire, known bool)
	// Start starts a relay that will answer on the socket, and returns what tells how it ended; see Spawn.
	Start func() (ended <-chan error, err error)
	Log   *slog.Logger
	// Level is from which on the relay's log comes into Log.
	Level slog.Level
}

const (
	// callTime bounds a call to the relay. It is below the deadline of dockerd's calls, so that their answer says what does not answer.
	callTime = 10 * time.Second
	// stateTime bounds one that may have ten thousand ports to bind. It is below the time of a pass.
	stateTime = 18 * time.Second
	// briefTime bounds what a relay answers at once.
	briefTime = 2 * time.Second
	// retryWait is the longest pause before a call is tried again whose relay ended; the first is startPause.
	retryWait = 320 * time.Millisecond
	// startPause is between two looks whether a relay that was started answers.
	startPause = 5 * time.Millisecond
	// keepPause is between two attempts to hand over what is to be kept.
	keepPause = 3 * time.Second
)

// Client is the daemon's side: it has the methods of a publish.Publisher, and a relay carry them out. Its methods may be called
// concurrently.
type Client struct {
	o    Options
	http http.Client
	// turn is had by one call at a time, since each may find that the relay has to be started and told everything.
	turn chan struct{}
	// published says that the last state has ports.
	published atomic.Bool
	// relay is the one that is in use, nil while none is. Who has the turn changes it.
	relay atomic.Pointer[connection]
	// gone gets one element when a relay ended that is missed.
	gone chan struct{}
	// file is what a relay keeps beside the ports, nil for none; keeping gets one element when a relay has to be told.
	file    atomic.Pointer[os.File]
	keeping chan struct{}
	// owing gets one element when a relay has to hear of releases, and who released had no turn.
	owing chan struct{}
	// watching are the goroutines that wait for the end of a relay.
	watching sync.WaitGroup

	// asked is what Inquire was when the relay was told last, nil if that is not known; unasked is what it said to it.
	asked   atomic.Pointer[Inquire]
	unasked atomic.Pointer[string]

	// want is the last state, nil before the first.
	want atomic.Pointer[state.Snapshot]
	// session keeps this daemon's reservations from those of another one.
	session string

	// What follows belongs to who has the turn.
	told state.Snapshot  // what the relay was told last
	base string          // the name by which it knows that, "" if it may not
	idle bool            // no relay that may run holds anything
	kept map[string]bool // instances that could not be replaced

	mu sync.Mutex
	// owed are releases that no relay has heard of; guarded by mu. It is also held where file is sent or closed.
	owed map[state.EndpointID][]state.Port
}

// connection is a session with a relay.
type connection struct {
	hello   Hello
	close   context.CancelFunc
	broken  atomic.Bool
	settled atomic.Bool // it was told a state, and lived
	mourn   sync.Once
}

// New returns a client. No relay is asked before there is something to ask.
func New(o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		o: o, http: http.Client{Transport: unixsocket.Transport(o.Socket)},
		session: rand.Text(), turn: make(chan struct{}, 1),
		gone: make(chan struct{}, 1), keeping: make(chan struct{}, 1), owing: make(chan struct{}, 1),
		owed: map[state.EndpointID][]state.Port{}, kept: map[string]bool{},
	}
}

// Close ends the conversation. The relay lives on, with all sockets and connections.
func (c *Client) Close() error {
	c.turn <- struct{}{} // for good
	c.drop()
	c.watching.Wait()
	if f := c.file.Swap(nil); f != nil {
		return f.Close()
	}
	return nil
}

// Watch calls changed when the relay ended while ports are published, and does what others leave to it: it hands over what is to be kept
// (Keep), again and again until a relay has it, and tells of releases. It returns when ctx ends.
func (c *Client) Watch(ctx context.Context, changed func(reason string)) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.gone:
			changed("the relay of published ports ended")
		case <-c.owing:
			c.settle(c.with(ctx, callTime, false, nothing))
		case <-c.keeping:
			err := c.handOver(ctx)
			if err != nil && ctx.Err() == nil {
				time.AfterFunc(keepPause, c.handOn)
				if !failing {
					c.o.Log.Warn("while no daemon runs containers are open to who can route to them and flushes all rules: the relay does not keep the latch", "error", err)
				}
			}
			failing = err != nil
		}
	}
}

// Reserve is that of publish.Publisher. A relay that was started for it has the state first: it would give away what others have.
func (c *Client) Reserve(ctx context.Context, e state.Endpoint, want []state.PortRequest) (ports []state.Port, err error) {
	err = c.with(ctx, callTime, true, func(ctx context.Context) error {
		if want := c.want.Load(); c.base == "" && want != nil {
			if err := c.tell(ctx, *want, true); errors.Is(err, errGone) || ctx.Err() != nil {
				return err
			}
		}
		c.idle = false
		answer, err := c.post(ctx, reservePath, reserveCall{c.session, e, want})
		if errors.Is(err, errGone) || ctx.Err() != nil {
			c.owe(e.ID, e.Ports) // perhaps it was carried out all the same
		}
		ports = answer.Ports
		return err
	})
	if errors.Is(err, context.DeadlineExceeded) && len(want) >= manyPorts {
		err = fmt.Errorf("%d ports were not open in time, and none of them is published: publish fewer of them with one container: %w", len(want), err)
	}
	return ports, err
}

// manyPorts may be what a call takes too long for: some 10,000 are opened in a second.
const manyPorts = 10000

// Release is that of publish.Publisher. What no relay hears of is made up for ahead of the next call. While another call is under way,
// which may be to a relay that hangs, it waits for nothing: Watch has the relay told.
func (c *Client) Release(id state.EndpointID, keep []state.Port) {
	c.owe(id, keep)
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	default:
		signal(c.owing)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), briefTime)
	defer cancel()
	c.settle(c.carryOut(ctx, ctx, false, nothing))
}

// nothing is a call that only pays what is owed.
func nothing(context.Context) error { return nil }

// settle notes how it went. Without a relay nothing is held.
func (c *Client) settle(err error) {
	if err != nil && !errors.Is(err, errAbsent) && !errors.Is(err, context.Canceled) {
		c.o.Log.Warn("giving published ports back", "error", err)
	}
}

func (c *Client) owe(id state.EndpointID, keep []state.Port) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed[id] = slices.Clone(keep)
}

// pay makes up for releases. Nobody reserves for an endpoint before they are paid.
func (c *Client) pay(ctx context.Context) error {
	c.mu.Lock()
	owed := maps.Clone(c.owed)
	c.mu.Unlock()
	for id, keep := range owed {
		if _, err := c.post(ctx, releasePath, releaseCall{c.session, id, keep}); err != nil {
			return err
		}
		c.mu.Lock()
		if now, owes := c.owed[id]; owes && slices.Equal(now, keep) { // and nobody has released another time meanwhile
			delete(c.owed, id)
		}
		c.mu.Unlock()
	}
	return nil
}

// forgive forgets them, where nothing is held.
func (c *Client) forgive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.owed)
}

// Apply is that of publish.Publisher.
func (c *Client) Apply(ctx context.Context, s state.Snapshot) error { return c.bring(ctx, s, true) }

// Follow is that of publish.Publisher.
func (c *Client) Follow(ctx context.Context, change state.Change) error {
	if len(change.Endpoints)+len(change.Networks) == 0 && !c.asksOthers() {
		return ctx.Err()
	}
	return c.bring(ctx, change.To, false)
}

// bring has the relay make the sockets equal to a state. No relay is started for one without ports.
func (c *Client) bring(ctx context.Context, s state.Snapshot, whole bool) error {
	s = c.resolve(s)
	publishes := publishes(s)
	c.published.Store(publishes)
	c.want.Store(&s)
	err := c.with(ctx, stateTime, publishes, func(ctx context.Context) error { return c.tell(ctx, s, whole) })
	if errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// tell sends a state, or how it differs from the one that the relay has.
func (c *Client) tell(ctx context.Context, s state.Snapshot, whole bool) error {
	call := stateCall{Session: c.session, Whole: whole, Name: rand.Text(), update: c.update(s)}
	if c.o.Undiverted != nil {
		call.Undiverted = c.o.Undiverted()
	}
	call.Inquire = c.inquire()
	c.told, c.base, c.idle = s, "", false
	c.asked.Store(nil)
	answer, err := c.post(ctx, statePath, call)
	if err != nil {
		return err
	}
	c.base, c.idle = call.Name, !publishes(s) && c.file.Load() == nil
	c.relay.Load().settled.Store(true)
	c.asked.Store(call.Inquire)
	c.unasked.Store(&answer.Unasked)
	return join(answer.Failures)
}

// inquire is what Options.Inquire comes to, nil if that is not known.
func (c *Client) inquire() *Inquire {
	if c.o.Inquire == nil {
		return &Inquire{}
	}
	in, known := c.o.Inquire()
	if !known {
		return nil
	}
	return &in
}

// asksOthers reports whether the relay has been told of other families to ask about, or perhaps of none.
func (c *Client) asksOthers() bool {
	told, now := c.asked.Load(), c.inquire()
	return now != nil && (told == nil || *told != *now) && c.published.Load()
}

// Unasked says what keeps the relay from asking DOCKER-USER about clients, as of the last state; "" for nothing.
func (c *Client) Unasked() string {
	if text := c.unasked.Load(); text != nil {
		return *text
	}
	return ""
}

func (c *Client) update(s state.Snapshot) update {
	if c.base == "" {
		return all(s)
	}
	return since(c.base, c.told, s)
}

// Inspect is that of publish.Publisher. It starts no relay: without one no port is held.
func (c *Client) Inspect(ctx context.Context, s state.Snapshot) (found []state.Difference, err error) {
	s = c.resolve(s)
	err = c.with(ctx, callTime, false, func(ctx context.Context) error {
		answer, err := c.post(ctx, inspectPath, inspectCall{c.session, c.update(s)})
		found = answer.Differences
		return errors.Join(err, join(answer.Failures))
	})
	if errors.Is(err, errAbsent) {
		none := publish.New(publish.Options{})
		defer none.Close()
		return none.Inspect(ctx, s)
	}
	return found, err
}

// Hello tells of the relay that is in use, if one is.
func (c *Client) Hello(ctx context.Context) (Hello, bool, error) {
	if c.relay.Load() == nil && !c.published.Load() {
		return Hello{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, briefTime)
	defer cancel()
	hello, err := c.hello(ctx)
	if errors.Is(err, errAbsent) && !c.published.Load() {
		return Hello{}, false, nil // it ended, and nobody needs one
	}
	return hello, err == nil, err
}

// resolve returns the state with the modes that stand for themselves.
func (c *Client) resolve(s state.Snapshot) state.Snapshot {
	if c.o.Mode == nil {
		return s
	}
	s.Endpoints = slices.Clone(s.Endpoints)
	for i, e := range s.Endpoints {
		if len(e.Ports) > 0 {
			x := s.Exposure(e)
			s.Endpoints[i].Exposure = state.Exposure{Publish: c.o.Mode(x), From: x.From, Links: x.Links}
		}
	}
	return s
}

// publishes reports whether a state has ports that need a socket.
func publishes(s state.Snapshot) bool {
	return slices.ContainsFunc(s.Endpoints, func(e state.Endpoint) bool {
		return slices.ContainsFunc(e.Ports, func(p state.Port) bool { return !p.Routed() })
	})
}

// with carries out f with a relay to ask, and again if that ended meanwhile. Without start the error is errAbsent where none
// runs.
func (c *Client) with(ctx context.Context, limit time.Duration, start bool, f func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-bounded.Done():
		return c.late(ctx, fmt.Errorf("calls before this one take too long: %w", bounded.Err()))
	}
	return c.carryOut(ctx, bounded, start, f)
}

// carryOut is with for who has the turn, and a bound to ctx.
func (c *Client) carryOut(ctx, bounded context.Context, start bool, f func(context.Context) error) error {
	var err error
	// A relay that ends still answers for a moment. One that ends by what it is asked is not started for ever.
	for wait := startPause; wait <= retryWait; wait *= 2 {
		if err = c.connect(bounded, start); err == nil {
			if err = c.pay(bounded); err == nil {
				err = f(bounded)
			}
		}
		if !errors.Is(err, errGone) {
			break
		}
		if r := c.relay.Load(); r != nil {
			c.lost(r)
		}
		c.drop()
		pause(bounded, wait)
	}
	if bounded.Err() != nil {
		c.drop()
		if c.file.Load() != nil { // nobody hears of this relay's end any more
			c.handOn()
		}
		return c.late(ctx, err)
	}
	return err
}

// late is the error of a call that was not answered in time.
func (c *Client) late(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // nobody wants to know
	}
	who := "drawbridge relay"
	if r := c.relay.Load(); r != nil {
		who = fmt.Sprintf("drawbridge relay, process %d", r.hello.PID)
	}
	return fmt.Errorf("the process that holds published ports (%s) does not answer: %w", who, err)
}
