package relay

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/test/transcript"
)

// TestPorts: the way of a port from the request to its end, and what is told of it.
func TestPorts(t *testing.T) {
	path := socketPath(t)
	relays := make(chan *running, 1)
	c := client(t, path, Options{Start: starter(t, path, relays)})
	port, e := tcp(free(t)), endpoint("a")

	must(t, c.Apply(t.Context(), snapshot(e)))
	if _, runs, err := c.Hello(t.Context()); runs || err != nil {
		t.Errorf("a relay runs without a port: %v", err)
	}
	found, err := c.Inspect(t.Context(), snapshot(endpoint("a", port)))
	if err != nil || len(found) != 1 || !strings.HasSuffix(found[0].Text, "is not held") || found[0].Scope.Endpoint != e.ID {
		t.Errorf("without a relay: %v %v", found, err)
	}
	if len(relays) > 0 {
		t.Fatal("a relay was started for nothing")
	}

	ports, err := c.Reserve(t.Context(), e, []state.PortRequest{request(port)})
	if err != nil || !slices.Equal(ports, []state.Port{port}) {
		t.Fatalf("reserved: %v %v", ports, err)
	}
	if hello, runs, err := c.Hello(t.Context()); !runs || err != nil || hello.Sockets != 1 || !taken(port) {
		t.Errorf("reserved: %+v %v", hello, err)
	}
	s := snapshot(endpoint("a", port))
	must(t, c.Apply(t.Context(), s))
	if found, err := c.Inspect(t.Context(), s); err != nil || len(found) > 0 {
		t.Errorf("applied: %v %v", found, err)
	}
	other := tcp(free(t))
	if found, err := c.Inspect(t.Context(), snapshot(endpoint("a", port, other))); err != nil || len(found) != 1 {
		t.Errorf("of another state: %v %v", found, err)
	}
	must(t, c.Follow(t.Context(), state.Compare(s, snapshot(e))))
	if taken(port) {
		t.Error("the port is held though nobody publishes it")
	}
	_, err = c.Reserve(t.Context(), e, []state.PortRequest{request(other)})
	must(t, err)
	c.Release(e.ID, nil)
	if taken(other) {
		t.Error("the port is held though it was given back")
	}
	(<-relays).stop()
	if _, runs, err := c.Hello(t.Context()); runs || err != nil {
		t.Errorf("a relay that nobody needs has ended: %v %v", runs, err)
	}
}

// TestErrorsKeepTheirKind: who looks for the kind of an error finds it, and its words are those of package publish.
func TestErrorsKeepTheirKind(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	port := tcp(l.Addr().(*net.TCPAddr).AddrPort().Port())
	e := endpoint("a", port)
	_, err = c.Reserve(t.Context(), endpoint("a"), []state.PortRequest{request(port)})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "is already in use by relay.test (pid ") {
		t.Errorf("reserved: %v", err)
	}
	err = c.Apply(t.Context(), snapshot(e, endpoint("b", tcp(free(t)))))
	of, ok := errors.AsType[*state.ObjectError](err)
	if !ok || of.Endpoint != e.ID || of.Network != e.Network || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("applied: %#v", err)
	}
	if s := (state.Scope{Network: e.Network, Endpoint: endpoint("b").ID}); s.Select(err) != nil {
		t.Errorf("others are concerned: %v", s.Select(err))
	}
	if _, err := c.Reserve(t.Context(), endpoint("c"), []state.PortRequest{{Proto: state.TCP}}); err == nil || errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "no container port") {
		t.Errorf("a bad request: %v", err)
	}
}

// TestOnlyChangesAreSent: a state is sent once, however often it is applied, and then what differs.
func TestOnlyChangesAreSent(t *testing.T) {
	r := serve(t, socketPath(t), ServerOptions{})
	c := client(t, r.recorded(t), Options{})
	a, b := endpoint("a", tcp(free(t))), endpoint("b", tcp(free(t)))
	first, second, third := snapshot(a), snapshot(a, b), snapshot(b)
	sent := func(what string, base bool, endpoints, gone int, whole bool) {
		t.Helper()
		bodies := r.asked(statePath)
		if len(bodies) != 1 {
			t.Fatalf("%s: %d states are sent", what, len(bodies))
		}
		var call stateCall
		must(t, json.Unmarshal([]byte(bodies[0]), &call))
		if (call.Base != "") != base || len(call.Endpoints) != endpoints || len(call.GoneEndpoints) != gone || call.Whole != whole {
			t.Errorf("%s: sent is %s", what, bodies[0])
		}
	}
	must(t, c.Apply(t.Context(), first))
	sent("first", false, 1, 0, true)
	must(t, c.Apply(t.Context(), first))
	sent("again", true, 0, 0, true)
	must(t, c.Follow(t.Context(), state.Compare(first, second)))
	sent("one more", true, 1, 0, false)
	must(t, c.Follow(t.Context(), state.Compare(second, third)))
	sent("one less", true, 0, 1, false)
	if taken(a.Ports[0]) || !taken(b.Ports[0]) {
		t.Error("the sockets are not those of the last state")
	}
	must(t, c.Follow(t.Context(), state.Compare(third, third)))
	if bodies := r.asked(statePath); len(bodies) > 0 {
		t.Errorf("for no change is sent: %s", bodies)
	}
	// Another daemon has told it something else meanwhile.
	other := client(t, r.recorded(t), Options{})
	must(t, other.Apply(t.Context(), second))
	r.asked(statePath)
	must(t, c.Follow(t.Context(), state.Compare(third, first)))
	if bodies := r.asked(statePath); len(bodies) != 2 || strings.Contains(bodies[1], `"base"`) {
		t.Errorf("behind another daemon is sent: %s", bodies)
	}
	if !taken(a.Ports[0]) || taken(b.Ports[0]) {
		t.Error("behind another daemon the sockets are not those of the state")
	}
}

