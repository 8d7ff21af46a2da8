package relay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/state"
)

// post sends a body to a relay and returns the code and text of the answer.
func post(t *testing.T, path, where string, body io.Reader) (int, string) {
	t.Helper()
	transport := unixsocket.Transport(path)
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Post("http://relay"+where, "application/json", body)
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(t, err)
	return answer.StatusCode, string(text)
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, bytes.Repeat([]byte(" "), len(b))), nil }

// TestRefused: what is no call of a daemon's is answered with an error, changes nothing, and ends nothing.
func TestRefused(t *testing.T) {
	path := socketPath(t)
	r := serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	port := tcp(free(t))
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	ours := func(u update) string { return text(stateCall{Session: c.session, Name: "x", update: u}) }
	twice := snapshot(endpoint("a")).Endpoints[0]
	for _, row := range []struct {
		name, path string
		body       io.Reader
		code       int
		words      string
	}{
		{"no such path", "/v1/nothing", strings.NewReader("{}"), 404, "is not asked for"},
		{"nothing", statePath, strings.NewReader(""), 500, "malformed"},
		{"no JSON", statePath, strings.NewReader("hello"), 500, "malformed"},
		{"two values", statePath, strings.NewReader("{}{}"), 500, "something behind it"},
		{"cut short", statePath, strings.NewReader(ours(all(snapshot(endpoint("a"))))[:20]), 500, "malformed"},
		{"another type", statePath, strings.NewReader(`{"session":7}`), 500, "malformed"},
		{"huge", statePath, endless{}, 400, "too large"},
		{"no session", sessionPath, strings.NewReader("{}"), 500, "needs a name"},
		{"of another session", statePath, strings.NewReader(text(stateCall{Session: "x"})), 409, "does not know"},
		{"release of another session", releasePath, strings.NewReader(text(releaseCall{Session: "x"})), 409, "does not know"},
		{"a state that builds on another one", statePath, strings.NewReader(ours(update{Base: "other"})), 409, "does not know"},
		{"an id that is none", statePath, strings.NewReader(ours(update{Endpoints: []state.Endpoint{{ID: "../x"}}})), 500, "id"},
		{"a network's id that is none", statePath, strings.NewReader(ours(update{Networks: []state.Network{{ID: "x y"}}})), 500, "id"},
		{"an endpoint twice", statePath, strings.NewReader(ours(update{Endpoints: []state.Endpoint{twice, twice}})), 500, "named twice"},
		{"ports for an id that is none", reservePath, strings.NewReader(text(reserveCall{Session: c.session})), 500, "id"},
		{"a protocol that is none", reservePath, strings.NewReader(strings.Replace(text(reserveCall{Session: c.session, Endpoint: endpoint("a", port)}), `"tcp"`, `"icmp"`, 1)), 500, "is not tcp"},
	} {
		t.Run(row.name, func(t *testing.T) {
			code, answer := post(t, path, row.path, row.body)
			if code != row.code || !strings.Contains(answer, row.words) {
				t.Errorf("%d %s", code, answer)
			}
		})
	}
	if found, err := c.Inspect(t.Context(), snapshot(endpoint("a", port))); err != nil || len(found) > 0 || r.hello().Sockets != 1 {
		t.Errorf("something was changed: %v %v", found, err)
	}
}

// TestConnectionBreaks: a call whose sender goes away in the middle is none.
func TestConnectionBreaks(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	port := tcp(free(t))
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	body := text(stateCall{Session: c.session, Name: "x"})
	for cut := range len(body) {
		conn, err := net.Dial("unix", path)
		must(t, err)
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: relay\r\nContent-Length: %d\r\n\r\n%s", statePath, len(body), body[:cut])
		must(t, err, conn.Close())
	}
	must(t, c.Follow(t.Context(), state.Compare(snapshot(), snapshot(endpoint("a", port)))))
	if !taken(port) {
		t.Error("a call that was cut short closed a port")
	}
}

// TestAnotherDaemon: what an earlier one had reserved and not committed is given up, and what its state has goes on.
func TestAnotherDaemon(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	first := New(Options{Socket: path})
	published, reserved := tcp(free(t)), tcp(free(t))
	s := snapshot(endpoint("a", published))
	must(t, first.Apply(t.Context(), s))
	_, err := first.Reserve(t.Context(), endpoint("b"), []state.PortRequest{request(reserved)})
	must(t, err)
	must(t, first.Apply(t.Context(), s))
	must(t, first.Close())
	if !taken(published) || !taken(reserved) {
		t.Fatal("a port went with the daemon")
	}
	second := client(t, path, Options{})
	must(t, second.Apply(t.Context(), s))
	if !taken(published) || taken(reserved) {
		t.Errorf("held are the published port: %v, and the one that was reserved: %v", taken(published), taken(reserved))
	}
	// One and the same daemon keeps what it has reserved, though its connection broke.
	_, err = second.Reserve(t.Context(), endpoint("b"), []state.PortRequest{request(reserved)})
	must(t, err)
	second.drop()
	must(t, second.Apply(t.Context(), s))
	if !taken(reserved) {
		t.Error("a reservation went with the connection")
	}
}

// TestOtherSettings: sockets are made anew.
func TestOtherSettings(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	port := tcp(free(t))
	s := snapshot(endpoint("a", port))
	for _, settings := range []Settings{{}, {NoProxy: true}, {ServeAll: true}} {
		c := New(Options{Socket: path, Settings: settings})
		must(t, c.Apply(t.Context(), s))
		if taken(port) == settings.NoProxy {
			t.Errorf("%+v: a client is taken: %v", settings, taken(port))
		}
		must(t, c.Close())
	}
}

// TestSameSettings: who says what another daemon has left out finds all as it was, connections too.
func TestSameSettings(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	port := tcp(free(t))
	port.ContainerPort = echo(t)
	s := snapshot(endpoint("a", port))
	var conn net.Conn
	for i, settings := range []Settings{{}, {Proc: "/proc"}, {}} {
		c := New(Options{Socket: path, Settings: settings})
		must(t, c.Apply(t.Context(), s))
		if i == 0 {
			conn = dial(t, port)
		}
		if err := say(conn); err != nil {
			t.Errorf("%+v: %v", settings, err)
		}
		must(t, c.Close())
	}
}

// TestIdle: a relay ends when it has held nothing for a while, and not before.
func TestIdle(t *testing.T) {
	path := socketPath(t)
	const idle = 500 * time.Millisecond // within which the daemon below has come, on a busy machine too
	r := serve(t, path, ServerOptions{Idle: idle})
	port := tcp(free(t))
	c := client(t, path, Options{})
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	select {
	case <-r.left:
		t.Fatal("it ends with a port")
	case <-time.After(2 * idle):
	}
	must(t, c.Apply(t.Context(), snapshot()))
	select {
	case <-r.left:
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end")
	}
	r.stop()
	// Nobody misses it, and nobody is started to be told that there is nothing.
	must(t, c.Apply(t.Context(), snapshot()))
	if _, runs, err := c.Hello(t.Context()); runs || err != nil {
		t.Errorf("%v %v", runs, err)
	}
}

// TestPanics: a fault in a call is its answer.
func TestPanics(t *testing.T) {
	r := NewServer(ServerOptions{})
	r.ports.Store(nil)
	code, answer := r.answer(t.Context(), "POST "+sessionPath, []byte(`{"session":"x"}`))
	if code != http.StatusInternalServerError || !strings.Contains(text(answer), "a fault in drawbridge's relay") {
		t.Errorf("%d %+v", code, answer)
	}
}
