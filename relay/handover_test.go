package relay

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/publish"
	"github.com/drawbridge-net/drawbridge/state"
)

// pairOf returns both ends of a hand-over's line.
func pairOf(t *testing.T) (*net.UnixConn, *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	line, err := lineOf(os.NewFile(uintptr(pair[0]), "heir"))
	must(t, err)
	t.Cleanup(func() { line.Close() })
	return line, os.NewFile(uintptr(pair[1]), "elder")
}

// succeed has a relay of this process take over from another one, which drains from then on. ended gets its end.
func (r *running) succeed(t *testing.T) (heir *running) {
	t.Helper()
	line, theirs := pairOf(t)
	heir = &running{}
	took := make(chan error)
	var listener net.Listener
	go func() {
		var err error
		heir.Server, listener, err = TakeOver(theirs, ServerOptions{})
		took <- err
	}()
	r.turn.Lock()
	must(t, r.handOver(line), <-took)
	r.ports.Load().Retire()
	r.heir, r.over = line, true
	r.leave.Do(func() { close(r.left) })
	r.turn.Unlock()
	heir.run(t, listener)
	return heir
}

// echo serves the container's address: 127.0.0.77.
func echo(t *testing.T) (container uint16) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.77:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func dial(t *testing.T, p state.Port) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", netip.AddrPortFrom(p.HostIP, p.HostPort).String())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	_, err := bufio.NewReader(c).ReadString('\n')
	return err
}

// cut waits until the connection is, which another process may do.
func cut(c net.Conn) error {
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(time.Millisecond) {
		switch err := say(c); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.New("it hangs")
		case err != nil:
			return nil
		}
	}
	return errors.New("it goes on")
}

// TestHandOver: connections go on through two hand-overs, whoever comes in between is served, and those of a port that is not published
// any more are cut, also by the first relay.
func TestHandOver(t *testing.T) {
	path := socketPath(t)
	first := serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	container := echo(t)
	var ports []state.Port
	for range 3 {
		p := tcp(free(t))
		p.ContainerPort = container
		ports = append(ports, p)
	}
	reserved := tcp(free(t))
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", ports...))))
	_, err := c.Reserve(t.Context(), endpoint("b"), []state.PortRequest{request(reserved)})
	must(t, err)
	conns := make([]net.Conn, 3)
	for i, p := range ports {
		conns[i] = dial(t, p)
		must(t, say(conns[i]))
	}
	second := first.succeed(t)
	for _, conn := range conns {
		must(t, say(conn))
	}
	late := dial(t, ports[1])
	must(t, say(late))
	third := second.succeed(t)
	for _, conn := range append(conns, late) {
		must(t, say(conn))
	}
	// The daemon that was the first one's goes on with the third as if nothing had been.
	s := snapshot(endpoint("a", ports[:1]...), endpoint("b"))
	must(t, c.Apply(t.Context(), s))
	if hello, runs, err := c.Hello(t.Context()); !runs || err != nil || hello.Instance != third.instance || hello.Sockets != 2 {
		t.Errorf("asked is %+v %v", hello, err)
	}
	for i, conn := range append(conns[1:], late) {
		if err := cut(conn); err != nil {
			t.Errorf("connection %d by a port that is not published any more: %v", i, err)
		}
	}
	must(t, say(conns[0]))
	if !taken(reserved) {
		t.Error("what was reserved is not held")
	}
	if !first.runs() || !second.runs() {
		t.Error("a relay ended under its connections, or under those of the one before it")
	}
	conns[0].Close()
	for i, r := range []*running{first, second} {
		select {
		case <-r.done:
		case <-time.After(5 * time.Second):
			t.Errorf("relay %d does not end with its last connection, and those of the one before it", i)
		}
	}
}

// TestHeirEnds: the connections of a relay that was replaced end with the one in its place.
func TestHeirEnds(t *testing.T) {
	path := socketPath(t)
	first := serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	port := tcp(free(t))
	port.ContainerPort = echo(t)
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	conn := dial(t, port)
	must(t, say(conn))
	second := first.succeed(t)
	must(t, say(conn))
	second.stop()
	must(t, cut(conn))
	first.stop()
}

// TestManySockets: more than a message has room for.
func TestManySockets(t *testing.T) {
	path := socketPath(t)
	first := serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	s := snapshot()
	for _, letter := range []string{"a", "b", "c", "d", "e"} {
		e := endpoint(letter)
		one := state.PortRequest{Proto: state.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80}
		ports, err := c.Reserve(t.Context(), e, slices.Repeat([]state.PortRequest{one}, 50))
		must(t, err)
		e.Ports = ports
		s.Endpoints = append(s.Endpoints, e)
	}
	must(t, c.Apply(t.Context(), s))
	before := first.hello().Sockets
	second := first.succeed(t)
	if held := second.hello().Sockets; held != before || held < 2*batch {
		t.Errorf("%d sockets of %d are handed over", held, before)
	}
	if found, err := c.Inspect(t.Context(), s); err != nil || len(found) > 0 {
		t.Errorf("%v %v", found, err)
	}
	first.stop()
}

