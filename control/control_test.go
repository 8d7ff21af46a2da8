package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var sample = snapshot(
	endpoint("epaaaaaaaaaa0000", web, "10.0.0.2/24", "fd00::2/64", state.Port{Proto: state.TCP, HostPort: 8080, ContainerPort: 80}),
)

// answers are sources that know everything.
func answers() Sources {
	return Sources{
		Status: func(context.Context) (Status, error) {
			s := Count(sample)
			s.Version, s.Backend, s.Applied = "1.2.3", "nftables", 7
			s.Since = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
			return s, nil
		},
		Snapshot:   func() state.Snapshot { return sample },
		Publishing: func() Publishing { return byFlag },
		Rules:      func(context.Context) (string, error) { return "table inet drawbridge {\n}\n", nil },
		Verify: func(context.Context) ([]Difference, error) {
			return []Difference{{Part: "links", Network: web.ID, Text: "link br-web is down"}}, nil
		},
		Orphans: func(context.Context) ([]Orphan, error) { return []Orphan{forgotten}, nil },
		Collect: func(context.Context) ([]Orphan, error) {
			gone := forgotten
			gone.Removed = true
			return []Orphan{gone}, nil
		},
	}
}

var forgotten = Orphan{
	Kind: "network", ID: "netaaaaaaaaa0000", What: "bridge br-web", Why: "no engine lists it",
	Since: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Seen: true,
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "drawbridge", "control.sock")
}

// serve answers from s until the test ends, or stop is called.
func serve(t *testing.T, s Sources) (path string, stop func()) {
	t.Helper()
	path = socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(s).Serve(ctx, l); close(ended) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return path, stop
}

func TestClientAndServer(t *testing.T) {
	path, _ := serve(t, answers())
	c := Dial(path)
	for range 2 {
		status, err := c.Status(t.Context())
		want, _ := answers().Status(t.Context())
		if diff := cmp.Diff(want, status); err != nil || diff != "" {
			t.Errorf("status: %v %s", err, diff)
		}
		ports, err := c.Ports(t.Context())
		if diff := cmp.Diff(Ports(sample, byFlag), ports, cmpNetip); err != nil || diff != "" {
			t.Errorf("ports: %v %s", err, diff)
		}
		text, err := c.Rules(t.Context())
		if err != nil || text != "table inet drawbridge {\n}\n" {
			t.Errorf("rules: %v %q", err, text)
		}
		found, err := c.Verify(t.Context())
		if err != nil || len(found) != 1 || found[0] != (Difference{Part: "links", Network: web.ID, Text: "link br-web is down"}) {
			t.Errorf("verify: %v %v", err, found)
		}
		listed, err := c.Orphans(t.Context())
		if diff := cmp.Diff([]Orphan{forgotten}, listed); err != nil || diff != "" {
			t.Errorf("orphans: %v %s", err, diff)
		}
		collected, err := c.Collect(t.Context())
		if err != nil || len(collected) != 1 || !collected[0].Removed {
			t.Errorf("collected: %v %v", err, collected)
		}
	}
}

