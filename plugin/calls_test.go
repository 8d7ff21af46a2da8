package plugin

import (
	"context"
	"net/http"
	"testing"
	"time"
)

// TestOldest: a handler counts from its beginning to its end, though its caller was long answered; the oldest is told.
func TestOldest(t *testing.T) {
	goOn, begun := make(chan struct{}), make(chan struct{}, 2)
	ignores := func(path string) Route {
		return call(path, func(context.Context, *request) (*response, error) {
			begun <- struct{}{}
			<-goOn
			return &response{}, nil
		})
	}
	r := serve(t, []Route{ignores("/NetworkDriver.Join"), ignores("/NetworkDriver.Leave")}, Options{Deadline: 50 * time.Millisecond})
	if c := r.srv.Oldest(); c.Name != "" {
		t.Errorf("before any call: %v", c)
	}
	before := time.Now()
	for _, path := range []string{"/NetworkDriver.Join", "/NetworkDriver.Leave"} {
		if a := r.post(path, someNetwork); a.status != http.StatusGatewayTimeout {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		<-begun
	}
	if c := r.srv.Oldest(); c.Name != "NetworkDriver.Join" || c.Began.Before(before) || time.Since(c.Began) < 50*time.Millisecond {
		t.Errorf("of two calls: %v", c)
	}
	close(goOn)
	for deadline := time.Now().Add(5 * time.Second); r.srv.Oldest().Name != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("calls that have ended: %v", r.srv.Oldest())
		}
	}
}

// TestAlive: the daemon's question to itself is answered without the state, and is not in the log.
func TestAlive(t *testing.T) {
	r := serve(t, nil, Options{Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	res, err := r.client.Get("http://x" + AlivePath)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent || r.log.String() != "" {
		t.Errorf("%s, and the log has %q", res.Status, r.log.String())
	}
}
