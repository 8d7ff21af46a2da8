package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/state"
)

const (
	// callTime bounds one answer. Status compares the host first, all others are made from memory or ask an engine.
	callTime = 10 * time.Second
	// changeTime bounds a request that changes something.
	changeTime = time.Minute
	// drainTime is what answers under way get when the daemon ends.
	drainTime = 2 * time.Second
	idleTime  = time.Minute
)

// Paths of the API.
const (
	statusPath = "/v1/status"
	portsPath  = "/v1/ports"
	rulesPath  = "/v1/rules"
	verifyPath = "/v1/verify"
	gcPath     = "/v1/gc"
)

// Sources is where a [Server] gets its answers from. All are called concurrently.
type Sources struct {
	// Refused, if not nil, is asked for why there is no answer to anything but the status.
	Refused func() error
	Status  func(ctx context.Context) (Status, error)
	// Snapshot returns the desired state.
	Snapshot func() state.Snapshot
	// Publishing tells what becomes of ports whose mode nobody else says; nil if nobody decides.
	Publishing func() Publishing
	// Rules returns the firewall rules that should be in the kernel, as text for a reader.
	Rules func(ctx context.Context) (string, error)
	// Verify compares the host with the state, and changes nothing.
	Verify func(ctx context.Context) ([]Difference, error)
	// Orphans returns what Docker has forgotten, and Collect removes it.
	Orphans func(ctx context.Context) ([]Orphan, error)
	Collect func(ctx context.Context) ([]Orphan, error)
}

// rules is the answer of /v1/rules.
type rules struct {
	Text string `json:"text"`
}

// failure is the body of an answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// Server answers on the control socket.
type Server struct{ sources Sources }

// NewServer returns a server that answers from s.
func NewServer(s Sources) *Server { return &Server{s} }

// Listen opens the control socket at an absolute path, usually
// /run/drawbridge/control.sock, for its owner alone. It takes the place of a socket
// that nobody serves, and of nothing else.
func Listen(path string) (net.Listener, error) { return unixsocket.Listen(path) }

// Serve answers on l until ctx is done, and returns nil then. l is closed, and with it
// the socket's file removed, in every case.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:        s,
		ReadTimeout:    callTime,
		WriteTimeout:   changeTime + callTime,
		IdleTimeout:    idleTime,
		MaxHeaderBytes: 64 << 10,
	}
	err := unixsocket.Serve(ctx, srv, l, drainTime)
	if errors.Is(err, unixsocket.ErrNotDrained) {
		return nil // a reader that was cut off asks again
	}
	return err
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limit := callTime
	if r.Method != http.MethodGet {
		limit = changeTime
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	status, answer := s.answer(ctx, r)
	body, err := json.Marshal(answer)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a reader that has gone misses nothing
}

// source makes an answer.
type source func(context.Context) (any, error)

// routes are what is answered, by path and method.
func (s *Server) routes() map[string]map[string]source {
	return map[string]map[string]source{
		statusPath: {http.MethodGet: s.status},
		portsPath:  {http.MethodGet: s.ports},
		rulesPath:  {http.MethodGet: s.rules},
		verifyPath: {http.MethodGet: s.verify},
		gcPath:     {http.MethodGet: orphans(s.sources.Orphans), http.MethodPost: orphans(s.sources.Collect)},
	}
}

// answer returns the status and what is to be encoded.
func (s *Server) answer(ctx context.Context, r *http.Request) (int, any) {
	methods, known := s.routes()[r.URL.Path]
	if !known {
		return http.StatusNotFound, failure{fmt.Sprintf("there is no %q here: ask for %s, %s, %s, %s or %s", r.URL.Path, statusPath, portsPath, rulesPath, verifyPath, gcPath)}
	}
	ask, known := methods[r.Method]
	switch {
	case known:
	case len(methods) == 1:
		return http.StatusMethodNotAllowed, failure{fmt.Sprintf("%s is to be asked with GET: nothing can be changed there", r.URL.Path)}
	default:
		return http.StatusMethodNotAllowed, failure{fmt.Sprintf("%s is to be asked with GET, or changed with POST", r.URL.Path)}
	}
	if s.sources.Refused != nil && r.URL.Path != statusPath {
		return http.StatusServiceUnavailable, failure{s.sources.Refused().Error()}
	}
	answer, err := guarded(ctx, ask)
	if err != nil {
		return http.StatusInternalServerError, failure{err.Error()}
	}
	return http.StatusOK, answer
}

// guarded turns a panic into an error: net/http would break the connection off, and
// the reader would take the daemon for dead.
func guarded(ctx context.Context, ask source) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("drawbridge failed to answer (%v): this is a bug", p)
		}
	}()
	return ask(ctx)
}

func (s *Server) status(ctx context.Context) (any, error) {
	st, err := s.sources.Status(ctx)
	if st.Notes == nil {
		st.Notes = []string{}
	}
	if st.Errors == nil {
		st.Errors = []string{}
	}
	return st, err
}

func (s *Server) ports(context.Context) (any, error) {
	var p Publishing
	if s.sources.Publishing != nil {
		p = s.sources.Publishing()
	}
	return Ports(s.sources.Snapshot(), p), nil
}

func (s *Server) verify(ctx context.Context) (any, error) {
	found, err := s.sources.Verify(ctx)
	if found == nil {
		found = []Difference{}
	}
	return found, err
}

func (s *Server) rules(ctx context.Context) (any, error) {
	text, err := s.sources.Rules(ctx)
	return rules{text}, err
}
