package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// scripted is one call of a script: three bytes say which, of what, and what goes wrong meanwhile.
type scripted struct {
	removes bool // its failure undoes nothing: the engine forgets the object whatever the answer is
	call    func(b *bench, n, e, choice int) (any, error)
}

// scriptedPorts are lists that meet each other, are refused, or differ in family.
var scriptedPorts = []string{
	tcp(80, 8080), tcp(80, 8081), tcp(80, 8080) + "," + tcp(81, 8081), tcp(80, 0), "", bound(17, 53, "127.0.0.1", 8080, 8090),
	bound(6, 80, "::", 8080, 8080), bound(6, 80, "10.0.0.300", 1, 1), bound(99, 80, "", 1, 1), bound(6, 0, "", 1, 1),
	bound(6, 80, "", 65535, 1), bound(132, 80, "192.0.2.1", 8080, 8080),
}

var scriptedCalls = []scripted{
	{false, func(b *bench, n, _, choice int) (any, error) {
		if choice%4 == 0 {
			return nil, steps["net4"](b, n, 0)
		}
		return nil, b.CreateNetwork(b.ctx(), newNetwork(b.t, n))
	}},
	{false, func(b *bench, n, e, choice int) (any, error) {
		host := e + choice%3 // addresses that others have
		r := createEndpoint(b.t, n, e, fmt.Sprintf("10.%d.0.%d/24", n, host+1), "", "")
		if choice%4 != 0 {
			r.Interface.AddressIPv6 = fmt.Sprintf("fd00:%x::%x/64", n, host+1)
		}
		return b.CreateEndpoint(b.ctx(), r)
	}},
	{false, func(b *bench, n, e, choice int) (any, error) {
		box := []string{sandbox(e), sandbox(99), "", "/../etc", strings.Repeat("x", 5000)}[choice%5]
		return b.Join(b.ctx(), &network.JoinRequest{NetworkID: id(n), EndpointID: id(e), SandboxKey: box})
	}},
	{false, func(b *bench, n, e, choice int) (any, error) {
		return nil, b.program(n, e, "["+scriptedPorts[choice%len(scriptedPorts)]+"]")
	}},
	{false, func(b *bench, n, e, _ int) (any, error) {
		return b.EndpointInfo(b.ctx(), &network.InfoRequest{NetworkID: id(n), EndpointID: id(e)})
	}},
	{true, func(b *bench, n, e, _ int) (any, error) { return nil, b.revoke(n, e) }},
	{true, func(b *bench, n, e, _ int) (any, error) { return nil, b.leave(n, e) }},
	{true, func(b *bench, n, e, _ int) (any, error) { return nil, b.deleteEndpoint(n, e) }},
	{true, func(b *bench, n, _, _ int) (any, error) { return nil, b.deleteNetwork(n) }},
}

// FuzzCalls plays calls in any order, with failures of the host in between. A call that makes something
// and fails leaves nothing, one that succeeded does so again with the same answer, what is removed may be unknown, and no two
// endpoints share an address or a port.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 0, 1, 2, 0, 0, 3, 0, 0, 4, 0, 0, 5, 0, 0, 6, 0, 0, 7, 0, 0, 8, 0, 0})
	f.Add([]byte{0, 0, 1, 1, 0, 1, 1, 4, 2, 2, 0, 0, 2, 4, 1, 3, 0, 0, 3, 4, 0, 3, 4, 1, 3, 0, 2, 8, 0, 0}) // a port that is taken
	f.Add([]byte{0, 0, 1, 1, 0, 1, 2, 0, 0, 3, 64, 0, 3, 128, 0, 1, 68, 1, 3, 0, 3, 5, 64, 0, 8, 64, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBench(t, Options{IPForward: true})
		b.ok(b.Restore(b.ctx()))
		for ; len(script) >= 3 && !t.Failed(); script = script[3:] {
			b.play(int(script[0]), int(script[1]), int(script[2]))
			b.apart()
		}
		for n := 1; n <= 4; n++ {
			b.ok(b.deleteNetwork(n))
		}
		b.empty()
	})
}

// play makes a call, and the same again if it succeeded.
func (b *bench) play(what, of, choice int) {
	b.t.Helper()
	s := scriptedCalls[what%len(scriptedCalls)]
	n, e := 1+of%4, 1+of/4%8
	b.fail(of >> 6)
	before := b.everything()
	first, err := s.call(b, n, e, choice)
	failing := of>>6 != 0
	b.fail(0)
	switch {
	case err != nil && s.removes && !failing:
		b.t.Errorf("call %d of network %d, endpoint %d: %v", what, n, e, err)
	case err != nil && !s.removes:
		if failing {
			before.State.Retired = b.store.Snapshot().Retired // the bridge's name is kept until the host was cleaned
		}
		b.same(before)
		if failing && !errors.Is(err, errHost) && strings.Contains(err.Error(), "\n") {
			b.t.Errorf("error is not one sentence: %q", err)
		}
	case err == nil:
		after := b.everything()
		second, err := s.call(b, n, e, choice)
		if err != nil {
			b.t.Errorf("call %d of network %d, endpoint %d, made again: %v", what, n, e, err)
		}
		if d := gocmp.Diff(first, second); d != "" {
			b.t.Errorf("call %d, made again, answers (-first +second):\n%s", what, d)
		}
		b.same(after)
	}
}

// fail makes the host refuse passes, ports or new networks; 0 ends it.
func (b *bench) fail(what int) {
	refuse := func(i int) error {
		if what == i {
			return errHost
		}
		return nil
	}
	b.loop.broken, b.ports.err, b.host.check = refuse(1), refuse(2), refuse(3)
}

// apart fails the test if two endpoints have the same address, or sockets that meet.
func (b *bench) apart() {
	b.t.Helper()
	all := b.store.Snapshot().Endpoints
	for i, e := range all {
		for _, o := range all[i+1:] {
			for _, a := range e.Addrs() {
				if slices.Contains(o.Addrs(), a) {
					b.t.Errorf("endpoints %s and %s both have %s", e.ID.Short(), o.ID.Short(), a)
				}
			}
			for _, p := range state.Bound(e.Ports) {
				for _, q := range state.Bound(o.Ports) {
					if p.Proto == q.Proto && p.HostPort == q.HostPort && meet(sockets(e, p), sockets(o, q)) {
						b.t.Errorf("endpoints %s and %s both publish %s", e.ID.Short(), o.ID.Short(), p)
					}
				}
			}
		}
	}
}
