package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

var errHost = errors.New("the host said no")

// fakeLoop is a loop whose passes take no time and fail when told to.
type fakeLoop struct {
	store *store.Store
	ports *fakePorts // which a pass closes

	mu     sync.Mutex
	fail   []error // of the next calls of Wait, in order; nil is success
	broken error   // of all calls when fail is used up
	seen   []state.Snapshot
	wait   func(context.Context) error // replaces all that if set
}

func (l *fakeLoop) Wait(ctx context.Context, revision uint64, scope state.Scope) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.store.Snapshot()
	if s.Revision < revision {
		return fmt.Errorf("revision %d is waited for, the state is at %d", revision, s.Revision)
	}
	l.seen = append(l.seen, s)
	if wait := l.wait; wait != nil {
		l.wait = nil
		return wait(ctx)
	}
	if len(l.fail) > 0 {
		err := l.fail[0]
		l.fail = l.fail[1:]
		if err != nil {
			return scope.Select(err)
		}
	}
	if l.broken == nil {
		l.ports.apply(s)
	}
	return scope.Select(l.broken)
}

func (l *fakeLoop) passes() []state.Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// fakePorts holds ports like the real thing, on a host where nothing else does.
type fakePorts struct {
	mu       sync.Mutex
	held     map[state.EndpointID][]state.Port
	shown    map[state.EndpointID][]state.Port // in the state of the last pass
	owners   map[state.EndpointID]state.Endpoint
	requests []state.PortRequest // of the last call
	err      error
}

func newFakePorts() *fakePorts {
	return &fakePorts{
		held: map[state.EndpointID][]state.Port{}, shown: map[state.EndpointID][]state.Port{},
		owners: map[state.EndpointID]state.Endpoint{},
	}
}

// apply closes what the state had and has no more, and takes back what it has again.
func (p *fakePorts) apply(s state.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range s.Endpoints {
		p.held[e.ID] = slices.DeleteFunc(p.held[e.ID], func(q state.Port) bool {
			return slices.Contains(p.shown[e.ID], q) && !slices.Contains(e.Ports, q)
		})
		for _, q := range state.Bound(e.Ports) {
			if !slices.Contains(p.held[e.ID], q) {
				p.held[e.ID] = append(p.held[e.ID], q)
			}
		}
		if len(p.held[e.ID]) == 0 {
			delete(p.held, e.ID)
		}
		p.owners[e.ID], p.shown[e.ID] = e, e.Ports
	}
	for id := range p.shown {
		if _, stays := s.Endpoint(id); !stays {
			delete(p.held, id)
			delete(p.shown, id)
		}
	}
}

func (p *fakePorts) Reserve(_ context.Context, e state.Endpoint, want []state.PortRequest) ([]state.Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = slices.Clone(want)
	if p.err != nil {
		return nil, p.err
	}
	p.owners[e.ID] = e
	var out []state.Port
	for _, r := range want {
		port, ok := p.choose(e, r, out)
		if !ok {
			return nil, fmt.Errorf("port %d is in use: %w", r.HostPort, syscall.EADDRINUSE)
		}
		out = append(out, port)
	}
	for _, port := range out {
		if !slices.Contains(p.held[e.ID], port) {
			p.held[e.ID] = append(p.held[e.ID], port)
		}
	}
	return out, nil
}

func (p *fakePorts) choose(e state.Endpoint, r state.PortRequest, mine []state.Port) (state.Port, bool) {
	port := state.Port{Proto: r.Proto, HostIP: r.HostIP, HostPort: r.HostPort, ContainerPort: r.ContainerPort}
	if r.HostPort == 0 {
		port.HostPort, r.HostPortEnd = 32768, 60999
	}
	for ; port.HostPort <= r.HostPortEnd; port.HostPort++ {
		if !slices.Contains(mine, port) && !p.taken(e, port) {
			return port, true
		}
	}
	return port, false
}

// taken reports whether one of the port's sockets meets one of another endpoint.
func (p *fakePorts) taken(e state.Endpoint, port state.Port) bool {
	for other, ports := range p.held {
		for _, q := range ports {
			if other != e.ID && q.Proto == port.Proto && q.HostPort == port.HostPort && meet(sockets(e, port), sockets(p.owners[other], q)) {
				return true
			}
		}
	}
	return false
}

// sockets are the addresses of a port's sockets, as in the manual of package publish.
func sockets(e state.Endpoint, p state.Port) []netip.Addr {
	switch {
	case p.HostIP.IsValid():
		return []netip.Addr{p.HostIP}
	case !e.Addr6.IsValid():
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Loopback()}
	case !e.Addr4.IsValid():
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func meet(these, those []netip.Addr) bool {
	for _, a := range these {
		for _, b := range those {
			if a.Is4() == b.Is4() && (a == b || a.IsUnspecified() || b.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

func (p *fakePorts) Release(id state.EndpointID, keep []state.Port) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[id] = slices.DeleteFunc(p.held[id], func(q state.Port) bool { return !slices.Contains(keep, q) })
	if len(p.held[id]) == 0 {
		delete(p.held, id)
	}
}

func (p *fakePorts) all() map[state.EndpointID][]state.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := maps.Clone(p.held)
	for id := range out {
		out[id] = slices.Clone(out[id])
	}
	return out
}

// fakeHost is a host that can refuse each question.
type fakeHost struct {
	v4, v6                    bool
	boot                      string
	check, forwarding, noBoot error
	checks                    int
	lost, running             map[state.EndpointID]bool
	noLost                    error
	mtu                       int
	adopts                    bool
	ra                        state.LinkNames
	mu                        sync.Mutex // guards checks
}

func (h *fakeHost) Running(e state.Endpoint) bool { return h.running[e.ID] }

func (h *fakeHost) Lost(_ context.Context, endpoints []state.Endpoint) ([]state.Endpoint, error) {
	var out []state.Endpoint
	for _, e := range endpoints {
		if h.lost[e.ID] {
			out = append(out, e)
		}
	}
	return out, h.noLost
}

func (h *fakeHost) FitNetwork(_ context.Context, n state.Network) (state.Network, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks++
	n.HostMTU, n.Adopted = h.mtu, h.adopts
	return n, h.check
}

func (h *fakeHost) Forwarding(v6 bool) (state.Forwarding, error) {
	on := state.Forwarding{V4: h.v4, V6: h.v6}
	if v6 {
		on.RA = h.ra
	}
	return on, h.forwarding
}

func (h *fakeHost) Boot() (string, error) { return h.boot, h.noBoot }

// fakeFlows remembers what was forgotten.
type fakeFlows struct {
	mu     sync.Mutex
	addrs  []netip.Addr
	closed []state.Port // of all endpoints
	ports  []state.Port
	failed error // what Settle says
}

func (f *fakeFlows) ForgetPublished(e state.Endpoint, gone []state.Port) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(e.Addrs()) == 0 {
		f.failed = errors.New("nobody's ports are closed")
	}
	f.closed = append(f.closed, gone...)
}

func (f *fakeFlows) Forget(addrs []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs = append(f.addrs, addrs...)
}

func (f *fakeFlows) ForgetPorts(ports []state.Port) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports = append(f.ports, ports...)
}

func (f *fakeFlows) Settle(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// forgotten says what was forgotten since the last time.
func (f *fakeFlows) forgotten() (addrs []netip.Addr, closed string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addrs, closed = f.addrs, describe(f.closed)
	f.addrs, f.closed = nil, nil
	return addrs, closed
}