// TestModesAreResolved: what crosses says for itself what is meant.
func TestModesAreResolved(t *testing.T) {
	r := serve(t, socketPath(t), ServerOptions{})
	mode := state.PublishDNAT
	c := client(t, r.recorded(t), Options{Mode: func(x state.Exposure) state.Publish {
		if x.Publish == state.PublishAuto {
			return mode
		}
		return x.Publish
	}})
	s := snapshot(endpoint("a", tcp(free(t))), endpoint("b"))
	s.Networks[0].Exposure = state.Exposure{Publish: state.PublishAuto, From: "192.0.2.0/24"}
	for _, mode = range []state.Publish{state.PublishDNAT, state.PublishHost} {
		must(t, c.Apply(t.Context(), s))
		var call stateCall
		must(t, json.Unmarshal([]byte(r.asked(statePath)[0]), &call))
		if len(call.Endpoints) == 0 || call.Endpoints[0].Exposure != (state.Exposure{Publish: mode, From: "192.0.2.0/24"}) {
			t.Errorf("%s: sent is %+v", mode, call.Endpoints)
		}
	}
	if s.Endpoints[0].Exposure != (state.Exposure{}) {
		t.Error("the daemon's state was changed")
	}
}

// TestRelayEnds: whoever watches hears of it, and the next call has all ports back.
func TestRelayEnds(t *testing.T) {
	path := socketPath(t)
	relays := make(chan *running, 1)
	var log transcript.Text
	c := client(t, path, Options{Start: starter(t, path, relays), Log: log.Logger(), Level: slog.LevelInfo})
	heard := make(chan string, 1)
	hears := func() {
		t.Helper()
		select {
		case reason := <-heard:
			if !strings.Contains(reason, "ended") {
				t.Error(reason)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nobody is told that the relay ended")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error)
	go func() { watched <- c.Watch(ctx, func(reason string) { heard <- reason }) }()
	published := tcp(free(t))
	s := snapshot(endpoint("a", published))
	must(t, c.Apply(t.Context(), s))
	for _, call := range []func() error{
		func() error { return c.Apply(t.Context(), s) },
		func() error { return c.Follow(t.Context(), state.Compare(snapshot(), s)) },
		func() error {
			_, err := c.Reserve(t.Context(), endpoint("b"), []state.PortRequest{request(tcp(free(t)))})
			return err
		},
	} {
		(<-relays).stop()
		if taken(published) {
			t.Fatal("it is served without a relay")
		}
		hears()
		must(t, call())
		if !taken(published) {
			t.Error("the port is not back")
		}
	}
	// A conflict with what the state has is seen by a relay that was started for the call.
	(<-relays).stop()
	hears()
	if _, err := c.Reserve(t.Context(), endpoint("c"), []state.PortRequest{request(published)}); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "already published by endpoint aaaa") {
		t.Errorf("a port of another endpoint: %v", err)
	}
	cancel()
	must(t, <-watched)
	if n := strings.Count(log.String(), "ended: another one is started"); n != 4 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
}

// TestLogIsHeard: what the relay logs is in the daemon's log, with level and attributes.
func TestLogIsHeard(t *testing.T) {
	path := socketPath(t)
	var here, there transcript.Text
	r := serve(t, path, ServerOptions{Log: there.Logger().Handler()})
	r.log.Warn("alone", "port", "a")
	c := client(t, path, Options{Log: here.Logger(), Level: slog.LevelInfo})
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", tcp(free(t))))))
	r.log.With("endpoint", "e").Warn("together", "port", "b")
	r.log.Debug("too much")
	for began := time.Now(); !strings.Contains(here.String(), "level=WARN msg=together endpoint=e port=b"); time.Sleep(time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatalf("heard is:\n%s", here.String())
		}
	}
	if strings.Contains(here.String(), "too much") || strings.Contains(here.String(), "alone") || !strings.Contains(there.String(), "alone") || strings.Contains(there.String(), "together") {
		t.Errorf("the daemon's log:\n%s\nthe relay's:\n%s", here.String(), there.String())
	}
}

// TestHangs: a relay that does not answer is named, and holds up nobody longer than the call may take.
func TestHangs(t *testing.T) {
	path := socketPath(t)
	l, err := unixsocket.Listen(path)
	must(t, err)
	defer l.Close()
	c := client(t, path, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = c.Apply(ctx, snapshot(endpoint("a", tcp(free(t)))))
	if took := time.Since(began); took > callTime/2 || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "drawbridge relay) does not answer") || strings.Contains(err.Error(), "\n") {
		t.Errorf("after %v: %v", took, err)
	}
	_, err = c.Reserve(ctx, endpoint("a"), make([]state.PortRequest, manyPorts))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "10000 ports were not open in time") {
		t.Errorf("10,000 ports: %v", err)
	}
}

