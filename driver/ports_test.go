package driver

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestPortList reads the engine's list and says what is asked of the host, in order.
func TestPortList(t *testing.T) {
	request := func(proto state.Proto, ip string, first, last, container uint16) state.PortRequest {
		r := state.PortRequest{Proto: proto, HostPort: first, HostPortEnd: last, ContainerPort: container}
		if ip != "" {
			r.HostIP = netip.MustParseAddr(ip)
		}
		return r
	}
	lan := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name, list string
		settings   Options
		want       []state.PortRequest
	}{
		{"null", `null`, Options{}, nil},
		{"empty", `[]`, Options{}, nil},
		{"-p 8080:80", `[` + tcp(80, 8080) + `]`, Options{}, []state.PortRequest{request(6, "", 8080, 8080, 80)}},
		{"-p 53:53/udp", `[` + bound(17, 53, "", 53, 53) + `]`, Options{}, []state.PortRequest{request(17, "", 53, 53, 53)}},
		{"-p 3868:3868/sctp", `[` + bound(132, 3868, "", 3868, 3868) + `]`, Options{}, []state.PortRequest{request(state.SCTP, "", 3868, 3868, 3868)}},
		{"-P", `[` + tcp(80, 0) + `]`, Options{}, []state.PortRequest{request(6, "", 0, 0, 80)}},
		{"range", `[` + bound(6, 80, "", 8080, 8089) + `]`, Options{}, []state.PortRequest{request(6, "", 8080, 8089, 80)}},
		{"no end", `[{"Proto":6,"Port":80,"HostPort":8080}]`, Options{}, []state.PortRequest{request(6, "", 8080, 8080, 80)}},
		{
			"addresses", `[` + bound(6, 80, "192.0.2.9", 1, 1) + `,` + bound(6, 80, "2001:db8::9", 1, 1) + `,` + bound(6, 80, "0.0.0.0", 2, 2) + `,` + bound(6, 80, "::", 2, 2) + `]`,
			Options{},
			[]state.PortRequest{request(6, "192.0.2.9", 1, 1, 80), request(6, "2001:db8::9", 1, 1, 80), request(6, "0.0.0.0", 2, 2, 80), request(6, "::", 2, 2, 80)},
		},
		{
			"exact, range, ephemeral", `[` + tcp(1, 0) + `,` + bound(6, 2, "", 10, 20) + `,` + tcp(3, 15) + `]`,
			Options{},
			[]state.PortRequest{request(6, "", 15, 15, 3), request(6, "", 10, 20, 2), request(6, "", 0, 0, 1)},
		},
		{
			"doubles", `[` + tcp(80, 8080) + `,` + tcp(81, 0) + `,` + tcp(80, 8080) + `,` + tcp(81, 0) + `]`,
			Options{},
			[]state.PortRequest{request(6, "", 8080, 8080, 80), request(6, "", 0, 0, 81), request(6, "", 0, 0, 81)},
		},
		{
			"--ip", `[` + tcp(80, 8080) + `,` + bound(6, 81, "192.0.2.9", 1, 1) + `]`,
			Options{HostIP: lan},
			[]state.PortRequest{request(6, "192.0.2.1", 8080, 8080, 80), request(6, "192.0.2.9", 1, 1, 81)},
		},
		{"--ip 0.0.0.0", `[` + tcp(80, 8080) + `]`, Options{HostIP: netip.IPv4Unspecified()}, []state.PortRequest{request(6, "", 8080, 8080, 80)}},
		{"--ip ::", `[` + tcp(80, 8080) + `]`, Options{HostIP: netip.IPv6Unspecified()}, []state.PortRequest{request(6, "::", 8080, 8080, 80)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			b.options = tt.settings
			b.ok(b.program(1, 1, tt.list))
			if d := cmp.Diff(tt.want, b.ports.requests, byValue, emptyIsNil); d != "" {
				t.Errorf("requests (-want +got):\n%s", d)
			}
			if got := len(b.endpoint(1).Ports); got != len(tt.want) {
				t.Errorf("%d ports are stored", got)
			}
		})
	}
}

