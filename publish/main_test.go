package publish

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestMain(m *testing.M) {
	if os.Getenv(labVariable) != "" {
		os.Exit(m.Run()) // the process ends with its network namespace
	}
	goleak.VerifyTestMain(m)
}

// labVariable tells a test that it runs in namespaces of its own.
const labVariable = "DRAWBRIDGE_PUBLISH_LAB"

// endpoint makes one of network "f…" whose id begins with the letter.
func endpoint(letter string, addrs ...string) state.Endpoint {
	e := state.Endpoint{
		ID:      state.EndpointID(strings.Repeat(letter, 64)),
		Network: state.NetworkID(strings.Repeat("f", 64)),
	}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		if p.Addr().Is4() {
			e.Addr4 = p
		} else {
			e.Addr6 = p
		}
	}
	return e
}

func snapshot(es ...state.Endpoint) state.Snapshot {
	s := state.Snapshot{Endpoints: es}
	s.Sort()
	return s
}

func with(e state.Endpoint, ports ...state.Port) state.Endpoint {
	e.Ports = ports
	return e
}

func exact(proto state.Proto, ip string, host, container uint16) state.PortRequest {
	return ranged(proto, ip, host, host, container)
}

func ranged(proto state.Proto, ip string, first, last, container uint16) state.PortRequest {
	r := state.PortRequest{Proto: proto, HostPort: first, HostPortEnd: last, ContainerPort: container}
	if ip != "" {
		r.HostIP = netip.MustParseAddr(ip)
	}
	return r
}

func ephemeral(proto state.Proto, ip string, container uint16) state.PortRequest {
	return ranged(proto, ip, 0, 0, container)
}

func portOf(r state.PortRequest) state.Port {
	return state.Port{Proto: r.Proto, HostIP: r.HostIP, HostPort: r.HostPort, ContainerPort: r.ContainerPort}
}

// kernel plays bind(2): who has what, and what is refused.
type kernel struct {
	mu     sync.Mutex
	bound  map[place]bool
	refuse map[netip.Addr]error
	opens  int
}

func newKernel() *kernel {
	return &kernel{bound: map[place]bool{}, refuse: map[netip.Addr]error{}}
}

func (k *kernel) open(_ context.Context, b binding, _ bool) (server, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opens++
	if err := k.refuse[b.addr.Addr()]; err != nil {
		return nil, err
	}
	for at := range k.bound {
		if at.overlaps(b.place()) {
			return nil, syscall.EADDRINUSE
		}
	}
	k.bound[b.place()] = true
	return &fakeServer{kernel: k, at: b.place(), closed: make(chan struct{})}, nil
}

// take lets another program have a place.
func (k *kernel) take(addr string, proto state.Proto) {
	k.bound[place{proto, netip.MustParseAddrPort(addr)}] = true
}

// list returns the places that are bound.
func (k *kernel) list() map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]bool{}
	for at := range k.bound {
		out[at.String()] = true
	}
	return out
}

type fakeServer struct {
	kernel *kernel
	at     place
	closed chan struct{}
}

func (s *fakeServer) serve(context.Context) { <-s.closed }

func (s *fakeServer) admit(reach) error { return nil }

func (s *fakeServer) Close() error {
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	delete(s.kernel.bound, s.at)
	close(s.closed)
	return nil
}

// fakePublisher has a kernel of its own, and ephemeral ports 40000 to 40003 of which
// 40001 is reserved by the admin.
func fakePublisher(t *testing.T) (*Publisher, *kernel) {
	t.Helper()
	p := New(Options{Proc: procDir(t, map[string]string{
		"sys/net/ipv4/ip_local_port_range":     "40000\t40003\n",
		"sys/net/ipv4/ip_local_reserved_ports": "40001\n",
	})})
	k := newKernel()
	p.open = k.open
	closeLater(t, p)
	return p, k
}

func closeLater(t *testing.T, p *Publisher) {
	t.Helper()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// procDir writes a proc file system. A value that begins with "->" is a symbolic link.
func procDir(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(text, "->"); link {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func reserve(t *testing.T, p *Publisher, e state.Endpoint, want ...state.PortRequest) []state.Port {
	t.Helper()
	ports, err := p.Reserve(t.Context(), e, want)
	if err != nil {
		t.Fatalf("Reserve: %v", err)
	}
	return ports
}

func apply(t *testing.T, p *Publisher, es ...state.Endpoint) {
	t.Helper()
	if err := p.Apply(t.Context(), snapshot(es...)); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}
