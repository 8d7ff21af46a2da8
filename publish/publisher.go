package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// Options configure a Publisher. The zero value is the usual one.
type Options struct {
	// ServeAll lets the proxy serve clients on every interface. It belongs to --iptables=false, where no
	// firewall rule of ours takes them to the container. Otherwise only what arrives by the loopback interface is served.
	ServeAll bool
	// ServeAllV6 is the same for IPv6 alone (--ip6tables=false).
	ServeAllV6 bool
	// NoProxy only reserves: no client is served here (--userland-proxy=false), but those of ports that are for sockets to serve.
	NoProxy bool
	// Mode says by which way clients from outside come to what is exposed: dnat, host, learned or localhost. It is asked for each
	// endpoint with each Apply and Follow; nil is dnat. A port that changes its way keeps its socket and connections.
	Mode func(state.Exposure) state.Publish
	// Undiverted names what the host lacks to lead containers' answers to transparent sockets (see the manual); "" and nil for nothing.
	Undiverted func() string
	// Inquire says in which families rules for forwarded packets are to be asked about clients from outside, by Inquirer, before they are
	// served; nil for none. It is asked for each of them.
	Inquire  func(v6 bool) bool
	Inquirer Inquirer
	// Log gets what happens to single connections (debug) and lasting failures to accept
	// them (warn). None means silence.
	Log *slog.Logger

	// DialTimeout bounds how long a TCP client waits for the container; 0 means 10 s.
	DialTimeout time.Duration
	// MaxConns bounds the proxied TCP connections of all ports together; more wait in the backlog. No socket has more of them than are
	// free, so that one whose clients take all that they can get leaves half to others.
	// 0 means an eighth of the process's limit of open files.
	MaxConns int
	// UDPIdle is how long a UDP session lives without a datagram in either
	// direction; 0 means 90 s, as with docker-proxy.
	UDPIdle time.Duration
	// UDPSessions bounds the sessions of one UDP socket; the one that has been idle for longest
	// makes room for a new one. 0 means 1024.
	UDPSessions int
	// MaxSessions bounds the sessions of all UDP sockets in the same way; one socket has no more than are left to the others.
	// 0 means an eighth of the process's limit of open files, and no more than a quarter of the ports that the kernel lends.
	MaxSessions int

	// Closed is told each place that is given back, before that is done; none means nobody. It must not block.
	Closed func(Place)

	// Proc is where the proc file system is mounted; empty means /proc.
	Proc string
}

// Publisher holds the sockets of published ports. Its methods may be called concurrently.
type Publisher struct {
	proc    procfs
	open    func(ctx context.Context, b binding, outside bool) (server, error)
	servers *sockets // those that open makes
	running sync.WaitGroup

	mu sync.Mutex // never held while anything waits for a peer; guards all that follows
	// paused are those whose datagrams wait, from Given to Resume; guarded by mu.
	paused []*udpServer
	closed bool
	held   map[place]*socket
	of     map[state.EndpointID]map[*socket]struct{} // the same by endpoint
	// asleep are the sockets whose first client the waker waits for, by their file descriptor.
	asleep map[int]*socket
	waker  *waker // nil until one is needed
	log    *slog.Logger
	told   func(Place) // Options.Closed
}

// socket is one that is bound.
type socket struct {
	binding
	server server
	served bool               // clients are served
	stop   context.CancelFunc // nil until the first of them came
	fd     int                // by which the waker knows it, 0 for not at all

	// reserved: held for Reserve, and not yet seen in a snapshot.
	reserved bool
	// shown: a snapshot had the endpoint since then.
	shown bool
}

// New returns a Publisher that holds nothing.
func New(o Options) *Publisher {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Mode == nil {
		o.Mode = func(state.Exposure) state.Publish { return state.PublishDNAT }
	}
	if o.Closed == nil {
		o.Closed = func(Place) {}
	}
	lent := &lentPorts{path: lentPath}
	opener := &sockets{
		serveAll:    o.ServeAll,
		serveAllV6:  o.ServeAllV6,
		noProxy:     o.NoProxy,
		dialTimeout: cmp.Or(o.DialTimeout, 10*time.Second),
		legacy:      30 * time.Second,
		udpIdle:     cmp.Or(o.UDPIdle, 90*time.Second),
		udpSessions: cmp.Or(o.UDPSessions, 1024),
		sessions:    &share{most: cmp.Or(o.MaxSessions, defaultSessions(lent))},
		lent:        lent,
		conns:       &share{most: cmp.Or(o.MaxConns, defaultConns())},
		log:         o.Log,
		mode:        o.Mode,
		undiverted:  o.Undiverted,
		questions:   questions{wanted: o.Inquire, to: o.Inquirer},
	}
	return &Publisher{
		proc: procfs(cmp.Or(o.Proc, "/proc")),
		open: opener.open,

		servers: opener,
		held:    map[place]*socket{},
		of:      map[state.EndpointID]map[*socket]struct{}{},
		asleep:  map[int]*socket{},
		log:     o.Log,
		told:    o.Closed,
	}
}