var emptyIsNil = cmp.FilterValues(func(a, b []state.PortRequest) bool { return len(a)+len(b) == 0 }, cmp.Ignore())

// TestPortListOrder: Docker 29 sends the list in a random order.
func TestPortListOrder(t *testing.T) {
	list := []string{
		tcp(80, 8080), tcp(443, 8443), bound(17, 443, "", 8443, 8443), tcp(81, 0), tcp(82, 0),
		bound(6, 90, "", 9000, 9009), bound(6, 91, "", 9000, 9009), bound(6, 80, "127.0.0.1", 80, 80), bound(6, 80, "::1", 80, 80),
	}
	var first []state.Port
	for range 30 {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		b := furnished(t)
		b.ok(b.program(1, 1, "["+strings.Join(list, ",")+"]"))
		got := b.endpoint(1).Ports
		if first == nil {
			first = got
		}
		if d := cmp.Diff(first, got, byValue); d != "" {
			t.Fatalf("ports depend on the order of the list %v:\n%s", list, d)
		}
	}
}

func TestPortListRefused(t *testing.T) {
	tests := []struct{ name, list, want string }{
		{"another protocol", `[` + bound(47, 80, "", 8080, 8080) + `]`, "container port 80 cannot be published with protocol 47: tcp, udp and sctp are supported"},
		{"no protocol", `[{"Port":80,"HostPort":8080}]`, "cannot be published with protocol 0"},
		{"no container port", `[` + tcp(0, 8080) + `]`, "no container port"},
		{"null element", `[null]`, "cannot be published"},
		{"range ends before it begins", `[` + bound(6, 80, "", 9000, 8999) + `]`, "host port range 9000-8999 ends before it begins"},
		{"range from 0", `[` + bound(6, 80, "", 0, 10) + `]`, "must not begin at 0"},
		{"address a word", `[` + bound(6, 80, "localhost", 1, 1) + `]`, `host address "localhost" of port 80 is malformed`},
		{"address oversized", `[` + bound(6, 80, strings.Repeat("1", 100_000), 1, 1) + `]`, "is malformed"},
		{"address with a length", `[` + bound(6, 80, "192.0.2.1/24", 1, 1) + `]`, "is malformed"},
		{"address multicast", `[` + bound(6, 80, "224.0.0.1", 1, 1) + `]`, "cannot be a host address"},
		{"address mapped", `[` + bound(6, 80, "::ffff:192.0.2.1", 1, 1) + `]`, "cannot be a host address"},
		{"address with a zone", `[` + bound(6, 80, "fe80::1%eth0", 1, 1) + `]`, "cannot be a host address"},
		{"port beyond 65535", `[` + tcp(80, 65536) + `]`, "the port list is malformed"},
		{"port negative", `[` + tcp(-1, 80) + `]`, "the port list is malformed"},
		{"port a string", `[{"Proto":6,"Port":"80"}]`, "the port list is malformed"},
		{"port a fraction", `[{"Proto":6,"Port":80.5}]`, "the port list is malformed"},
		{"an object", `{}`, "the port list is malformed"},
		{"a string", `"8080:80"`, "the port list is malformed"},
		{"a number", `8080`, "the port list is malformed"},
		{"elements strings", `["8080:80"]`, "the port list is malformed"},
		{"good and bad", `[` + tcp(80, 9090) + `,` + bound(33, 80, "", 8080, 8080) + `]`, "cannot be published with protocol 33"},
	}
	b := furnished(t)
	before := b.everything()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, b.program(1, 1, tt.list), tt.want)
			b.same(before)
		})
	}
}