// TestStopsInTheMiddle: a relay that answers at first, and is stopped before the call that lasts is answered, costs no more than the bound.
func TestStopsInTheMiddle(t *testing.T) {
	path := socketPath(t)
	l, err := unixsocket.Listen(path)
	must(t, err)
	stopped := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case helloPath:
			_ = json.NewEncoder(w).Encode(Hello{Protocol: protocol, Version: version.String(), Instance: "x"})
		case watchPath:
			<-stopped
		default:
			_ = json.NewEncoder(w).Encode(reply{})
		}
	})}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	defer close(stopped)
	c := client(t, path, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Apply(ctx, snapshot(endpoint("a", tcp(free(t))))) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "drawbridge relay) does not answer") {
			t.Errorf("%v", err)
		}
	case <-time.After(callTime / 2):
		t.Errorf("it waits for %v already", callTime/2)
	}
}

// TestReleaseWaitsForNobody: while a call is under way, which may be to a relay that hangs, a release returns at once. It is carried out
// when that call has ended.
func TestReleaseWaitsForNobody(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() { watched <- c.Watch(ctx, func(string) {}) }()
	e, p := endpoint("a"), tcp(free(t))
	_, err := c.Reserve(t.Context(), e, []state.PortRequest{request(p)})
	must(t, err)
	c.turn <- struct{}{}
	began := time.Now()
	c.Release(e.ID, nil)
	if took := time.Since(began); took > briefTime/2 || !taken(p) {
		t.Errorf("it took %v; the port is held: %v", took, taken(p))
	}
	<-c.turn
	for began := time.Now(); taken(p); time.Sleep(time.Millisecond) {
		if time.Since(began) > callTime/2 {
			t.Fatal("the port is held still")
		}
	}
	cancel()
	must(t, <-watched)
}

// TestNoRelay: one that cannot be started is an error in a sentence.
func TestNoRelay(t *testing.T) {
	path := socketPath(t)
	ended := make(chan error, 1)
	ended <- errors.New("exit status 1")
	c := client(t, path, Options{Start: func() (<-chan error, error) { return ended, nil }})
	_, err := c.Reserve(t.Context(), endpoint("a"), []state.PortRequest{request(tcp(free(t)))})
	if err == nil || !strings.Contains(err.Error(), "ended at its start: `drawbridge relay --relay-socket "+path+"` says why (exit status 1)") {
		t.Errorf("%v", err)
	}
	c = client(t, path, Options{Start: func() (<-chan error, error) { return nil, errors.New("no memory") }})
	if err := c.Apply(t.Context(), snapshot(endpoint("a", tcp(free(t))))); err == nil || !strings.Contains(err.Error(), "starting the relay of published ports: no memory") {
		t.Errorf("%v", err)
	}
}

// TestLostAnswer: what a call reserved whose answer nobody got is given back with the next call, and what the endpoint has stays.
func TestLostAnswer(t *testing.T) {
	path := socketPath(t)
	serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	has, lost := tcp(free(t)), tcp(free(t))
	e := endpoint("a", has)
	s := snapshot(e)
	must(t, c.Apply(t.Context(), s))
	_, err := c.Reserve(t.Context(), e, []state.PortRequest{request(has), request(lost)})
	must(t, err)
	c.owe(e.ID, []state.Port{has}) // as if it had been lost
	must(t, c.Apply(t.Context(), s))
	if taken(lost) || !taken(has) {
		t.Errorf("held are what was lost: %v, and what the state has: %v", taken(lost), taken(has))
	}
}

// TestEnd: it ends, and gives all back before that is said.
func TestEnd(t *testing.T) {
	path := socketPath(t)
	if ended, err := End(t.Context(), path); ended || err != nil {
		t.Errorf("without a relay: %v %v", ended, err)
	}
	serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	port := state.Port{Proto: state.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: free(t), ContainerPort: 80}
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	if ended, err := End(t.Context(), path); !ended || err != nil || taken(port) {
		t.Errorf("%v %v, still taken: %v", ended, err, taken(port))
	}
}