// defaultConns leaves a quarter of the files for everything else: a connection takes up to six while data waits in both directions.
func defaultConns() int { return min(max(fileLimit()/8, 16), 1<<16) }

// spareFiles are left to the rest of the process, or a quarter of few: without any it could not even say that it lacks some.
const spareFiles = 512

// maxSockets is how many there may be.
func maxSockets() int {
	limit := fileLimit()
	return limit - min(limit/4, spareFiles)
}

// fileLimit is how many files the process may have open.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Cur, 1<<30))
}

// Close closes every socket and connection, and returns when all goroutines have ended. The
// Publisher cannot be used again.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	var errs []error
	for _, s := range p.held {
		errs = append(errs, p.release(s))
	}
	if p.waker != nil {
		errs = append(errs, p.waker.Close())
		p.waker = nil
	}
	p.mu.Unlock()
	p.running.Wait()
	return errors.Join(errs...)
}

// hold binds the socket of b. Its errors are for the user, or errAbsent. p.mu is held.
func (p *Publisher) hold(ctx context.Context, b binding, outside bool) (*socket, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("publishing port %s: %w", b.place(), err)
	}
	if b.port.Proto == state.SCTP { // perhaps held without a socket, of which bind(2) knows nothing
		if holder := p.inTheWay(b.place()); holder != nil {
			return nil, &conflict{at: b.place(), holder: holder}
		}
	}
	if len(p.held) >= maxSockets() {
		return nil, refuse(b.place(), syscall.EMFILE)
	}
	var srv server
	err := effect.Do("socket.open", func() (err error) {
		srv, err = p.open(ctx, b, outside)
		return err
	})
	switch {
	case err == nil:
	case b.helper && unavailable(err):
		return nil, errAbsent
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &conflict{at: b.place(), holder: p.inTheWay(b.place())}
	default:
		return nil, refuse(b.place(), err)
	}
	return p.keep(b, srv), nil
}

// keep notes that a socket is held. p.mu is held.
func (p *Publisher) keep(b binding, srv server) *socket {
	s := &socket{binding: b, server: srv}
	p.held[b.place()] = s
	if p.of[b.endpoint] == nil {
		p.of[b.endpoint] = map[*socket]struct{}{}
	}
	p.of[b.endpoint][s] = struct{}{}
	return s
}

// errAbsent says that a helper is left out because the host lacks its family.
var errAbsent = errors.New("the host lacks the address family")

// inTheWay finds the socket of ours that takes a place.
func (p *Publisher) inTheWay(at place) *binding {
	for _, s := range p.held {
		if s.place().overlaps(at) {
			return &s.binding
		}
	}
	return nil
}

// serve serves clients from now on. p.mu is held.
func (p *Publisher) serve(s *socket) {
	if s.served {
		return
	}
	s.served = true
	if u, ok := s.server.(*udpServer); ok && u.busy() { // its first client came in another process
		p.start(s)
		return
	}
	switch server := s.server.(type) {
	case unserved:
	case sleeper:
		if err := p.sleep(s, server); err != nil { // then it has its goroutine from the first
			p.log.Debug("a published port cannot sleep", "port", s.place().String(), "error", err)
			p.start(s)
		}
	default:
		p.start(s)
	}
}

// sleep lets the socket wait for its first client.
func (p *Publisher) sleep(s *socket, server sleeper) error {
	fd, err := server.descriptor()
	if err != nil {
		return err
	}
	if p.waker == nil {
		w, err := newWaker()
		if err != nil {
			return err
		}
		p.waker = w
		p.running.Go(func() {
			if err := w.run(p.wake); err != nil {
				p.log.Error("published ports are not served on the loopback interface any more: end the relay (process id in `drawbridge status`), and another one is started", "error", err)
			}
		})
	}
	s.fd, p.asleep[fd] = fd, s
	if err := p.waker.watch(fd); err != nil {
		p.rouse(s)
		return err
	}
	return nil
}

// wake starts the socket with the file descriptor, if it is still held.
func (p *Publisher) wake(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.asleep[fd]
	if !ok || p.closed {
		return
	}
	_ = p.waker.forget(fd) // it would only wake what is awake
	p.rouse(s)
	p.start(s)
}

// rouse forgets that the socket slept.
func (p *Publisher) rouse(s *socket) {
	if s.fd != 0 && p.asleep[s.fd] == s {
		delete(p.asleep, s.fd)
	}
	s.fd = 0
}

// start begins to serve the clients of a socket.
func (p *Publisher) start(s *socket) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	p.running.Go(func() { s.server.serve(ctx) })
}

// release gives the place back before it returns. Connections end, but are not waited for: p.mu is held.
func (p *Publisher) release(s *socket) error {
	p.told(s.place())
	delete(p.held, s.place())
	delete(p.of[s.endpoint], s)
	if len(p.of[s.endpoint]) == 0 {
		delete(p.of, s.endpoint)
	}
	p.rouse(s)
	if s.stop != nil {
		s.stop()
	}
	return effect.Do("socket.close", s.server.Close)
}
