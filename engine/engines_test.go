package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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

const (
	web   = state.NetworkID("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	other = state.NetworkID("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
)

// What an engine says, with more than is read.
var (
	version  = `{"Platform":{"Name":""},"Version":"26.1.5","ApiVersion":"1.45","MinAPIVersion":"1.24"}`
	networks = fmt.Sprintf(`[
		{"Name":"web","Id":%q,"Driver":"drawbridge:latest","IPAM":{"Driver":"drawbridge","Options":null,"Config":[{"Subnet":"10.44.0.7/24","Gateway":"10.44.0.1"},{"Subnet":"fd00::/64"}]},"Containers":{}},
		{"Name":"host","Id":%q,"Driver":"host","IPAM":{"Driver":"default","Config":null},"Peers":[{"Name":1}]},
		{"Name":"sized","Id":"cc","Driver":"bridge","IPAM":{"Config":[{"Subnet":"0.0.0.0/26"},{"Subnet":"nonsense"}]}}]`, web, other)
	inspected = fmt.Sprintf(`{"Name":"web","Id":%q,"Containers":{
		"1111":{"Name":"one","EndpointID":"e1","MacAddress":"","IPv4Address":"10.44.0.2/24"},
		"ep-e2":{"Name":"two","EndpointID":"e2"},"ep-e3":{}}}`, web)
)

// api answers paths, and 404 elsewhere.
type api map[string]http.HandlerFunc

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// sound is an engine with nothing wrong about it.
func sound() api {
	return api{"/version": text(version), "/networks": text(networks), "/networks/" + string(web): text(inspected)}
}

// with is the engine with another answer to one path.
func (a api) with(path string, h http.HandlerFunc) api {
	a[path] = h
	return a
}

func (a api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h, ok := a[r.URL.Path]; ok && r.Method == http.MethodGet {
		h(w, r)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"message":"page not found"}`)
}

// serve returns the path of a socket that h answers on until the test ends.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return path
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "en")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "docker.sock")
}

func TestAsk(t *testing.T) {
	got, err := New([]string{serve(t, sound())}, "/proc").Ask(t.Context(), []state.NetworkID{web, "gone"})
	if err != nil {
		t.Fatal(err)
	}
	want := state.Known{
		Networks:  map[state.NetworkID]bool{web: true, other: true, "cc": true},
		Endpoints: map[state.EndpointID]bool{"e1": true, "e2": true, "e3": true},
		Inspected: map[state.NetworkID]bool{web: true, "gone": true},
		Subnets: map[netip.Prefix]bool{
			netip.MustParsePrefix("10.44.0.0/24"): true, netip.MustParsePrefix("fd00::/64"): true, netip.MustParsePrefix("0.0.0.0/26"): true,
		},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// TestAskAll: what one engine knows another need not, but each has to answer.
func TestAskAll(t *testing.T) {
	second := api{"/version": text(version), "/networks": text(`[{"Id":"dd","IPAM":{"Config":[]}}]`)}
	first, away := serve(t, sound()), filepath.Join(t.TempDir(), "away.sock")
	known, err := New([]string{first, serve(t, second)}, "/proc").Ask(t.Context(), []state.NetworkID{web})
	if err != nil || !known.Networks[web] || !known.Networks["dd"] || !known.Endpoints["e1"] {
		t.Errorf("error %v, known %+v", err, known)
	}
	for _, sockets := range [][]string{{first, away}, {away, first}} {
		if known, err := New(sockets, "/proc").Ask(t.Context(), nil); err == nil || len(known.Networks) > 0 || !strings.Contains(err.Error(), away) {
			t.Errorf("%v: error %v, known %+v", sockets, err, known)
		}
	}
}

// TestNoAnswer: whatever is not the whole answer is none.
func TestNoAnswer(t *testing.T) {
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = io.WriteString(w, body) }
	}
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(networks)))
		_, _ = io.WriteString(w, networks[:40])
	}
	late := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(networks)+1))
		_, _ = io.WriteString(w, networks)
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, networks[:40])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	huge := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"Id":"aa","Name":"`)
		for chunk := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	stalls := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, networks[:40])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	inspect := "/networks/" + string(web)
	rows := []struct {
		name, want string
		api        api
	}{
		{"starting", "503 Service Unavailable", sound().with("/version", status(503, ""))},
		{"some other server", "is no Docker engine", sound().with("/version", text(`{"name":"registry"}`))},
		{"no JSON", "cannot be read", sound().with("/version", text(`<html>`))},
		{"failing", "500 Internal Server Error: the disk is full", sound().with("/networks", status(500, `{"message":"the disk is full"}`))},
		{"an object", "cannot be read", sound().with("/networks", text(`{}`))},
		{"null", "is no list", sound().with("/networks", text(`null`))},
		{"nothing", "cannot be read", sound().with("/networks", text(``))},
		{"no id", "without id", sound().with("/networks", text(`[{"Name":"web"}]`))},
		{"two answers", "goes on behind its end", sound().with("/networks", text(`[]`+networks))},
		{"and then no JSON", "cannot be read", sound().with("/networks", text(networks+`<html>`))},
		{"ends too late", "unexpected EOF", sound().with("/networks", late)},
		{"cut short", "unexpected EOF", sound().with("/networks", cut)},
		{"shorter than said", "unexpected EOF", sound().with("/networks", short)},
		{"huge", "too large", sound().with("/networks", huge)},
		{"hanging", "does not answer in time", sound().with("/networks", hangs)},
		{"stalling", "does not answer in time", sound().with("/networks", stalls)},
		{"network gone meanwhile", "404 Not Found: network", sound().with(inspect, status(404, `{"message":"network gone not found"}`))},
		{"another network", "does not say which endpoints", sound().with(inspect, text(`{"Id":"bb","Containers":{}}`))},
		{"no endpoints told", "does not say which endpoints", sound().with(inspect, text(strings.Replace(inspected, "Containers", "Others", 1)))},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			patience := time.Minute
			if strings.Contains(row.want, "in time") {
				patience = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			path := serve(t, row.api)
			known, err := New([]string{path}, "/proc").Ask(ctx, []state.NetworkID{web})
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), path) || len(known.Networks) > 0 {
				t.Errorf("error %v, want %q; known %v", err, row.want, known.Networks)
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	path := socketPath(t)
	says := func(want string) {
		t.Helper()
		if _, err := New([]string{path}, "/proc").Ask(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	says("no such file or directory")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	says("connection refused")
}