// ask returns what the server sends, as monitoring would see it.
func ask(t *testing.T, path, method, what string) (int, string) {
	t.Helper()
	c := Dial(path)
	req, err := http.NewRequest(method, "http://localhost"+what, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func TestWire(t *testing.T) {
	empty := Sources{
		Status:   func(context.Context) (Status, error) { return Status{}, nil },
		Snapshot: func() state.Snapshot { return state.Snapshot{} },
		Rules:    func(context.Context) (string, error) { return "", nil },
		Verify:   func(context.Context) ([]Difference, error) { return nil, nil },
		Orphans:  func(context.Context) ([]Orphan, error) { return nil, nil },
	}
	failing := Sources{
		Status:   func(context.Context) (Status, error) { return Status{}, errors.New("the state is not loaded yet") },
		Snapshot: func() state.Snapshot { panic("out of thin air") },
		Rules:    func(context.Context) (string, error) { return "", errors.New("no backend yet") },
		Verify:   func(context.Context) ([]Difference, error) { return nil, errors.New("not looked at in time") },
		Collect:  func(context.Context) ([]Orphan, error) { return nil, errors.New("the engine cannot be asked") },
	}
	rows := []struct {
		name         string
		sources      Sources
		method, path string
		status       int
		body         string
	}{
		{"status", answers(), "GET", "/v1/status", 200, `{"version":"1.2.3","since":"2026-03-04T05:06:07Z","backend":"nftables",` +
			`"revision":7,"applied":7,"networks":2,"endpoints":1,"ports":2,"pools":0,"notes":[],"errors":[]}`},
		{"empty status", empty, "GET", "/v1/status", 200, `{"version":"","since":"0001-01-01T00:00:00Z","backend":"",` +
			`"revision":0,"applied":0,"networks":0,"endpoints":0,"ports":0,"pools":0,"notes":[],"errors":[]}`},
		{"no ports", empty, "GET", "/v1/ports", 200, `[]`},
		{"no rules", empty, "GET", "/v1/rules", 200, `{"text":""}`},
		{"nothing forgotten", empty, "GET", "/v1/gc", 200, `[]`},
		{"forgotten", answers(), "GET", "/v1/gc", 200, `[{"kind":"network","id":"netaaaaaaaaa0000","what":"bridge br-web","why":"no engine lists it",` +
			`"since":"2026-03-04T05:06:07Z","seen":true,"removed":false}]`},
		{"removed", answers(), "POST", "/v1/gc", 200, `[{"kind":"network","id":"netaaaaaaaaa0000","what":"bridge br-web","why":"no engine lists it",` +
			`"since":"2026-03-04T05:06:07Z","seen":true,"removed":true}]`},
		{"failing collection", failing, "POST", "/v1/gc", 500, `{"error":"the engine cannot be asked"}`},
		{"PUT", empty, "PUT", "/v1/gc", 405, `{"error":"/v1/gc is to be asked with GET, or changed with POST"}`},
		{"failing status", failing, "GET", "/v1/status", 500, `{"error":"the state is not loaded yet"}`},
		{"panic", failing, "GET", "/v1/ports", 500, `{"error":"drawbridge failed to answer (out of thin air): this is a bug"}`},
		{"verify", answers(), "GET", "/v1/verify", 200, `[{"part":"links","network":"` + string(web.ID) + `","text":"link br-web is down"}]`},
		{"nothing to mend", empty, "GET", "/v1/verify", 200, `[]`},
		{"failing verify", failing, "GET", "/v1/verify", 500, `{"error":"not looked at in time"}`},
		{"failing rules", failing, "GET", "/v1/rules", 500, `{"error":"no backend yet"}`},
		{"unknown", empty, "GET", "/v2/ports", 404, `{"error":"there is no \"/v2/ports\" here: ask for /v1/status, /v1/ports, /v1/rules, /v1/verify or /v1/gc"}`},
		{"a slash too many", empty, "GET", "/v1/ports/", 404, `{"error":"there is no \"/v1/ports/\" here: ask for /v1/status, /v1/ports, /v1/rules, /v1/verify or /v1/gc"}`},
		{"POST", empty, "POST", "/v1/ports", 405, `{"error":"/v1/ports is to be asked with GET: nothing can be changed there"}`},
		{"DELETE", empty, "DELETE", "/v1/status", 405, `{"error":"/v1/status is to be asked with GET: nothing can be changed there"}`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path, _ := serve(t, row.sources)
			status, body := ask(t, path, row.method, row.path)
			if diff := cmp.Diff(row.body, body); status != row.status || diff != "" {
				t.Errorf("status %d, want %d; %s", status, row.status, diff)
			}
		})
	}
}

func TestSocketIsPrivateAndGoesAway(t *testing.T) {
	path, stop := serve(t, answers())
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("a second daemon: %v", err)
	}
	stop()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is still there")
	}
}

