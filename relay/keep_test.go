package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// TestKeep: a relay keeps a file when its daemon has gone, does not end for having nothing else, and lets go when another daemon asks.
func TestKeep(t *testing.T) {
	path := socketPath(t)
	const idle = 500 * time.Millisecond // within which the daemon below has come, on a busy machine too
	r := serve(t, path, ServerOptions{Idle: idle})
	reader, writer, err := os.Pipe()
	must(t, err)
	defer reader.Close()
	first := New(Options{Socket: path})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error)
	go func() { watched <- first.Watch(ctx, func(string) {}) }()
	first.Keep(writer)
	for began := time.Now(); !r.keeps() && time.Since(began) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	cancel()
	must(t, <-watched)
	must(t, first.Close())
	must(t, reader.SetReadDeadline(time.Now().Add(2*idle)))
	if n, err := reader.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("nobody has the file any more: %d %v", n, err)
	}
	if !r.runs() {
		t.Fatal("the relay ended with a file to keep")
	}
	must(t, client(t, path, Options{}).LetGo(t.Context()))
	must(t, reader.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, err := reader.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("somebody has the file still: %v", err)
	}
	<-r.done // as it holds nothing
}

func (s *Server) keeps() bool {
	s.turn.RLock()
	defer s.turn.RUnlock()
	return s.kept != nil
}

// TestKeepBesideOthers: somebody else who calls at the socket at which the file is had does not keep the relay from it.
func TestKeepBesideOthers(t *testing.T) {
	r := serve(t, socketPath(t), ServerOptions{Idle: time.Minute})
	path := socketPath(t)
	l, err := unixsocket.Listen(path)
	must(t, err)
	others := 0
	srv := &http.Server{ConnContext: whoAsks, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		var call keepCall
		if req.URL.Path == keepPath && json.Unmarshal(body, &call) == nil {
			others++
			other, err := net.Dial("unixpacket", call.From)
			must(t, err)
			defer other.Close()
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.ServeHTTP(w, req)
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	c := client(t, path, Options{})
	file, err := os.Open(os.DevNull)
	must(t, err)
	c.Keep(file)
	must(t, c.handOver(t.Context()))
	if !r.keeps() || others != 1 {
		t.Errorf("the relay has the file: %v, beside %d others", r.keeps(), others)
	}
}

// TestKeepAgain: a relay keeps the file whatever went wrong before: one could not be started, or one ended of which nobody heard, since a
// call to it had run into its deadline.
func TestKeepAgain(t *testing.T) {
	for _, unheard := range []bool{false, true} {
		path, relays, begun := socketPath(t), make(chan *running, 10), 0
		begin := starter(t, path, relays)
		c := client(t, path, Options{Start: func() (<-chan error, error) {
			if begun++; begun == 1 && !unheard {
				return nil, errors.New("no memory")
			}
			return begin()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		watched := make(chan error, 1)
		go func() { watched <- c.Watch(ctx, func(string) {}) }()
		kept := func() *running {
			t.Helper()
			select {
			case r := <-relays:
				for began := time.Now(); !r.keeps(); time.Sleep(time.Millisecond) {
					if time.Since(began) > callTime {
						t.Fatalf("unheard %v: the relay has no file", unheard)
					}
				}
				return r
			case <-time.After(2 * callTime):
				t.Fatalf("unheard %v: no relay was started", unheard)
			}
			return nil
		}
		file, err := os.Open(os.DevNull)
		must(t, err)
		c.Keep(file)
		first := kept()
		if unheard {
			short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_ = c.with(short, callTime, false, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			stop()
			first.stop()
			must(t, c.Apply(t.Context(), snapshot(endpoint("a"))))
			kept()
		}
		cancel()
		must(t, <-watched)
	}
}
