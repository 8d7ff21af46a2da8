package plugin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request stands for the arguments of any call.
type request struct{ NetworkID, EndpointID, Extra string }

// response echoes what the handler saw.
type response struct{ Network string }

// echo is a route whose handler counts and answers.
func echo(path string, hits *counter) Route {
	return call(path, func(_ context.Context, r *request) (*response, error) {
		hits.add(path)
		return &response{r.NetworkID}, nil
	})
}

// counter counts what handlers did; it is safe for concurrent use.
type counter struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (c *counter) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[key]++
}

func (c *counter) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[key]
}

// running is a server on a real socket.
type running struct {
	t      *testing.T
	path   string
	client *http.Client
	stop   context.CancelFunc
	ended  chan error
	log    *transcript.Text
	srv    *Server
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "plugins", "drawbridge.sock")
}

// serve starts a server and ends it with the test.
func serve(t *testing.T, routes []Route, o Options) *running {
	t.Helper()
	r := &running{t: t, path: socketPath(t), ended: make(chan error, 1), log: &transcript.Text{}}
	o.Log = slog.New(slog.NewTextHandler(r.log, nil))
	r.srv = NewServer(routes, o)
	l, err := Listen(r.path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.srv.Serve(ctx, l); close(r.ended) }()
	tr := unixsocket.Transport(r.path)
	r.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		stop()
		tr.CloseIdleConnections()
		<-r.ended
	})
	return r
}

// answered is what came back.
type answered struct {
	status int
	body   string
	header http.Header
}

// text returns the error's sentence and checks that it is under both keys.
func (a answered) text(t *testing.T) string {
	t.Helper()
	var f failure
	if err := json.Unmarshal([]byte(a.body), &f); err != nil {
		t.Fatalf("error body %q: %v", a.body, err)
	}
	if f.Err == "" || f.Err != f.Error {
		t.Errorf("error body %q: want the same text under Err and Error", a.body)
	}
	if strings.Contains(f.Err, "\n") {
		t.Errorf("error %q has several lines", f.Err)
	}
	return f.Err
}

func (r *running) send(method, path string, body io.Reader) (answered, error) {
	req, err := http.NewRequest(method, "http://plugin.moby.localhost"+path, body)
	if err != nil {
		return answered{}, err
	}
	req.Header.Set("Accept", contentType)
	resp, err := r.client.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, string(b), resp.Header}, err
}

func (r *running) post(path, body string) answered {
	r.t.Helper()
	a, err := r.send(http.MethodPost, path, strings.NewReader(body))
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return a
}

// finish stops the server and waits for it.
func (r *running) finish() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("Serve: %v", err)
		}
	case <-time.After(30 * time.Second):
		r.t.Fatal("Serve did not return")
	}
}

const someNetwork = `{"NetworkID":"abcdef0123456789abcdef","EndpointID":"0123456789abcdef0123"}`