// TestHandOverFails: whatever an heir does that is none, the relay goes on.
func TestHandOverFails(t *testing.T) {
	path := socketPath(t)
	first := serve(t, path, ServerOptions{})
	c := client(t, path, Options{})
	port := tcp(free(t))
	port.ContainerPort = echo(t)
	must(t, c.Apply(t.Context(), snapshot(endpoint("a", port))))
	for name, act := range map[string]func(*net.UnixConn){
		"ends at once":      func(*net.UnixConn) {},
		"says another word": func(l *net.UnixConn) { _ = send(l, []byte("no"), nil) },
	} {
		line, theirs := pairOf(t)
		heir, err := lineOf(theirs)
		must(t, err)
		act(heir)
		must(t, heir.Close())
		first.turn.Lock()
		if err := first.handOver(line); err == nil {
			t.Errorf("%s: no error", name)
		}
		first.turn.Unlock()
		must(t, say(dial(t, port)))
	}
}

// TestTakeOverFails: what is no hand-over is an error, and leaves no file open.
func TestTakeOverFails(t *testing.T) {
	before := openFiles(t)
	for name, act := range map[string]func(*net.UnixConn){
		"nothing":      func(*net.UnixConn) {},
		"another word": func(l *net.UnixConn) { must(t, send(l, []byte("hello"), nil)) },
		"no files":     func(l *net.UnixConn) { must(t, send(l, []byte(stateWord), nil)) },
		"files of another kind": func(l *net.UnixConn) {
			a, err := document(inheritance{})
			must(t, err)
			b, err := document(inheritance{})
			must(t, err, send(l, []byte(stateWord), []*os.File{a, b}), a.Close(), b.Close())
		},
	} {
		line, theirs := pairOf(t)
		act(line)
		must(t, line.Close())
		if _, _, err := TakeOver(theirs, ServerOptions{}); err == nil || !strings.Contains(err.Error(), "taking published ports over") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for file, n := range openFiles(t) {
		if n > before[file] {
			t.Errorf("%d of %s are open, before %d", n, file, before[file])
		}
	}
}

// openFiles counts the process's open files by what they are. Those of tests before may be closed at any moment.
func openFiles(t *testing.T) map[string]int {
	t.Helper()
	const folder = "/proc/self/fd"
	entries, err := os.ReadDir(folder)
	must(t, err)
	files := map[string]int{}
	for _, e := range entries {
		if file, err := os.Readlink(filepath.Join(folder, e.Name())); err == nil {
			files[file]++
		}
	}
	return files
}

// FuzzCall: whatever is asked is answered, and the sockets are those of a state that was applied.
func FuzzCall(f *testing.F) {
	paths := []string{sessionPath, reservePath, releasePath, statePath, inspectPath}
	// Requests that bind nothing: fuzzing must not take the machine's ports.
	e := endpoint("a", state.Port{Proto: state.TCP, ContainerPort: 80})
	for i, call := range []any{
		sessionCall{Session: "s"},
		reserveCall{Session: "s", Endpoint: e},
		releaseCall{Session: "s", Endpoint: e.ID, Keep: e.Ports},
		stateCall{Session: "s", Name: "n", update: all(snapshot(e))},
		inspectCall{Session: "s", update: update{Base: "n"}},
	} {
		f.Add(i, []byte(text(call)))
	}
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		s := NewServer(ServerOptions{})
		defer func() { _ = s.ports.Load().Close() }()
		s.session = "s"
		var call struct {
			Endpoints []state.Endpoint
			Want      []state.PortRequest
		}
		_ = json.Unmarshal(body, &call)
		if len(call.Want) > 0 || publishes(state.Snapshot{Endpoints: call.Endpoints}) {
			return
		}
		path := paths[(i%len(paths)+len(paths))%len(paths)]
		code, answer := s.answer(t.Context(), "POST "+path, body)
		if code != 200 && len(answer.Failures) == 0 || strings.Contains(text(answer), "a fault in") {
			t.Errorf("%s %q: %d %+v", path, body, code, answer)
		}
	})
}

// FuzzHeld: whatever says of sockets what they are is taken or refused.
func FuzzHeld(f *testing.F) {
	var at publish.Place
	if err := at.UnmarshalText([]byte("127.0.0.1:8080/tcp")); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text([]publish.Held{{At: at, Endpoint: endpoint("a").ID, Port: tcp(8080), Target: netip.MustParseAddrPort("127.0.0.77:80")}})))
	f.Add([]byte(text([]publish.Held{{At: at, Session: &publish.Session{Client: netip.MustParseAddrPort("[::1]:7")}}})))
	f.Add([]byte(text([]publish.Held{{At: at, NoFile: true}, {At: at, NoFile: true}})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var held []publish.Held
		if decode(raw, &held) != nil {
			return
		}
		p := publish.New(publish.Options{})
		for _, h := range held {
			file, err := os.Open(os.DevNull)
			must(t, err)
			_ = p.Take(h, file)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}
