package driver

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/network"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// steps are calls by short names; the first number is the network, the second the endpoint.
var steps = map[string]func(b *bench, n, e int) error{
	"network":  func(b *bench, n, _ int) error { return b.CreateNetwork(b.ctx(), newNetwork(b.t, n)) },
	"endpoint": func(b *bench, n, e int) error { b.createEndpoint(n, e); return nil },
	"join":     func(b *bench, n, e int) error { b.join(n, e); return nil },
	"program":  func(b *bench, n, e int) error { return b.program(n, e, "["+tcp(80, 8080)+"]") },
	"other":    func(b *bench, n, e int) error { return b.program(n, e, "["+tcp(80, 9090)+","+tcp(81, 0)+"]") },
	"taken": func(b *bench, n, e int) error {
		b.ports.err = errHost
		defer func() { b.ports.err = nil }()
		if err := b.program(n, e, "["+tcp(80, 7)+"]"); err == nil {
			return fmt.Errorf("a port that is in use was published")
		}
		return nil
	},
	"badjoin": func(b *bench, n, e int) error {
		if _, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(n), EndpointID: id(e)}); err == nil {
			return fmt.Errorf("an endpoint joined no sandbox")
		}
		return nil
	},
	"info": func(b *bench, n, e int) error {
		_, err := b.EndpointInfo(b.ctx(), &network.InfoRequest{NetworkID: id(n), EndpointID: id(e)})
		return err
	},
	"revoke":    func(b *bench, n, e int) error { return b.revoke(n, e) },
	"leave":     func(b *bench, n, e int) error { return b.leave(n, e) },
	"rmend":     func(b *bench, n, e int) error { return b.deleteEndpoint(n, e) },
	"rmnetwork": func(b *bench, n, _ int) error { return b.deleteNetwork(n) },

	// For several endpoints of one container, see families_test.go.
	"net4": func(b *bench, n, _ int) error {
		return b.CreateNetwork(b.ctx(), createNetwork(b.t, n, `{"com.docker.network.generic": {}}`, pool4(n), `[]`))
	},
	"net6": func(b *bench, n, _ int) error {
		return b.CreateNetwork(b.ctx(), createNetwork(b.t, n,
			`{"com.docker.network.enable_ipv4": false, "com.docker.network.enable_ipv6": true, "com.docker.network.generic": {}}`, `[]`, pool6(n)))
	},
	"end4": func(b *bench, n, e int) error {
		_, err := b.CreateEndpoint(b.ctx(), createEndpoint(b.t, n, e, fmt.Sprintf("10.%d.0.%d/24", n, e+1), "", ""))
		return err
	},
	"end6": func(b *bench, n, e int) error {
		_, err := b.CreateEndpoint(b.ctx(), createEndpoint(b.t, n, e, "", fmt.Sprintf("fd00:%x::%x/64", n, e+1), ""))
		return err
	},
	"enter": func(b *bench, n, e int) error {
		_, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(n), EndpointID: id(e), SandboxKey: sandbox(99)})
		return err
	},
	"gateway": func(b *bench, n, e int) error { return b.program(n, e, "["+tcp(80, 8080)+"]") },
	"gateway28": func(b *bench, n, e int) error {
		return b.program(n, e, "["+tcp(80, 8080)+`],"`+optIPv6Elsewhere+`":false`)
	},
	"gateway4": func(b *bench, n, e int) error {
		return b.program(n, e, "["+tcp(80, 8080)+`],"`+optIPv6Elsewhere+`":true`)
	},
	"fails": func(b *bench, n, e int) error {
		b.loop.fail = append(b.loop.fail, nil, errHost) // what a sibling gives up is done, what comes in its place is not
		if err := b.program(n, e, "["+tcp(80, 8080)+"]"); err == nil {
			return fmt.Errorf("what the host refuses was published")
		}
		b.loop.fail = nil
		return nil
	},
}

func (b *bench) run(script string) {
	b.t.Helper()
	for line := range strings.FieldsSeq(script) {
		var n, e int
		name, numbers, _ := strings.Cut(line, ":")
		fmt.Sscanf(numbers, "%d,%d", &n, &e)
		if err := steps[name](b, n, e); err != nil {
			b.t.Fatalf("%s: %v", line, err)
		}
	}
}

