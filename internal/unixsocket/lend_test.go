package unixsocket

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"
)

// TestLend: two servers answer on one socket one after the other, and whoever comes in between is answered by the second.
func TestLend(t *testing.T) {
	path := tempPath(t)
	l := listen(t, path)
	says := func(word string) *http.Server {
		return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, word) })}
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, says("first"), Lend(l), time.Second) }()
	if body, err := get(path); body != "first" {
		t.Fatalf("%q %v", body, err)
	}
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	between := make(chan result, 1)
	go func() {
		body, err := get(path)
		between <- result{body, err}
	}()
	if err := Reclaim(l); err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	go func() { served <- Serve(ctx, says("second"), l, time.Second) }()
	if r := <-between; r.body != "second" {
		t.Errorf("between: %q %v", r.body, r.err)
	}
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}