func TestDaemonUnreachable(t *testing.T) {
	stale := func(t *testing.T, path string) {
		l := listenPlain(t, path)
		l.SetUnlinkOnClose(false)
		_ = l.Close()
	}
	mute := func(t *testing.T, path string) {
		l := listenPlain(t, path)
		t.Cleanup(func() { _ = l.Close() })
	}
	hangsUp := func(t *testing.T, path string) {
		l := listenPlain(t, path)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
	}
	rows := []struct {
		name, want string
		make       func(t *testing.T, path string)
	}{
		{"no socket", "is `drawbridge serve` running? (no such file or directory)", func(*testing.T, string) {}},
		{"stale socket", "is `drawbridge serve` running? (connection refused)", stale},
		{"accepts and says nothing", "did not answer in time", mute},
		{"hangs up", "is `drawbridge serve` running?", hangsUp},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := socketPath(t)
			row.make(t, path)
			patience := time.Minute
			if strings.Contains(row.want, "in time") {
				patience = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := Dial(path).Status(ctx)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func listenPlain(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.UnixListener)
}

func TestClientErrorsThatAreNotUnreachable(t *testing.T) {
	reply := func(status int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	rows := []struct {
		name    string
		handler http.Handler
		want    string
	}{
		{"a sentence of the daemon's", reply(500, `{"error":"the state is not loaded yet"}`), "the state is not loaded yet"},
		{"an error without sentence", reply(503, `oops`), "answered /v1/ports with 503 Service Unavailable"},
		{"an error with an empty sentence", reply(500, `{}`), "answered /v1/ports with 500"},
		{"not JSON", reply(200, `<html>`), "is malformed"},
		{"a protocol that does not exist", reply(200, `[{"protocol":"dccp"}]`), "is malformed"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			path := socketPath(t)
			srv := &http.Server{Handler: row.handler}
			l := listenPlain(t, path)
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.Serve(l) }()
			defer func() { _ = srv.Close(); <-done }()
			_, err := Dial(path).Ports(t.Context())
			if err == nil || errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestClientCancelled(t *testing.T) {
	path, _ := serve(t, answers())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(path).Rules(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestNewerDaemonsAddFields(t *testing.T) {
	path := socketPath(t)
	l := listenPlain(t, path)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"version":"9","weather":"fine"}`)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-done }()
	if s, err := Dial(path).Status(t.Context()); err != nil || s.Version != "9" {
		t.Errorf("got %v, %v", s, err)
	}
}

func TestHealthy(t *testing.T) {
	rows := []struct {
		name   string
		status Status
		want   bool
	}{
		{"applied", Status{Revision: 3, Applied: 3}, true},
		{"fresh", Status{}, true},
		{"a change that needs no pass", Status{Revision: 3, Applied: 2}, true},
		{"applied with errors", Status{Revision: 3, Applied: 3, Errors: []string{"x"}}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := row.status.Healthy(); got != row.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestWritePorts(t *testing.T) {
	rows := []struct {
		name  string
		ports []Port
		want  string
	}{
		{"none", nil, "no ports are published\n"},
		{"both families", append(Ports(sample, byFlag),
			Port{addr("192.0.2.1"), 53, state.UDP, addr("10.0.0.3"), 5353, "host", "drawbridge.publish of the network", "192.0.2.0/24,192.0.3.0/24,192.0.4.0/24,192.0.5.0/24,2001:db8::/32", "eth0:wg0", "epbbbbbbbbbb0000", web.ID, "br-a-longer-one"},
			Port{addr("::"), 53, state.UDP, addr("fd00::3"), 5353, "host", "drawbridge.publish of the network", "192.0.2.0/24,2001:db8::/32", "", "epbbbbbbbbbb0000", web.ID, "br-web"},
			Port{addr("::"), 54, state.UDP, addr("fd00::3"), 5353, "dnat", "drawbridge.publish of the network", "192.0.2.0/24", "", "epbbbbbbbbbb0000", web.ID, "br-web"},
			Port{addr("::1"), 55, state.UDP, addr("fd00::3"), 5353, "localhost", "a loopback address", "", "", "epbbbbbbbbbb0000", web.ID, "br-web"}), `
HOST               CONTAINER        MODE        FROM                                                BY         ENDPOINT       NETWORK        BRIDGE            WHY
0.0.0.0:8080/tcp   10.0.0.2:80      dnat        all                                                 all        epaaaaaaaaaa   netaaaaaaaaa   br-web            --publish
[::]:8080/tcp      [fd00::2]:80     dnat        all                                                 all        epaaaaaaaaaa   netaaaaaaaaa   br-web            --publish
192.0.2.1:53/udp   10.0.0.3:5353    host        192.0.2.0/24,192.0.3.0/24,192.0.4.0/24 and 1 more   eth0:wg0   epbbbbbbbbbb   netaaaaaaaaa   br-a-longer-one   drawbridge.publish of the network
[::]:53/udp        [fd00::3]:5353   host        2001:db8::/32                                       all        epbbbbbbbbbb   netaaaaaaaaa   br-web            drawbridge.publish of the network
[::]:54/udp        [fd00::3]:5353   dnat        nobody                                              all        epbbbbbbbbbb   netaaaaaaaaa   br-web            drawbridge.publish of the network
[::1]:55/udp       [fd00::3]:5353   localhost   nobody                                              -          epbbbbbbbbbb   netaaaaaaaaa   br-web            a loopback address
`[1:]},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WritePorts(&b, row.ports); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteStatus(t *testing.T) {
	full := Status{
		Version: "1.2.3", Since: time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("X", 3600)), Backend: "iptables",
		Revision: 42, Applied: 41, Networks: 2, Endpoints: 3, Ports: 4, Pools: 5,
		Relay:  &Relay{PID: 4711, Version: "1.2.2", Sockets: 12, Connections: 3},
		Notes:  []string{"network 0123: as it\nhappens"},
		Errors: []string{"bridge br-web is in the zone public", "two\nlines\tand a tab"},
	}
	rows := []struct {
		name   string
		status Status
		want   string
	}{
		{"behind, with errors", full, `
version            1.2.3
running since      2026-03-04 04:06:07 UTC
firewall backend   iptables
state              revision 42, applied up to 41
networks           2
endpoints          3
published ports    4
address pools      5
relay              process 4711, version 1.2.2, 12 sockets, 3 connections
note               network 0123: as it happens
error              bridge br-web is in the zone public
error              two lines and a tab
`[1:]},
		{"nothing known", Status{}, `
version            -
running since      -
firewall backend   -
state              revision 0, applied
networks           0
endpoints          0
published ports    0
address pools      0
relay              -
`[1:]},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteStatus(&b, row.status); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWriteVerify(t *testing.T) {
	var b bytes.Buffer
	found := []Difference{
		{Part: "links", Network: web.ID, Endpoint: "epaaaaaaaaaa0000", Text: "link x\nis down"},
		{Part: "firewall", Text: "set DRAWBRIDGE-ports4 is missing"},
	}
	want := `
PART       NETWORK        ENDPOINT       DIFFERENCE
links      netaaaaaaaaa   epaaaaaaaaaa   link x is down
firewall   -              -              set DRAWBRIDGE-ports4 is missing
`[1:]
	if err := WriteVerify(&b, found); err != nil || b.String() != want {
		t.Errorf("%v: %s", err, cmp.Diff(want, b.String()))
	}
	b.Reset()
	if err := WriteVerify(&b, nil); err != nil || b.String() != "the host is as the state wants it\n" {
		t.Errorf("%v: %q", err, b.String())
	}
}

// fullDisk is a disk without room.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestWriteErrorsAreReturned(t *testing.T) {
	if err := WritePorts(fullDisk{}, nil); err == nil {
		t.Error("no ports: no error")
	}
	if err := WritePorts(fullDisk{}, Ports(sample, byFlag)); err == nil {
		t.Error("ports: no error")
	}
	if err := WriteVerify(fullDisk{}, []Difference{{}}); err == nil {
		t.Error("verify: no error")
	}
	if err := WriteStatus(fullDisk{}, Status{}); err == nil {
		t.Error("status: no error")
	}
}

func TestWriteOrphans(t *testing.T) {
	with := func(change func(*Orphan)) Orphan {
		o := forgotten
		change(&o)
		return o
	}
	rows := []struct {
		name string
		list []Orphan
		want string
	}{
		{"none", nil, "Docker has forgotten nothing\n"},
		{"all kinds", []Orphan{
			{Kind: "endpoint", ID: "epaaaaaaaaaa0000", What: "10.0.0.2, port\n8080/tcp", Why: "its network does not have it", Seen: true},
			with(func(o *Orphan) { o.Removed = true }),
			with(func(o *Orphan) { o.Error = "the host\nsaid no" }),
			{Kind: "pool", ID: "drawbridge/10.1.0.0/24", What: "subnet 10.1.0.0/24", Why: "no network of an engine has it", Since: forgotten.Since},
		}, `
endpoint epaaaaaaaaaa (10.0.0.2, port 8080/tcp): its network does not have it, since -
network netaaaaaaaaa (bridge br-web): no engine lists it, since 2026-03-04 05:06:07 UTC: removed
network netaaaaaaaaa (bridge br-web): no engine lists it, since 2026-03-04 05:06:07 UTC: not removed: the host said no
pool drawbridge/10.1.0.0/24 (subnet 10.1.0.0/24): no network of an engine has it, since 2026-03-04 05:06:07 UTC; no engine was seen to know it, so that it does not go by itself
`[1:]},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteOrphans(&b, row.list); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRefused: a daemon without a state says so to all questions but that for its status.
func TestRefused(t *testing.T) {
	sources := answers()
	sources.Refused = func() error { return errors.New("the file is damaged") }
	path, stop := serve(t, sources)
	defer stop()
	c := Dial(path)
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	_, ports := c.Ports(t.Context())
	_, rules := c.Rules(t.Context())
	_, verify := c.Verify(t.Context())
	for _, err := range []error{ports, rules, verify} {
		if err == nil || err.Error() != "the file is damaged" || errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
	}
}
