package relay

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/inquiry"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/publish"
	"github.com/drawbridge-net/drawbridge/state"
)

// ServerOptions configure a Server. The zero value is the usual one.
type ServerOptions struct {
	// Log gets what happens while no daemon listens.
	Log slog.Handler
	// Notify tells systemd, for a relay that it started; nil for another one.
	Notify func(what string)
	// Desk asks DOCKER-USER about clients; nil for an inquiry.Desk.
	Desk Desk
	// Idle is for how long a relay that holds nothing lives on; 0 means a minute.
	Idle time.Duration
}

// Desk is what asks DOCKER-USER about clients, as inquiry.Desk does.
type Desk interface {
	publish.Inquirer
	// Ready makes ready to ask, and says why not. Missing is what it said last, "" for nothing.
	Ready() error
	Missing() string
	// Retire leaves it to another process.
	Retire()
	io.Closer
}

const (
	defaultIdle = time.Minute
	// drainTime is what answers under way get at the end.
	drainTime = 2 * time.Second
)

// Server holds the sockets of published ports for a daemon that may come and go.
type Server struct {
	o        ServerOptions
	log      *slog.Logger
	feed     *feed
	instance string
	began    time.Time
	ports    atomic.Pointer[publish.Publisher] // changed by who has all of turn
	// undiverted is what the last state came with.
	undiverted atomic.Pointer[string]
	// inquire is what the last state came with that said it, nil before; desk is who asks then.
	inquire atomic.Pointer[Inquire]
	desk    Desk
	// heard ends when somebody has said it, by told, or was waited for long enough.
	heard context.Context
	told  context.CancelFunc
	// elder is the relay whose sockets this one took over, while that has connections.
	elder *elder

	leave sync.Once
	left  chan struct{} // closed when no further call is answered

	// turn is had by all calls: those that change what follows have it alone.
	turn     sync.RWMutex
	listener net.Listener
	settings Settings
	session  string
	base     string // the name of state, "" if no daemon knows it by one
	state    state.Snapshot
	kept     *os.File      // beside the ports; nil for none
	over     bool          // no further call is answered
	heir     *net.UnixConn // to the relay that took over
}

// NewServer returns a server that holds nothing.
func NewServer(o ServerOptions) *Server {
	if o.Log == nil {
		o.Log = slog.DiscardHandler
	}
	if o.Idle == 0 {
		o.Idle = defaultIdle
	}
	if o.Desk == nil {
		o.Desk = inquiry.New(inquiry.Options{})
	}
	f := newFeed()
	s := &Server{
		o: o, feed: f, log: slog.New(newLogHandler(f, o.Log)), instance: rand.Text(), began: time.Now(),
		elder: newElder(), left: make(chan struct{}), desk: o.Desk,
	}
	s.heard, s.told = context.WithTimeout(context.Background(), hearTime)
	s.undiverted.Store(new(string))
	s.ports.Store(s.publisher())
	return s
}

// publisher returns one for the settings. Modes come resolved, with the state.
func (s *Server) publisher() *publish.Publisher {
	return publish.New(publish.Options{
		ServeAll: s.settings.ServeAll, ServeAllV6: s.settings.ServeAllV6, NoProxy: s.settings.NoProxy, Proc: s.settings.Proc,
		Log: s.log, Closed: s.elder.closed,
		Mode:       func(e state.Exposure) state.Publish { return cmp.Or(e.Publish, state.PublishDNAT) },
		Undiverted: func() string { return *s.undiverted.Load() },
		Inquire:    func(v6 bool) bool { return s.inquire.Load().of(v6) },
		Inquirer:   inquirer{s},
	})
}

// Serve answers on l until ctx ends, a call ends it, or it has been idle for long enough; then all sockets and connections are closed.
// After it was replaced it closes no connection: it returns when the last one has ended, or the relay in its place.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer s.desk.Close()
	s.turn.Lock()
	s.listener = l
	s.turn.Unlock()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go s.watchIdle(serving)
	go func() {
		select {
		case <-s.left:
			stop()
		case <-serving.Done():
			s.end()
		}
	}()
	srv := &http.Server{Handler: s, ConnContext: whoAsks, ReadHeaderTimeout: drainTime, MaxHeaderBytes: 64 << 10}
	err := unixsocket.Serve(serving, srv, unixsocket.Lend(l), drainTime)
	if errors.Is(err, unixsocket.ErrNotDrained) {
		err = nil // who was cut off asks again
	}
	s.turn.Lock()
	heir := s.heir
	s.turn.Unlock()
	if heir != nil {
		err = errors.Join(err, unixsocket.Leave(l).Close())
		s.drain(ctx, heir)
		return err
	}
	defer s.elder.close()
	return errors.Join(err, l.Close(), s.ports.Load().Close())
}

