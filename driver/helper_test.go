package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a driver with a real store and everything else faked.
type bench struct {
	*Driver
	t     testing.TB
	store *store.Store
	loop  *fakeLoop
	ports *fakePorts
	host  *fakeHost
	flows *fakeFlows
}

func newBench(t testing.TB, o Options) *bench {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	ports := newFakePorts()
	b := &bench{
		t: t, store: s, loop: &fakeLoop{store: s, ports: ports}, ports: ports,
		host: &fakeHost{boot: "boot-1"}, flows: &fakeFlows{},
	}
	b.Driver = New(s, b.loop, b.ports, b.host, b.flows, o)
	return b
}

// furnished is a bench with network 1 and its joined endpoint 1, which publishes 8080.
func furnished(t testing.TB) *bench {
	t.Helper()
	b := newBench(t, Options{IPForward: true})
	b.ok(b.Restore(b.ctx()))
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	b.createEndpoint(1, 1)
	b.join(1, 1)
	b.ok(b.program(1, 1, `[`+tcp(80, 8080)+`]`))
	b.flows.addrs = nil // those of the new endpoint
	return b
}

func (b *bench) ctx() context.Context { return b.t.Context() }

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) createEndpoint(n, e int) *network.CreateEndpointResponse {
	b.t.Helper()
	r, err := b.CreateEndpoint(b.ctx(), newEndpoint(b.t, n, e))
	b.ok(err)
	return r
}

func (b *bench) join(n, e int) *network.JoinResponse {
	b.t.Helper()
	r, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(n), EndpointID: id(e), SandboxKey: sandbox(e)})
	b.ok(err)
	return r
}

// program sends a port list as the engine writes it; further options may follow it.
func (b *bench) program(n, e int, ports string) error {
	return b.ProgramExternalConnectivity(b.ctx(), parse[network.ProgramExternalConnectivityRequest](b.t, `{
		"NetworkID": "`+id(n)+`", "EndpointID": "`+id(e)+`",
		"Options": {"com.docker.network.endpoint.exposedports": [{"Proto":6,"Port":80}], "com.docker.network.portmap": `+ports+`}}`))
}

func (b *bench) revoke(n, e int) error {
	return b.RevokeExternalConnectivity(b.ctx(), &network.RevokeExternalConnectivityRequest{NetworkID: id(n), EndpointID: id(e)})
}

func (b *bench) leave(n, e int) error {
	return b.Leave(b.ctx(), &network.LeaveRequest{NetworkID: id(n), EndpointID: id(e)})
}

func (b *bench) deleteEndpoint(n, e int) error {
	return b.DeleteEndpoint(b.ctx(), &network.DeleteEndpointRequest{NetworkID: id(n), EndpointID: id(e)})
}

func (b *bench) deleteNetwork(n int) error {
	return b.DeleteNetwork(b.ctx(), &network.DeleteNetworkRequest{NetworkID: id(n)})
}

// everything is all that a call may change, but for the revision, and the ports whose connections are to be ended: those of a port that was
// open for a moment, too.
type everything struct {
	State state.Snapshot
	Held  map[state.EndpointID][]state.Port
}

func (b *bench) everything() everything {
	s := b.store.Snapshot()
	s.Revision, s.Endpoints = 0, slices.Clone(s.Endpoints)
	for i := range s.Endpoints {
		s.Endpoints[i].Closed = nil
	}
	return everything{s, b.ports.all()}
}

func (b *bench) same(before everything) {
	b.t.Helper()
	if d := cmp.Diff(before, b.everything(), byValue); d != "" {
		b.t.Errorf("state or ports differ (-before +after):\n%s", d)
	}
}

// empty fails the test if anything is left.
func (b *bench) empty() {
	b.t.Helper()
	forwarding := b.store.Snapshot().Forwarding // outlives the networks
	b.same(everything{State: state.Snapshot{Forwarding: forwarding}, Held: map[state.EndpointID][]state.Port{}})
	b.locks.mu.Lock()
	defer b.locks.mu.Unlock()
	if len(b.locks.held) > 0 {
		b.t.Errorf("%d locks are left", len(b.locks.held))
	}
}

