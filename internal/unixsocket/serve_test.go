package unixsocket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// slow is a handler that says when it was entered and waits until it may go on.
type slow struct{ entered, goOn chan struct{} }

func newSlow() slow { return slow{make(chan struct{}), make(chan struct{})} }

func (s slow) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	close(s.entered)
	<-s.goOn
	_, _ = io.WriteString(w, "done")
}

// get asks the socket once, on a connection of its own.
func get(path string) (string, error) {
	tr := Transport(path)
	tr.DisableKeepAlives = true
	resp, err := (&http.Client{Transport: tr}).Get("http://x/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

type result struct {
	body string
	err  error
}

// start serves h and sends one call, which is under way when start returns.
func start(t *testing.T, h slow, drain time.Duration) (cancel func(), served chan error, answered chan result, path string) {
	t.Helper()
	path = tempPath(t)
	l := listen(t, path)
	ctx, stop := context.WithCancel(t.Context())
	served, answered = make(chan error, 1), make(chan result, 1)
	go func() { served <- Serve(ctx, &http.Server{Handler: h}, l, drain) }()
	go func() {
		body, err := get(path)
		answered <- result{body, err}
	}()
	<-h.entered
	return stop, served, answered, path
}

func TestServeFinishesCallsUnderWay(t *testing.T) {
	h := newSlow()
	cancel, served, answered, path := start(t, h, time.Minute)
	cancel()
	for { // the file goes first, the call is still running
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned with a call under way: %v", err)
	default:
	}
	close(h.goOn)
	if r := <-answered; r.err != nil || r.body != "done" {
		t.Errorf("the call under way got %q, %v", r.body, r.err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeCutsCallsThatDoNotEnd(t *testing.T) {
	h := newSlow()
	cancel, served, answered, _ := start(t, h, 20*time.Millisecond)
	cancel()
	if err := <-served; !errors.Is(err, ErrNotDrained) {
		t.Errorf("Serve returned %v, want ErrNotDrained", err)
	}
	if r := <-answered; r.err == nil {
		t.Error("the call was answered")
	}
	close(h.goOn)
}

func TestServeWhenDoneFromTheStart(t *testing.T) {
	path := tempPath(t)
	l := listen(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Serve(ctx, &http.Server{}, l, time.Minute); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is still there")
	}
}

func TestServeReportsALostListener(t *testing.T) {
	l := listen(t, tempPath(t))
	_ = l.Close()
	if err := Serve(t.Context(), &http.Server{}, l, time.Minute); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve returned %v, want net.ErrClosed", err)
	}
}