// end has no further call answered.
func (s *Server) end() {
	s.turn.Lock()
	s.over = true
	s.turn.Unlock()
	s.leave.Do(func() { close(s.left) })
}

// close ends all connections and gives all ports back before it is answered.
func (s *Server) close(context.Context, []byte) (reply, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.over {
		return reply{}, errOver
	}
	s.over = true
	err := s.ports.Load().Close()
	s.leave.Do(func() { close(s.left) })
	return reply{}, err
}

// watchIdle ends a relay that has held nothing for a while.
func (s *Server) watchIdle(ctx context.Context) {
	const looks = 4
	ticker := time.NewTicker(s.o.Idle / looks)
	defer ticker.Stop()
	for idle := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if idle++; !s.endIdle(idle > looks) {
			idle = 0
		}
	}
}

// endIdle reports whether nothing is held, and, if that is so for the last time, ends the relay: no call may come between.
func (s *Server) endIdle(last bool) bool {
	s.turn.Lock()
	defer s.turn.Unlock()
	held, connections := s.ports.Load().Count()
	if held+connections > 0 || s.kept != nil {
		return false
	}
	if last {
		s.over = true
		s.leave.Do(func() { close(s.left) })
	}
	return true
}

// caller is the key of the process that asks, or the error of one that may not.
type caller struct{}

func whoAsks(ctx context.Context, c net.Conn) context.Context {
	pid, err := unixsocket.Peer(c)
	if err != nil {
		return context.WithValue(ctx, caller{}, err)
	}
	return context.WithValue(ctx, caller{}, pid)
}

// errOver is answered by a relay that ends; who gets it asks the next one.
var errOver = errors.New("this relay of published ports is ending")

// errUnknown is answered to who refers to a session or a state that this relay does not have.
var errUnknown = errors.New("the relay does not know the session or the state before")

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err, refused := r.Context().Value(caller{}).(error); refused {
		respond(w, http.StatusForbidden, reply{Failures: failures(err)})
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + helloPath:
		respond(w, http.StatusOK, s.hello())
		return
	case "GET " + watchPath:
		s.watch(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		respond(w, http.StatusBadRequest, reply{Failures: failures(fmt.Errorf("reading a request: %w", err))})
		return
	}
	status, answer := s.answer(r.Context(), r.Method+" "+r.URL.Path, body)
	respond(w, status, answer)
}

func respond(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // a daemon that has gone misses nothing
}

func (s *Server) hello() Hello {
	held, connections := s.ports.Load().Count()
	return Hello{Protocol: protocol, Version: version.String(), Instance: s.instance, PID: os.Getpid(), Since: s.began, Sockets: held, Connections: connections}
}

// answer carries out a call.
func (s *Server) answer(ctx context.Context, what string, body []byte) (int, reply) {
	handlers := map[string]func(context.Context, []byte) (reply, error){
		"POST " + sessionPath: alone(s, s.openSession),
		"POST " + reservePath: together(s, s.reserve),
		"POST " + releasePath: together(s, s.release),
		"POST " + statePath:   alone(s, s.apply),
		"POST " + inspectPath: together(s, s.inspect),
		"POST " + keepPath:    alone(s, s.keep),
		"POST " + letGoPath:   alone(s, s.letGo),
		"POST " + upgradePath: s.upgrade,
		"POST " + endPath:     s.close,
	}
	handle, ok := handlers[what]
	if !ok {
		return http.StatusNotFound, reply{Failures: failures(fmt.Errorf("a relay of published ports is not asked for %q", state.Clip(what)))}
	}
	out, err := guarded(ctx, handle, body)
	switch {
	case err == nil:
		return http.StatusOK, out
	case errors.Is(err, errOver):
		return http.StatusServiceUnavailable, reply{Failures: failures(err)}
	case errors.Is(err, errUnknown):
		return http.StatusConflict, reply{Failures: failures(err)}
	}
	return http.StatusInternalServerError, reply{Failures: failures(err)}
}

// guarded turns a panic into an error: a relay that ends takes every connection with it.
func guarded(ctx context.Context, handle func(context.Context, []byte) (reply, error), body []byte) (out reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a fault in drawbridge's relay of published ports: %v", p)
		}
	}()
	return handle(ctx, body)
}

// alone reads a call and carries it out while no other one is.
func alone[T any](s *Server, handle func(context.Context, T) (reply, error)) func(context.Context, []byte) (reply, error) {
	return inTurn(s, &s.turn, handle)
}

