package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPath returns one short enough for a socket, whatever the test is called.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "relay.sock")
}

// running is a relay in this process.
type running struct {
	*Server
	stop func()
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	calls []call
}

// call is a request that came.
type call struct {
	path string
	body string
}

// serve runs a relay on a socket until stop or the end of the test.
func serve(t *testing.T, path string, o ServerOptions) *running {
	t.Helper()
	l, err := unixsocket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: NewServer(o)}
	r.run(t, l)
	return r
}

func (r *running) run(t *testing.T, l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	r.done = make(chan struct{})
	go func() {
		defer close(r.done)
		if err := r.Serve(ctx, l); err != nil {
			t.Errorf("the relay ended with %v", err)
		}
	}()
	r.stop = func() {
		cancel()
		<-r.done
	}
	t.Cleanup(r.stop)
}

// runs reports whether it has not ended.
func (r *running) runs() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// recorded is a socket in front of a relay's that writes down what is asked.
func (r *running) recorded(t *testing.T) string {
	t.Helper()
	path := socketPath(t)
	l, err := unixsocket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ConnContext: whoAsks, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		r.calls = append(r.calls, call{req.URL.Path, string(body)})
		r.mu.Unlock()
		r.ServeHTTP(w, req)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return path
}

// asked returns the bodies that came for a path, and forgets them.
func (r *running) asked(path string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c.path == path {
			out = append(out, c.body)
		}
	}
	r.calls = nil
	return out
}

// client returns one whose relay is started in this process, unless there is one.
func client(t *testing.T, path string, o Options) *Client {
	t.Helper()
	o.Socket = path
	c := New(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func starter(t *testing.T, path string, relays chan<- *running) func() (<-chan error, error) {
	return func() (<-chan error, error) {
		relays <- serve(t, path, ServerOptions{})
		return make(chan error), nil
	}
}

func endpoint(letter string, ports ...state.Port) state.Endpoint {
	return state.Endpoint{
		ID: state.EndpointID(strings.Repeat(letter, 64)), Network: state.NetworkID(strings.Repeat("f", 64)),
		Addr4: netip.MustParsePrefix("127.0.0.77/8"), Ports: ports,
	}
}

func snapshot(es ...state.Endpoint) state.Snapshot {
	s := state.Snapshot{Networks: []state.Network{{ID: state.NetworkID(strings.Repeat("f", 64))}}, Endpoints: es}
	s.Sort()
	return s
}

// free returns a port of 127.0.0.1 that nobody has, and that it has not returned before.
func free(t *testing.T) uint16 {
	t.Helper()
	for {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		l.Close()
		if _, twice := given.LoadOrStore(port, true); !twice {
			return port
		}
	}
}

// given are the ports that free returned: the kernel may lend one again while a test has yet to take it.
var given sync.Map

func tcp(host uint16) state.Port {
	return state.Port{Proto: state.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: host, ContainerPort: 80}
}

func request(p state.Port) state.PortRequest {
	return state.PortRequest{Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort, HostPortEnd: p.HostPort, ContainerPort: p.ContainerPort}
}

// taken reports whether somebody listens at a port of 127.0.0.1.
func taken(p state.Port) bool {
	c, err := net.Dial("tcp4", netip.AddrPortFrom(p.HostIP, p.HostPort).String())
	if err == nil {
		c.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED) // the proxy may reset it at once
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
