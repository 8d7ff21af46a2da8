package plugin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestActivateBeforeReady(t *testing.T) {
	loaded := make(chan struct{})
	ready := func(ctx context.Context) error {
		select {
		case <-loaded:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	hits := &counter{}
	r := serve(t, stubs(hits), Options{Ready: ready})
	if a := r.post("/Plugin.Activate", ""); a.status != 200 || a.body != `{"Implements":["NetworkDriver","IpamDriver"]}` {
		t.Errorf("Activate: got %d %s", a.status, a.body)
	}
	for _, p := range asks { // they depend on no state
		if a := r.post(p, ""); a.status != 200 {
			t.Errorf("%s: got %d %s", p, a.status, a.body)
		}
	}
	joined := make(chan answered, 1)
	go func() { joined <- r.post("/NetworkDriver.Join", someNetwork) }()
	select {
	case a := <-joined:
		t.Errorf("Join was answered before the state was loaded: %v", a)
	case <-time.After(50 * time.Millisecond):
	}
	close(loaded)
	if a := <-joined; a.status != 200 {
		t.Errorf("Join: got %d %s", a.status, a.body)
	}
}

func TestNeverReady(t *testing.T) {
	rows := []struct {
		name  string
		ready func(context.Context) error
		want  string
	}{
		{"still loading", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, "still starting"},
		{"the state is broken", func(context.Context) error { return errors.New("state.db is damaged") }, "state.db is damaged"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			hits := &counter{}
			r := serve(t, stubs(hits), Options{Ready: row.ready, Deadline: 50 * time.Millisecond})
			a := r.post("/NetworkDriver.Join", someNetwork)
			if text := a.text(t); a.status != 503 || !strings.Contains(text, row.want) {
				t.Errorf("got %d %q", a.status, text)
			}
			if hits.of("/NetworkDriver.Join") != 0 {
				t.Error("the handler ran")
			}
		})
	}
}

// TestBrief: no connection is left on which a request could meet the end of the server.
func TestBrief(t *testing.T) {
	for _, brief := range []bool{true, false} {
		r := serve(t, stubs(&counter{}), Options{Brief: brief})
		resp, err := r.client.Post("http://plugin/Plugin.Activate", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.Close != brief {
			t.Errorf("brief %v: the server closes the connection: %v", brief, resp.Close)
		}
	}
}

func TestPanicCostsOneCall(t *testing.T) {
	r := serve(t, []Route{
		callNoReply("/NetworkDriver.Join", func(context.Context, *request) error { panic("out of thin air") }),
		callNoReply("/NetworkDriver.Leave", func(context.Context, *request) error { runtime.Goexit(); return nil }),
		echo("/NetworkDriver.CreateNetwork", &counter{}),
	}, Options{})
	for range 2 {
		a := r.post("/NetworkDriver.Join", someNetwork)
		if text := a.text(t); a.status != 500 || !strings.Contains(text, "NetworkDriver.Join (out of thin air)") {
			t.Errorf("got %d %q", a.status, text)
		}
	}
	if a := r.post("/NetworkDriver.Leave", someNetwork); a.status != 500 {
		t.Errorf("a handler that vanished: got %d %s", a.status, a.body)
	}
	if a := r.post("/NetworkDriver.CreateNetwork", someNetwork); a.status != 200 {
		t.Errorf("the next call: got %d %s", a.status, a.body)
	}
	if log := r.log.String(); !strings.Contains(log, "lifetime_test.go") || !strings.Contains(log, "out of thin air") {
		t.Errorf("the log has no stack: %s", log)
	}
}

func TestDeadline(t *testing.T) {
	const deadline = 100 * time.Millisecond
	goOn := make(chan struct{})
	r := serve(t, []Route{
		callNoReply("/NetworkDriver.Join", func(ctx context.Context, _ *request) error { <-goOn; return nil }),
		callNoReply("/NetworkDriver.Leave", func(ctx context.Context, _ *request) error { <-ctx.Done(); return ctx.Err() }),
		callNoReply("/IpamDriver.RequestPool", func(ctx context.Context, _ *request) error {
			<-ctx.Done()
			return errors.New("waiting for the bridge took too long")
		}),
	}, Options{Deadline: deadline})
	rows := []struct {
		name, path, want string
		status           int
	}{
		{"ignored", "/NetworkDriver.Join", "did not finish NetworkDriver.Join within 100ms", 504},
		{"heeded", "/NetworkDriver.Leave", "NetworkDriver.Leave did not finish within 100ms", 500},
		{"heeded with a sentence", "/IpamDriver.RequestPool", "waiting for the bridge took too long", 500},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			a := r.post(row.path, someNetwork)
			if text := a.text(t); a.status != row.status || !strings.Contains(text, row.want) {
				t.Errorf("got %d %q", a.status, text)
			}
			if took := time.Since(began); took < deadline || took > 10*time.Second {
				t.Errorf("answered after %s", took)
			}
		})
	}
	close(goOn)
}