// TestProgramTwice: the second list replaces the first; if it cannot be had, the first stays.
func TestProgramTwice(t *testing.T) {
	const both = "0.0.0.0:8080/tcp [::]:8080/tcp"
	tests := []struct {
		name, second string
		fail         func(*bench)
		want         string // ports in the end
		closed       string // ports whose flows are cut
	}{
		{"same", `[` + tcp(80, 8080) + `]`, nil, "*:8080/tcp", ""},
		{"one more", `[` + tcp(80, 8080) + `,` + tcp(81, 8081) + `]`, nil, "*:8080/tcp *:8081/tcp", ""},
		{"another", `[` + tcp(80, 9090) + `]`, nil, "*:9090/tcp", both},
		{"same port to another place", `[` + tcp(81, 8080) + `]`, nil, "*:8080/tcp", both},
		{"only on IPv4", `[` + bound(6, 80, "0.0.0.0", 8080, 8080) + `]`, nil, "0.0.0.0:8080/tcp", "[::]:8080/tcp"},
		{"only on IPv6", `[` + bound(6, 80, "::", 8080, 8080) + `]`, nil, "[::]:8080/tcp", "0.0.0.0:8080/tcp"},
		{"both by name", `[` + bound(6, 80, "0.0.0.0", 8080, 8080) + `,` + bound(6, 80, "::", 8080, 8080) + `]`, nil, both, ""},
		{"none", `[]`, nil, "", both},
		{"no list", `null`, nil, "", both},
		{"taken", `[` + tcp(80, 9090) + `]`, func(b *bench) { b.ports.err = errHost }, "*:8080/tcp", ""},
		{"not possible", `[` + tcp(80, 9090) + `]`, func(b *bench) { b.loop.fail = []error{errHost} }, "*:8080/tcp", ""},
		{"nonsense", `[` + tcp(0, 9090) + `]`, func(*bench) {}, "*:8080/tcp", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			if tt.fail != nil {
				tt.fail(b)
			}
			err := b.program(1, 1, tt.second)
			if (err != nil) != (tt.fail != nil) {
				t.Errorf("error %v", err)
			}
			e := b.endpoint(1)
			if got := describe(e.Ports); got != tt.want {
				t.Errorf("published %q, want %q", got, tt.want)
			}
			if !e.Joined() {
				t.Error("the endpoint is not joined any more")
			}
			if addrs, closed := b.flows.forgotten(); len(addrs) > 0 || closed != tt.closed {
				t.Errorf("flows of %v and by ports %q are forgotten, want by %q", addrs, closed, tt.closed)
			}
			if err != nil {
				if got := describe(b.ports.all()[e.ID]); got != tt.want {
					t.Errorf("held %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// TestProgramForgetsFlows: senders that missed the port until now must reach it.
func TestProgramForgetsFlows(t *testing.T) {
	b := furnished(t)
	b.flows.ports = nil
	b.ok(b.program(1, 1, `[`+bound(17, 53, "", 5353, 5353)+`]`))
	want := []state.Port{{Proto: state.UDP, HostPort: 5353, ContainerPort: 53}}
	if d := cmp.Diff(want, b.flows.ports, byValue); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestIPv6Elsewhere programs twice, where another endpoint of the container has the IPv6
// gateway at one of the times or at both.
func TestIPv6Elsewhere(t *testing.T) {
	const option = "com.docker.network.driver.private.no_proxy_6to4"
	yes, no := `,"`+option+`":true`, `,"`+option+`":false`
	plain := tcp(80, 8080)
	mixed := strings.Join([]string{
		tcp(80, 8080), bound(17, 53, "0.0.0.0", 53, 53), bound(17, 53, "::", 53, 53),
		bound(6, 1, "192.0.2.9", 1, 1), bound(6, 2, "2001:db8::9", 2, 2), tcp(81, 0),
	}, ",")
	twice := tcp(80, 8080) + "," + bound(6, 80, "0.0.0.0", 8080, 8080)
	const all = "192.0.2.9:1/tcp [2001:db8::9]:2/tcp *:8080/tcp 0.0.0.0:53/udp [::]:53/udp *:32768/tcp"
	const half = "192.0.2.9:1/tcp 0.0.0.0:8080/tcp 0.0.0.0:53/udp 0.0.0.0:32768/tcp"
	tests := []struct {
		name, list    string
		hostIP        string
		first, second string // more options
		after1        string // ports
		after2        string
		closed        string // ports whose flows end by the second
	}{
		{"absent", plain, "", "", "", "*:8080/tcp", "*:8080/tcp", ""},
		{"false", plain, "", no, no, "*:8080/tcp", "*:8080/tcp", ""},
		{"null", plain, "", `,"` + option + `":null`, "", "*:8080/tcp", "*:8080/tcp", ""},
		{"true", plain, "", yes, yes, "0.0.0.0:8080/tcp", "0.0.0.0:8080/tcp", ""},
		{"IPv6 is given up", plain, "", "", yes, "*:8080/tcp", "0.0.0.0:8080/tcp", "[::]:8080/tcp"},
		{"IPv6 is given up, false before", plain, "", no, yes, "*:8080/tcp", "0.0.0.0:8080/tcp", "[::]:8080/tcp"},
		{"IPv6 comes back", plain, "", yes, "", "0.0.0.0:8080/tcp", "*:8080/tcp", ""},
		{"every sort, given up", mixed, "", no, yes, all, half, "[2001:db8::9]:2/tcp [::]:8080/tcp [::]:53/udp [::]:32768/tcp"},
		{"every sort, comes back", mixed, "", yes, no, half, all, ""},
		{"doubles in IPv4 are one", twice, "", yes, yes, "0.0.0.0:8080/tcp", "0.0.0.0:8080/tcp", ""},
		{"--ip", plain, "192.0.2.1", no, yes, "192.0.2.1:8080/tcp", "192.0.2.1:8080/tcp", ""},
		{"--ip of IPv6", plain, "2001:db8::1", no, yes, "[2001:db8::1]:8080/tcp", "", "[2001:db8::1]:8080/tcp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{}
			if tt.hostIP != "" {
				o.HostIP = netip.MustParseAddr(tt.hostIP)
			}
			b := newBench(t, o)
			b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
			b.createEndpoint(1, 1)
			b.join(1, 1)
			for i, options := range []string{tt.first, tt.second} {
				b.flows.forgotten()
				b.ok(b.program(1, 1, "["+tt.list+"]"+options))
				want := []string{tt.after1, tt.after2}[i]
				if got := describe(b.endpoint(1).Ports); got != want {
					t.Errorf("call %d publishes %q, want %q", i+1, got, want)
				}
			}
			if _, closed := b.flows.forgotten(); closed != tt.closed {
				t.Errorf("flows by ports %q are forgotten, want %q", closed, tt.closed)
			}
		})
	}
	b := furnished(t)
	before := b.everything()
	refused(t, b.program(1, 1, "["+plain+`],"`+option+`":"maybe"`), "option "+option+" must be true or false")
	b.same(before)
}

func TestInternalPublishesNothing(t *testing.T) {
	b := newBench(t, Options{})
	b.ok(b.CreateNetwork(b.ctx(), createNetwork(t, 1, `{"com.docker.network.internal": true}`, pool4(1), pool6(1))))
	b.createEndpoint(1, 1)
	b.join(1, 1)
	before := b.everything()
	b.ok(b.program(1, 1, `[`+tcp(80, 8080)+`,`+bound(132, 80, "", 1, 1)+`]`))
	b.same(before)
	refused(t, b.program(1, 9, `[`+tcp(80, 8080)+`]`), "has no endpoint")
	b.ok(b.revoke(1, 1))
	b.ok(b.deleteNetwork(1))
	b.empty()
}

// TestProgramOfRemoved: the network went while the ports were reserved.
func TestProgramOfRemoved(t *testing.T) {
	b := furnished(t)
	b.Driver.ports = removing{b.ports, b}
	err := b.ProgramExternalConnectivity(b.ctx(), programRequest(t, 1, 1, tcp(80, 9090)))
	refused(t, err, "endpoint "+id(1)[:12]+" was removed meanwhile")
	if len(b.store.Snapshot().Endpoints) > 0 {
		t.Error("the endpoint is back")
	}
}

type removing struct {
	*fakePorts
	b *bench
}

func (r removing) Reserve(ctx context.Context, e state.Endpoint, want []state.PortRequest) ([]state.Port, error) {
	ports, err := r.fakePorts.Reserve(ctx, e, want)
	r.b.ok(r.b.DeleteNetwork(ctx, &network.DeleteNetworkRequest{NetworkID: id(1)}))
	return ports, err
}
