package plugin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// paths are the calls that carry arguments, asks those that do not: the contract
// with dockerd, written down a second time on purpose.
var (
	paths = []string{
		"/NetworkDriver.GwAllocCheck", "/NetworkDriver.CreateNetwork", "/NetworkDriver.DeleteNetwork",
		"/NetworkDriver.CreateEndpoint", "/NetworkDriver.DeleteEndpoint", "/NetworkDriver.EndpointOperInfo",
		"/NetworkDriver.Join", "/NetworkDriver.Leave", "/NetworkDriver.ProgramExternalConnectivity",
		"/NetworkDriver.RevokeExternalConnectivity", "/NetworkDriver.AllocateNetwork", "/NetworkDriver.FreeNetwork",
		"/NetworkDriver.DiscoverNew", "/NetworkDriver.DiscoverDelete", "/IpamDriver.RequestPool",
		"/IpamDriver.ReleasePool", "/IpamDriver.RequestAddress", "/IpamDriver.ReleaseAddress",
	}
	asks = []string{"/NetworkDriver.GetCapabilities", "/IpamDriver.GetCapabilities", "/IpamDriver.GetDefaultAddressSpaces"}
)

func stubs(hits *counter) []Route {
	var routes []Route
	for _, p := range paths {
		routes = append(routes, echo(p, hits))
	}
	for _, p := range asks {
		routes = append(routes, ask(p, func(context.Context) (*response, error) {
			hits.add(p)
			return &response{"asked"}, nil
		}))
	}
	return routes
}

func TestEveryCallTwice(t *testing.T) {
	hits := &counter{}
	r := serve(t, stubs(hits), Options{})
	for _, p := range paths {
		for range 2 {
			a := r.post(p, someNetwork)
			want := answered{200, `{"Network":"abcdef0123456789abcdef"}`, nil}
			if a.status != want.status || a.body != want.body {
				t.Errorf("%s: got %d %s", p, a.status, a.body)
			}
			if got := a.header.Get("Content-Type"); got != "application/vnd.docker.plugins.v1.2+json" {
				t.Errorf("%s: content type %q", p, got)
			}
		}
		if n := hits.of(p); n != 2 {
			t.Errorf("%s: handler ran %d times, want 2", p, n)
		}
	}
	for _, p := range asks {
		for range 2 {
			if a := r.post(p, ""); a.status != 200 || a.body != `{"Network":"asked"}` {
				t.Errorf("%s: got %d %s", p, a.status, a.body)
			}
		}
	}
}

func TestBadArguments(t *testing.T) {
	rows := []struct {
		name, body, want string
		status           int
	}{
		{"empty", "", "came without its arguments", 400},
		{"white space", " \n\t", "came without its arguments", 400},
		{"cut short", someNetwork[:20], "malformed", 400},
		{"trailing garbage", someNetwork + "x", "malformed", 400},
		{"two objects", someNetwork + someNetwork, "malformed", 400},
		{"null", "null", "must be a JSON object", 400},
		{"a list", "[]", "must be a JSON object", 400},
		{"a string", `"abc"`, "must be a JSON object", 400},
		{"not JSON", "NetworkID=1", "must be a JSON object", 400},
		{"a field of another type", `{"NetworkID":7}`, "malformed", 400},
		{"nested beyond reason", `{"X":` + strings.Repeat("[", 100_000), "malformed", 400},
		{"just too large", `{"Extra":"` + strings.Repeat("x", defaultMaxBody) + `"}`, "larger than the 8388608 bytes", 413},
	}
	hits := &counter{}
	r := serve(t, stubs(hits), Options{})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			for _, p := range paths {
				a := r.post(p, row.body)
				if a.status != row.status {
					t.Errorf("%s: status %d, want %d", p, a.status, row.status)
				}
				text := a.text(t)
				if !strings.Contains(text, row.want) || !strings.Contains(text, p[1:]) {
					t.Errorf("%s: error %q does not name the call and say %q", p, text, row.want)
				}
				if n := hits.of(p); n != 0 {
					t.Fatalf("%s: the handler ran", p)
				}
			}
		})
	}
}

func TestLargestBodyPasses(t *testing.T) {
	r := serve(t, stubs(&counter{}), Options{MaxBody: 64})
	fits := func(n int) string { return `{"Extra":"` + strings.Repeat("x", n-12) + `"}` }
	if a := r.post("/NetworkDriver.Join", fits(64)); a.status != 200 {
		t.Errorf("a body of the largest size: %d %s", a.status, a.body)
	}
	if a := r.post("/NetworkDriver.Join", fits(65)); a.status != 413 {
		t.Errorf("one byte more: %d %s", a.status, a.body)
	}
}

// endless yields n bytes of JSON string without holding them.
func endless(n int64) io.Reader {
	return io.MultiReader(strings.NewReader(`{"Extra":"`), io.LimitReader(filler{}, n))
}