// TestOrders plays the orders in which engines call; the last step always ends the network.
func TestOrders(t *testing.T) {
	tests := []struct {
		name, script string
		published    map[int]string // by endpoint, before the part behind the bar
	}{
		{
			"20.10 to 28 start and stop", `network:1 endpoint:1,1 join:1,1 program:1,1 info:1,1 | revoke:1,1 leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:8080/tcp"},
		},
		{
			"20.10 failed program, no revoke", `network:1 endpoint:1,7 join:1,7 other:1,7 endpoint:1,1 join:1,1 | leave:1,1 rmend:1,1 revoke:1,7 leave:1,7 rmend:1,7 rmnetwork:1`,
			map[int]string{7: "*:9090/tcp *:32768/tcp", 1: ""},
		},
		{
			"program fails, no revoke", `network:1 endpoint:1,1 join:1,1 taken:1,1 | leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: ""},
		},
		{
			"29 second program fails", `network:1 endpoint:1,1 join:1,1 program:1,1 taken:1,1 | leave:1,1 leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:8080/tcp"},
		},
		{
			"28 program again without revoke", `network:1 endpoint:1,1 join:1,1 program:1,1 info:1,1 other:1,1 | leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:9090/tcp *:32768/tcp"},
		},
		{
			"28 same program again", `network:1 endpoint:1,1 join:1,1 other:1,1 other:1,1 | revoke:1,1 leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:9090/tcp *:32768/tcp"},
		},
		{
			"29 leave after failed join, twice", `network:1 endpoint:1,1 badjoin:1,1 | leave:1,1 leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: ""},
		},
		{
			"29 restart, no revoke", `network:1 endpoint:1,1 join:1,1 program:1,1 | leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:8080/tcp"},
		},
		{
			"gateway moves to another network and back", `network:1 network:2 endpoint:1,1 join:1,1 program:1,1 endpoint:2,2 join:2,2
			revoke:1,1 program:2,2 revoke:2,2 leave:2,2 rmend:2,2 program:1,1 | revoke:1,1 leave:1,1 rmend:1,1 rmnetwork:1 rmnetwork:2`,
			map[int]string{1: "*:8080/tcp"},
		},
		{"second container on the network goes", `network:1 endpoint:1,1 endpoint:1,2 join:1,2 join:1,1 other:1,2 program:1,1 leave:1,2 rmend:1,2 |
			leave:1,1 rmend:1,1 rmnetwork:1`, map[int]string{1: "*:8080/tcp", 2: ""}},
		{"leave lost", `network:1 endpoint:1,1 join:1,1 program:1,1 | rmend:1,1 rmnetwork:1`, map[int]string{1: "*:8080/tcp"}},
		{
			"everything lost but the network's end", `network:1 endpoint:1,1 join:1,1 program:1,1 endpoint:1,2 | rmnetwork:1`,
			map[int]string{1: "*:8080/tcp"},
		},
		{
			"late calls for what is gone", `network:1 endpoint:1,1 join:1,1 program:1,1 | rmnetwork:1 revoke:1,1 leave:1,1 rmend:1,1 rmnetwork:1`,
			map[int]string{1: "*:8080/tcp"},
		},
		{"stop, start again", `network:1 endpoint:1,1 join:1,1 program:1,1 leave:1,1 rmend:1,1 endpoint:1,3 join:1,3 program:1,3 |
			leave:1,3 rmend:1,3 rmnetwork:1`, map[int]string{3: "*:8080/tcp", 1: ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			start, end, _ := strings.Cut(tt.script, "|")
			b.run(start)
			for e, want := range tt.published {
				if got := describe(b.endpoint(e).Ports); got != want {
					t.Errorf("endpoint %d publishes %q, want %q", e, got, want)
				}
				if got := describe(b.ports.all()[state.EndpointID(id(e))]); want == "" && got != "" {
					t.Errorf("endpoint %d holds %q", e, got)
				}
			}
			b.run(end)
			b.empty()
		})
	}
}

func describe(ports []state.Port) string {
	var out []string
	for _, p := range ports {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}

// TestEveryCallTwice repeats each call of a life and compares answers, state and held ports.
func TestEveryCallTwice(t *testing.T) {
	b := newBench(t, Options{IPForward: true})
	calls := []struct {
		name string
		call func() (any, error)
	}{
		{"CreateNetwork", func() (any, error) { return nil, b.CreateNetwork(b.ctx(), newNetwork(t, 1)) }},
		{"CreateEndpoint", func() (any, error) { return b.CreateEndpoint(b.ctx(), newEndpoint(t, 1, 1)) }},
		{"Join", func() (any, error) {
			return b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(1), EndpointID: id(1), SandboxKey: sandbox(1)})
		}},
		{"CreateEndpoint when joined", func() (any, error) { return b.CreateEndpoint(b.ctx(), newEndpoint(t, 1, 1)) }},
		{"Program", func() (any, error) { return nil, b.program(1, 1, "["+tcp(80, 8080)+","+tcp(81, 0)+","+tcp(81, 0)+"]") }},
		{"EndpointOperInfo", func() (any, error) {
			return b.EndpointInfo(b.ctx(), &network.InfoRequest{NetworkID: id(1), EndpointID: id(1)})
		}},
		{"Revoke", func() (any, error) { return nil, b.revoke(1, 1) }},
		{"Leave", func() (any, error) { return nil, b.leave(1, 1) }},
		{"DeleteEndpoint", func() (any, error) { return nil, b.deleteEndpoint(1, 1) }},
		{"DeleteNetwork", func() (any, error) { return nil, b.deleteNetwork(1) }},
	}
	for _, c := range calls {
		first, err := c.call()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		before, revision := b.everything(), b.store.Snapshot().Revision
		b.host.check = errHost // what is there already needs no room
		second, err := c.call()
		b.host.check = nil
		if err != nil {
			t.Fatalf("second %s: %v", c.name, err)
		}
		if d := gocmp.Diff(first, second); d != "" {
			t.Errorf("%s answers (-first +second):\n%s", c.name, d)
		}
		b.same(before)
		if after := b.store.Snapshot().Revision; after != revision {
			t.Errorf("second %s changes the state: revision %d, then %d", c.name, revision, after)
		}
	}
	b.empty()
}

func TestUnknownIDs(t *testing.T) {
	b := furnished(t)
	before, passes := b.everything(), len(b.loop.passes())
	for name, err := range map[string]error{
		"Revoke":                           b.revoke(1, 9),
		"Leave":                            b.leave(1, 9),
		"DeleteEndpoint":                   b.deleteEndpoint(1, 9),
		"DeleteNetwork":                    b.deleteNetwork(9),
		"Revoke on unknown network":        b.revoke(9, 8),
		"Leave on unknown network":         b.leave(9, 8),
		"DeleteEndpoint on unknown":        b.deleteEndpoint(9, 8),
		"Revoke by another network":        b.revoke(9, 1),
		"Leave by another network":         b.leave(9, 1),
		"DeleteEndpoint by another's name": b.deleteEndpoint(9, 1),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again := len(b.loop.passes()) - passes; again > 0 {
		t.Errorf("%d passes for what is unknown", again)
	}
	_, err := b.CreateEndpoint(b.ctx(), newEndpoint(t, 9, 8))
	refused(t, err, "network "+id(9)[:12]+" is not known to drawbridge")
	_, err = b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(9), EndpointID: id(1), SandboxKey: "/x"})
	refused(t, err, "network "+id(9)[:12]+" is not known to drawbridge")
	_, err = b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(1), EndpointID: id(9), SandboxKey: "/x"})
	refused(t, err, "network "+id(1)[:12]+" has no endpoint "+id(9)[:12])
	refused(t, b.program(9, 1, "[]"), "network "+id(9)[:12]+" is not known to drawbridge")
	refused(t, b.program(1, 9, "[]"), "has no endpoint "+id(9)[:12])
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 2)))
	refused(t, b.program(2, 1, "[]"), "network "+id(2)[:12]+" has no endpoint")
	b.ok(b.deleteNetwork(2))
	b.same(before)
}

func TestMalformedIDs(t *testing.T) {
	b := furnished(t)
	before := b.everything()
	calls := map[string]func(n, e string) error{
		"CreateNetwork": func(n, _ string) error {
			r := newNetwork(t, 2)
			r.NetworkID = n
			return b.CreateNetwork(b.ctx(), r)
		},
		"DeleteNetwork": func(n, _ string) error {
			return b.DeleteNetwork(b.ctx(), &network.DeleteNetworkRequest{NetworkID: n})
		},
		"CreateEndpoint": func(n, e string) error {
			r := newEndpoint(t, 1, 2)
			r.NetworkID, r.EndpointID = n, e
			_, err := b.CreateEndpoint(b.ctx(), r)
			return err
		},
		"Join": func(n, e string) error {
			_, err := b.Join(b.ctx(), &network.JoinRequest{NetworkID: n, EndpointID: e, SandboxKey: "/x"})
			return err
		},
		"Program": func(n, e string) error {
			return b.ProgramExternalConnectivity(b.ctx(), &network.ProgramExternalConnectivityRequest{NetworkID: n, EndpointID: e})
		},
		"Revoke": func(n, e string) error {
			return b.RevokeExternalConnectivity(b.ctx(), &network.RevokeExternalConnectivityRequest{NetworkID: n, EndpointID: e})
		},
		"Leave": func(n, e string) error { return b.Leave(b.ctx(), &network.LeaveRequest{NetworkID: n, EndpointID: e}) },
		"DeleteEndpoint": func(n, e string) error {
			return b.DeleteEndpoint(b.ctx(), &network.DeleteEndpointRequest{NetworkID: n, EndpointID: e})
		},
	}
	bad := map[string]string{
		"missing":      "",
		"short":        "abc",
		"oversized":    strings.Repeat("a", 65),
		"huge":         strings.Repeat("a", 1<<20),
		"path":         "../../../../etc/passwd",
		"shell":        "aaaaaaaaaaaa;reboot",
		"space":        "aaaaaaaaaaaa aaaa",
		"newline":      "aaaaaaaaaaaa\naaaa",
		"upper case":   "AAAAAAAAAAAAAAAA",
		"zero byte":    "aaaaaaaaaaaa\x00aaa",
		"other script": "aaaaaaaaaaaaä",
	}
	for name, call := range calls {
		for what, value := range bad {
			t.Run(name+"/"+what, func(t *testing.T) {
				refused(t, call(value, id(1)), "network id ")
				if !strings.HasSuffix(name, "Network") {
					refused(t, call(id(1), value), "endpoint id ")
				}
			})
		}
	}
	b.same(before)
	if len(b.loop.passes()) > 4 {
		t.Error("a malformed id asked for a pass")
	}
}

// TestLeaveImpliesRevoke, and DeleteEndpoint implies both, and DeleteNetwork all of them.
func TestLeaveImpliesRevoke(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00:1::2")}
	tests := []struct {
		name      string
		call      func(*bench) error
		endpoints int
		addrs     []netip.Addr // whose flows all end
		closed    string       // ports whose flows end
	}{
		{"Revoke", func(b *bench) error { return b.revoke(1, 1) }, 1, nil, "*:8080/tcp"},
		{"Leave", func(b *bench) error { return b.leave(1, 1) }, 1, nil, "*:8080/tcp"},
		{"DeleteEndpoint", func(b *bench) error { return b.deleteEndpoint(1, 1) }, 0, addrs, ""},
		{"DeleteNetwork", func(b *bench) error { return b.deleteNetwork(1) }, 0, addrs, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			b.ok(tt.call(b))
			s := b.store.Snapshot()
			if len(s.Endpoints) != tt.endpoints || tt.endpoints == 1 && len(s.Endpoints[0].Ports) > 0 {
				t.Errorf("endpoints %+v", s.Endpoints)
			}
			if joined := b.endpoint(1).Joined(); joined != (tt.name == "Revoke") {
				t.Errorf("joined %t", joined)
			}
			if held := b.ports.all(); len(held) > 0 {
				t.Errorf("held ports %v", held)
			}
			got, closed := b.flows.forgotten()
			if d := gocmp.Diff(tt.addrs, got, byValue); d != "" || closed != tt.closed {
				t.Errorf("flows by ports %q are forgotten, and of addresses (-want +got):\n%s", closed, d)
			}
			passes := len(b.loop.passes())
			b.ok(tt.call(b))
			if again, closed := b.flows.forgotten(); len(again) > 0 || closed != "" {
				t.Errorf("the second time the flows of %v and by %q are forgotten", again, closed)
			}
			if len(b.loop.passes()) != passes {
				t.Error("the second time the host is waited for")
			}
		})
	}
}

// TestCrowd lets containers come and go on shared and own networks, all at once.
func TestCrowd(t *testing.T) {
	const containers, rounds = 12, 3
	b := newBench(t, Options{IPForward: true})
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
	var all sync.WaitGroup
	for c := 2; c < 2+containers; c++ {
		all.Go(func() {
			for range rounds {
				crowdMember(b, c)
			}
		})
	}
	all.Wait()
	b.ok(b.deleteNetwork(1))
	b.empty()
}

func crowdMember(b *bench, c int) {
	check := func(err error) {
		if err != nil {
			b.t.Error(err)
		}
	}
	check(b.CreateNetwork(b.ctx(), newNetwork(b.t, c)))
	for _, n := range []int{1, c} {
		e := cmp.Compare(n, 1)*100 + c // another endpoint on each network
		_, err := b.CreateEndpoint(b.ctx(), newEndpoint(b.t, n, e))
		check(err)
		_, err = b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(n), EndpointID: id(e), SandboxKey: sandbox(e)})
		check(err)
		_ = b.program(n, e, "["+tcp(80, 8000+c%3)+"]") // some collide
		check(b.program(n, e, "["+tcp(80, 0)+"]"))
	}
	var ends sync.WaitGroup
	for _, end := range []func() error{
		func() error { return b.leave(1, c) },
		func() error { return b.revoke(1, c) },
		func() error { return b.deleteEndpoint(1, c) },
		func() error { return b.deleteEndpoint(1, c) },
		func() error { return b.deleteNetwork(c) }, // with what is left on it
	} {
		ends.Go(func() { check(end()) })
	}
	ends.Wait()
}

func TestLocks(t *testing.T) {
	var l locks
	release, err := l.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.take(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = l.take(ctx, "a")
	refused(t, err, "an earlier call for a is still at work")

	var order []int
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			mine, err := l.take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, i) // guarded by the lock
			mine()
		})
	}
	release()
	all.Wait()
	slices.Sort(order)
	if !slices.Equal(order, []int{0, 1, 2, 3, 4}) || len(l.held) != 0 {
		t.Errorf("turns %v, locks left %d", order, len(l.held))
	}
}
