package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

const (
	defaultDeadline = 15 * time.Second
	defaultMaxBody  = 8 << 20

	headerTime = 5 * time.Second // for the request line and the headers
	// idleTime is longer than the 30 s for which dockerd keeps an idle connection, so
	// that it is dockerd that closes: a request sent into a closing connection is
	// repeated without its body.
	idleTime = 2 * time.Minute
	// drainSlack is what the end may take beyond the longest call.
	drainSlack = 5 * time.Second
)

// Options of a [Server]; the zero value is usable.
type Options struct {
	// Log gets one line per call; nil discards them.
	Log *slog.Logger
	// Deadline of each call, 15 seconds if zero.
	Deadline time.Duration
	// MaxBody is the largest request body in bytes, 8 MiB if zero. What dockerd sends
	// are a few kilobytes, and 120 bytes for each published port.
	MaxBody int64
	// Brief closes each connection after its answer, for a server whose place another one is to take: dockerd repeats a request
	// that it sent into a closing connection without its body.
	Brief bool
	// Ready returns when the state is loaded, or with an error when ctx is done or
	// the state cannot be loaded. Every call with arguments waits for it. Nil means
	// ready at once.
	Ready func(ctx context.Context) error
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Deadline == 0 {
		o.Deadline = defaultDeadline
	}
	if o.MaxBody == 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	return o
}

// Server answers dockerd.
type Server struct {
	routes  map[string]Route // by path
	options Options
	log     *slog.Logger
	running sync.WaitGroup // handlers, those that overstay their deadline included
	calls   calls          // the same ones
	drained atomic.Bool
}

// NewServer returns a server for the routes and for /Plugin.Activate. Two routes of one
// path are a mistake of the program and panic.
func NewServer(routes []Route, o Options) *Server {
	o = o.withDefaults()
	s := &Server{routes: make(map[string]Route, len(routes)+1), options: o, log: o.Log}
	for _, rt := range append([]Route{activate()}, routes...) {
		if _, twice := s.routes[rt.Path]; twice {
			panic("plugin: two routes for " + rt.Path)
		}
		s.routes[rt.Path] = rt
	}
	return s
}

// Serve answers on l until ctx is done. It then closes l, which removes the socket's file
// if [Listen] made it, lets calls under way finish within their deadline, and
// returns nil. A listener that fails before that is an error.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	srv.SetKeepAlivesEnabled(!s.options.Brief)
	drain := s.options.Deadline + drainSlack
	err := unixsocket.Serve(ctx, srv, l, drain)
	switch {
	case errors.Is(err, unixsocket.ErrNotDrained):
		s.log.Warn("ending with calls under way", "error", err)
		return nil
	case err != nil:
		return err
	}
	s.drained.Store(s.Oldest() == Call{})
	s.awaitLate(drainSlack)
	return nil
}

// Drained reports whether Serve has ended with every call answered by what its handler came to. It is false while Serve runs, and where a
// call's time was over before its handler was.
func (s *Server) Drained() bool { return s.drained.Load() }

// awaitLate gives handlers that overstayed their deadline, and whose callers have long
// been answered, a last chance to finish what they write.
func (s *Server) awaitLate(within time.Duration) {
	finished := make(chan struct{})
	go func() { s.running.Wait(); close(finished) }()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
		s.log.Warn("ending with calls under way that ignore their deadline")
	}
}

// AlivePath is what the daemon asks itself for, by GET, to see whether its socket is served. It is no call and not in the log.
const AlivePath = "/alive"

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == AlivePath && r.Method == http.MethodGet {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	began := time.Now()
	// dockerd going away does not cancel: see the package documentation.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), s.options.Deadline)
	defer cancel()

	body, reply, err := s.answer(ctx, w, r)
	writeReply(w, reply, err)
	s.record(r.URL.Path, body, time.Since(began), err)
}

// answer returns the request's body, for the log, and what the call ended with.
func (s *Server) answer(ctx context.Context, w http.ResponseWriter, r *http.Request) (body, reply []byte, err error) {
	rt, known := s.routes[r.URL.Path]
	switch {
	case !known:
		return nil, nil, refuse(http.StatusNotFound, "drawbridge does not know the call %s", clip(r.URL.Path))
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return nil, nil, refuse(http.StatusMethodNotAllowed, "%s must be sent with POST, not %s", rt.name(), clip(r.Method))
	}
	body, err = readBody(w, r, s.options.MaxBody, s.options.Deadline)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", rt.name(), err)
	}
	reply, err = s.run(ctx, rt, body)
	return body, reply, err
}