func TestArgumentsThatNeverArrive(t *testing.T) {
	r := serve(t, stubs(&counter{}), Options{Deadline: 50 * time.Millisecond})
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("POST /NetworkDriver.Join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"))
	buf := make([]byte, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := conn.Read(buf)
	if got := string(buf[:n]); err != nil || !strings.HasPrefix(got, "HTTP/1.1 408") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWorkGoesOnWhenDockerdHangsUp(t *testing.T) {
	entered, goOn, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	r := serve(t, []Route{callNoReply("/NetworkDriver.Join", func(ctx context.Context, _ *request) error {
		close(entered)
		<-goOn
		result <- ctx.Err()
		return nil
	})}, Options{})
	ctx, hangUp := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/NetworkDriver.Join", strings.NewReader(someNetwork))
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := r.client.Do(req)
		sent <- err
	}()
	<-entered
	hangUp()
	if err := <-sent; err == nil {
		t.Fatal("the call was answered: the test is wrong")
	}
	// The server notices a closed connection by a failing read, some time later.
	time.Sleep(50 * time.Millisecond)
	close(goOn)
	if err := <-result; err != nil {
		t.Errorf("the handler's context ended: %v", err)
	}
}

func TestEndWithACallUnderWay(t *testing.T) {
	entered, goOn := make(chan struct{}), make(chan struct{})
	r := serve(t, []Route{call("/NetworkDriver.Join", func(ctx context.Context, _ *request) (*response, error) {
		close(entered)
		<-goOn
		return &response{"drained"}, ctx.Err()
	})}, Options{})
	joined := make(chan answered, 1)
	go func() { joined <- r.post("/NetworkDriver.Join", someNetwork) }()
	<-entered
	r.stop()
	for { // dockerd must find no socket rather than a dead one
		if _, err := os.Lstat(r.path); errors.Is(err, fs.ErrNotExist) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if r.srv.Drained() {
		t.Error("drained with a call under way")
	}
	close(goOn)
	if a := <-joined; a.status != 200 || a.body != `{"Network":"drained"}` {
		t.Errorf("the call under way got %d %s", a.status, a.body)
	}
	r.finish()
	if !r.srv.Drained() {
		t.Error("not drained with all calls answered")
	}
	if _, err := os.Lstat(r.path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is still there")
	}
}

func TestEndWaitsForHandlersThatOverstayed(t *testing.T) {
	goOn, wrote := make(chan struct{}), make(chan struct{})
	r := serve(t, []Route{callNoReply("/NetworkDriver.Join", func(context.Context, *request) error {
		<-goOn
		close(wrote)
		return nil
	})}, Options{Deadline: 20 * time.Millisecond})
	if a := r.post("/NetworkDriver.Join", someNetwork); a.status != 504 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	r.stop()
	select {
	case err := <-r.ended:
		t.Fatalf("Serve returned while a handler was writing: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	r.finish()
	<-wrote
	if r.srv.Drained() {
		t.Error("drained, but a caller got another answer than the handler's")
	}
}

func TestListen(t *testing.T) {
	rows := []struct {
		name, want string
		prepare    func(t *testing.T, path string)
	}{
		{"nothing there", "", func(*testing.T, string) {}},
		{"stale socket", "", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}},
		{"live socket", "another process serves", func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}},
		{"regular file", "is not a socket", func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := socketPath(t)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			row.prepare(t, path)
			l, err := Listen(path)
			if err == nil {
				defer l.Close()
			}
			if (row.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestTwoRoutesOfOnePathPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it did not")
		}
	}()
	NewServer([]Route{activate()}, Options{})
}