func (b *bench) endpoint(e int) state.Endpoint {
	got, _ := b.store.Snapshot().Endpoint(state.EndpointID(id(e)))
	return got
}

func (b *bench) network(n int) (state.Network, bool) {
	return b.store.Snapshot().Network(state.NetworkID(id(n)))
}

// byValue compares addresses by what they say, and no slice with an empty one as equal.
var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.FilterValues(func(a, b []state.Port) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
}

// id is an engine's id. The number comes first because link names are made from there.
func id(i int) string { return fmt.Sprintf("%011x%053x", i, 0xd0c) }

func sandbox(e int) string { return "/var/run/docker/netns/" + id(e)[:12] }

func parse[T any](t testing.TB, body string) *T {
	t.Helper()
	out := new(T)
	if err := json.Unmarshal([]byte(body), out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return out
}

// newNetwork is the engine's request for dual-stack network n.
func newNetwork(t testing.TB, n int) *network.CreateNetworkRequest {
	t.Helper()
	return createNetwork(t, n, `{"com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}}`, pool4(n), pool6(n))
}

func createNetwork(t testing.TB, n int, options, v4, v6 string) *network.CreateNetworkRequest {
	t.Helper()
	return parse[network.CreateNetworkRequest](t, `{"NetworkID": "`+id(n)+`", "Options": `+options+`, "IPv4Data": `+v4+`, "IPv6Data": `+v6+`}`)
}

// generic wraps the user's options as the engine does.
func generic(options string) string {
	return `{"com.docker.network.enable_ipv6": false, "com.docker.network.generic": ` + options + `}`
}

func pool(prefix, gateway string) string {
	return `[{"AddressSpace": "drawbridge", "Pool": "` + prefix + `", "Gateway": "` + gateway + `"}]`
}

func pool4(n int) string { return pool(fmt.Sprintf("10.%d.0.0/24", n), fmt.Sprintf("10.%d.0.1/24", n)) }

func pool6(n int) string {
	return pool(fmt.Sprintf("fd00:%x::/64", n), fmt.Sprintf("fd00:%x::1/64", n))
}

// newEndpoint is the engine's request for endpoint e of dual-stack network n.
func newEndpoint(t testing.TB, n, e int) *network.CreateEndpointRequest {
	t.Helper()
	return createEndpoint(t, n, e, fmt.Sprintf("10.%d.0.%d/24", n, e+1), fmt.Sprintf("fd00:%x::%x/64", n, e+1), "")
}

func createEndpoint(t testing.TB, n, e int, v4, v6, mac string) *network.CreateEndpointRequest {
	t.Helper()
	return parse[network.CreateEndpointRequest](t, `{
		"NetworkID": "`+id(n)+`", "EndpointID": "`+id(e)+`",
		"Interface": {"Address": "`+v4+`", "AddressIPv6": "`+v6+`", "MacAddress": "`+mac+`"},
		"Options": {"com.docker.network.portmap": [`+tcp(80, 8080)+`], "com.docker.network.endpoint.exposedports": []}}`)
}

// tcp is one element of the engine's port list.
func tcp(container, host int) string { return bound(6, container, "", host, host) }

func bound(proto, container int, ip string, first, last int) string {
	return fmt.Sprintf(`{"Proto":%d,"IP":"","Port":%d,"HostIP":%q,"HostPort":%d,"HostPortEnd":%d}`, proto, container, ip, first, last)
}

// refused fails the test unless err is one sentence that contains want.
func refused(t testing.TB, err error, want string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("no error, want %q", want)
	case !strings.Contains(err.Error(), want):
		t.Errorf("error %q, want %q", err, want)
	case strings.Contains(err.Error(), "\n") || len(err.Error()) > 300:
		t.Errorf("error is not one sentence: %q", err)
	}
}