// together is the same beside others of its kind.
func together[T any](s *Server, handle func(context.Context, T) (reply, error)) func(context.Context, []byte) (reply, error) {
	return inTurn(s, s.turn.RLocker(), handle)
}

func inTurn[T any](s *Server, turn sync.Locker, handle func(context.Context, T) (reply, error)) func(context.Context, []byte) (reply, error) {
	return func(ctx context.Context, body []byte) (reply, error) {
		var call T
		if err := decode(body, &call); err != nil {
			return reply{}, err
		}
		turn.Lock()
		defer turn.Unlock()
		if s.over {
			return reply{}, errOver
		}
		return handle(ctx, call)
	}
}

// openSession makes the caller the daemon for which this relay works. Other settings than before take other sockets.
func (s *Server) openSession(_ context.Context, c sessionCall) (reply, error) {
	if c.Session == "" {
		return reply{}, errors.New("a session needs a name")
	}
	if !c.Settings.equal(s.settings) {
		s.log.Info("the daemon has other settings for published ports: their sockets are made anew")
		old := s.ports.Load()
		s.settings, s.state = c.Settings, state.Snapshot{}
		s.ports.Store(s.publisher())
		if err := old.Close(); err != nil {
			s.log.Warn("closing published ports", "error", err)
		}
	}
	if c.Session != s.session {
		s.ports.Load().EndReservations()
	}
	s.session, s.base = c.Session, ""
	return reply{}, nil
}

func (s *Server) reserve(ctx context.Context, c reserveCall) (reply, error) {
	if c.Session != s.session {
		return reply{}, errUnknown
	}
	if _, err := state.ParseEndpointID(string(c.Endpoint.ID)); err != nil {
		return reply{}, err
	}
	ports, err := s.ports.Load().Reserve(ctx, c.Endpoint, c.Want)
	return reply{Ports: ports}, err
}

func (s *Server) release(_ context.Context, c releaseCall) (reply, error) {
	if c.Session != s.session {
		return reply{}, errUnknown
	}
	s.ports.Load().Release(c.Endpoint, c.Keep)
	return reply{}, nil
}

// apply makes the sockets equal to a state. Failures of single objects are part of the answer.
func (s *Server) apply(ctx context.Context, c stateCall) (reply, error) {
	to, err := s.updated(c.Session, c.update)
	if err != nil {
		return reply{}, err
	}
	from := s.state
	s.state, s.base = to, ""
	s.undiverted.Store(&c.Undiverted)
	unasked := s.prepare(c.Inquire)
	ports := s.ports.Load()
	if c.Whole || c.Base == "" {
		err = ports.Apply(ctx, to)
	} else {
		err = ports.Follow(ctx, state.Compare(from, to))
	}
	failed := failures(err)
	for _, f := range failed {
		if f.Network == "" {
			return reply{}, err // not finished: the next daemon must not build on it
		}
	}
	s.base = c.Name
	return reply{Failures: failed, Unasked: unasked}, nil
}

// prepare notes of which families DOCKER-USER is asked, and returns what keeps it from being asked, "" for nothing.
func (s *Server) prepare(in *Inquire) string {
	s.hear(in)
	if now := s.inquire.Load(); now == nil || !now.V4 && !now.V6 {
		s.desk.Retire()
		return ""
	}
	before := s.desk.Missing()
	if err := s.desk.Ready(); err != nil {
		if err.Error() != before {
			s.log.Warn("DOCKER-USER has rules, and cannot be asked about clients that the host's sockets serve: these are refused", "error", err)
		}
		return err.Error()
	}
	return ""
}

func (s *Server) inspect(ctx context.Context, c inspectCall) (reply, error) {
	to, err := s.updated(c.Session, c.update)
	if err != nil {
		return reply{}, err
	}
	found, err := s.ports.Load().Inspect(ctx, to)
	return reply{Differences: found, Failures: failures(err)}, nil
}

// updated returns the state that an update makes of the one that is known.
func (s *Server) updated(session string, u update) (state.Snapshot, error) {
	switch {
	case session != s.session:
		return state.Snapshot{}, errUnknown
	case u.Base == "":
		return u.on(state.Snapshot{})
	case u.Base != s.base:
		return state.Snapshot{}, errUnknown
	}
	return u.on(s.state)
}

// watch has the daemon hear what is logged, and, when the answer breaks off, that this relay ended.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.URL.Query().Get("level"))); err != nil {
		respond(w, http.StatusBadRequest, reply{Failures: failures(err)})
		return
	}
	lines := s.feed.attach(level)
	defer s.feed.detach(lines)
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case line := <-lines:
			if _, err := w.Write(line); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.left:
			return
		}
	}
}