type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestHugeBodyIsNotRead(t *testing.T) {
	const huge = 100 << 20
	rows := []struct {
		name   string
		length int64 // announced; -1 sends it in chunks
	}{{"announced", huge + 10}, {"in chunks", -1}}
	hits := &counter{}
	r := serve(t, stubs(hits), Options{MaxBody: 1 << 20})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			before := allocated()
			for _, p := range append(paths, asks...) {
				if status, err := r.postRaw(p, endless(huge), row.length); err != nil || status != 413 {
					t.Errorf("%s: status %d, %v; want 413", p, status, err)
				}
				if hits.of(p) != 0 {
					t.Errorf("%s: the handler ran", p)
				}
			}
			// A read body would be doubled into place several times over.
			if got := allocated() - before; got > huge {
				t.Errorf("%d bytes were allocated on the way", got)
			}
		})
	}
	if a := r.post("/NetworkDriver.Join", someNetwork); a.status != 200 {
		t.Errorf("the next call: %d %s", a.status, a.body)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// postRaw sends a body on a connection of its own and reads the status while still sending,
// as dockerd's client does.
func (r *running) postRaw(path string, body io.Reader, length int64) (int, error) {
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	req, err := http.NewRequest(http.MethodPost, "http://x"+path, body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = length
	var sending sync.WaitGroup
	sending.Go(func() { _ = req.Write(conn) }) // fails once the server has had enough
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	_ = conn.Close()
	sending.Wait()
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

func TestBodyCutOffByTheConnection(t *testing.T) {
	hits := &counter{}
	r := serve(t, stubs(hits), Options{})
	for _, p := range paths {
		conn, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n%s", p, someNetwork)
		_ = conn.(*net.UnixConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = conn.Close()
		a := answered{status: resp.StatusCode, body: string(b)}
		if text := a.text(t); a.status != 400 || !strings.Contains(text, "cut off") {
			t.Errorf("%s: %d %s", p, a.status, text)
		}
		if hits.of(p) != 0 {
			t.Errorf("%s: the handler ran", p)
		}
	}
}

func TestConcurrentCalls(t *testing.T) {
	hits := &counter{}
	r := serve(t, stubs(hits), Options{})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			id := fmt.Sprintf("network%d", i)
			a, err := r.send(http.MethodPost, paths[i%len(paths)], strings.NewReader(`{"NetworkID":"`+id+`"}`))
			if want := `{"Network":"` + id + `"}`; err != nil || a.body != want {
				t.Errorf("got %q, %v; want %q", a.body, err, want)
			}
		})
	}
	all.Wait()
}

func TestWhatIsNotACall(t *testing.T) {
	rows := []struct {
		name, method, path, want string
		status                   int
	}{
		{"unknown call", "POST", "/NetworkDriver.Dance", "does not know the call /NetworkDriver.Dance", 404},
		{"unknown API", "POST", "/VolumeDriver.List", "does not know the call", 404},
		{"root", "POST", "/", "does not know the call", 404},
		{"a path that needs cleaning", "POST", "//NetworkDriver.Join", "does not know the call", 404},
		{"a slash too many", "POST", "/NetworkDriver.Join/", "does not know the call", 404},
		{"GET", "GET", "/NetworkDriver.Join", "must be sent with POST, not GET", 405},
		{"PUT", "PUT", "/Plugin.Activate", "must be sent with POST, not PUT", 405},
	}
	r := serve(t, stubs(&counter{}), Options{})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a, err := r.send(row.method, row.path, strings.NewReader(someNetwork))
			if err != nil {
				t.Fatal(err)
			}
			if text := a.text(t); a.status != row.status || !strings.Contains(text, row.want) {
				t.Errorf("got %d %q", a.status, text)
			}
		})
	}
}

func TestErrorsOfHandlers(t *testing.T) {
	rows := []struct {
		name string
		err  error
		want string
	}{
		{"plain", errors.New("port 80 is taken"), "port 80 is taken"},
		{"joined", errors.Join(errors.New("one"), errors.New("two")), "one; two"},
		{"with a quote and mark-up", errors.New(`bridge "<br>" & co`), `bridge "<br>" & co`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var routes []Route
			for _, p := range paths {
				routes = append(routes, callNoReply(p, func(context.Context, *request) error { return row.err }))
			}
			for _, p := range asks {
				routes = append(routes, ask(p, func(context.Context) (*response, error) { return nil, row.err }))
			}
			r := serve(t, routes, Options{})
			for _, p := range append(paths, asks...) {
				a := r.post(p, someNetwork)
				if diff := cmp.Diff(row.want, a.text(t)); a.status != 500 || diff != "" {
					t.Errorf("%s: status %d, %s", p, a.status, diff)
				}
			}
		})
	}
}

func TestSuccessWithoutAnswer(t *testing.T) {
	r := serve(t, []Route{
		callNoReply("/NetworkDriver.Leave", func(context.Context, *request) error { return nil }),
		call("/NetworkDriver.Join", func(context.Context, *request) (*response, error) { return nil, nil }),
		ask("/IpamDriver.GetCapabilities", func(context.Context) (*response, error) { return nil, nil }),
	}, Options{})
	for _, p := range []string{"/NetworkDriver.Leave", "/NetworkDriver.Join", "/IpamDriver.GetCapabilities"} {
		if a := r.post(p, someNetwork); a.status != 200 || a.body != "{}" {
			t.Errorf("%s: got %d %q, want 200 {}", p, a.status, a.body)
		}
	}
}

func TestAnswerThatCannotBeEncoded(t *testing.T) {
	type bad struct{ C chan int }
	r := serve(t, []Route{ask("/IpamDriver.GetCapabilities", func(context.Context) (*bad, error) { return &bad{}, nil })}, Options{})
	a := r.post("/IpamDriver.GetCapabilities", "")
	if text := a.text(t); a.status != 500 || !strings.Contains(text, "encoding the answer") {
		t.Errorf("got %d %q", a.status, text)
	}
}
