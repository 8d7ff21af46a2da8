package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// TestFailureLeavesNothing lets each call that makes something fail in each way it can, and
// compares state and held ports with those before.
func TestFailureLeavesNothing(t *testing.T) {
	calls := map[string]func(*bench, context.Context) error{
		"CreateNetwork": func(b *bench, ctx context.Context) error {
			return b.CreateNetwork(ctx, newNetwork(b.t, 2))
		},
		"CreateEndpoint": func(b *bench, ctx context.Context) error {
			_, err := b.CreateEndpoint(ctx, newEndpoint(b.t, 1, 2))
			return err
		},
		"Join": func(b *bench, ctx context.Context) error {
			_, err := b.Join(ctx, &network.JoinRequest{NetworkID: id(1), EndpointID: id(1), SandboxKey: "/another"})
			return err
		},
		"first Program": func(b *bench, ctx context.Context) error {
			return b.ProgramExternalConnectivity(ctx, programRequest(b.t, 1, 3, tcp(80, 9090)+","+tcp(81, 0)))
		},
		"second Program": func(b *bench, ctx context.Context) error {
			return b.ProgramExternalConnectivity(ctx, programRequest(b.t, 1, 1, tcp(80, 9090)+","+tcp(81, 0)))
		},
	}
	object := func(n, e int) error {
		o := &state.ObjectError{Network: state.NetworkID(id(n)), Err: errHost}
		if e != 0 {
			o.Endpoint = state.EndpointID(id(e))
		}
		return errors.Join(&state.ObjectError{Network: state.NetworkID(id(9)), Err: errors.New("other")}, o)
	}
	fails := func(errs ...error) func(*bench) { return func(b *bench) { b.loop.fail = errs } }
	creates, endpoints, programs := "CreateNetwork", "CreateEndpoint", "first Program, second Program"
	tests := []struct {
		name  string
		calls string // to which it applies, all if empty
		fail  func(*bench)
		want  string
	}{
		{"pass as a whole", creates + endpoints + programs, fails(errHost), "the host said no"},
		{"pass and its repetition", endpoints + programs, fails(errHost, errHost), "the host said no"},
		{"new network", creates, fails(object(2, 0)), "the host said no"},
		{"new endpoint", endpoints, fails(object(1, 2)), "the host said no"},
		{"whole network of the endpoint", endpoints + programs, fails(object(1, 0)), "the host said no"},
		{"host has no room", creates, func(b *bench) { b.host.check = errHost }, "the host said no"},
		{"forwarding unreadable", creates, func(b *bench) {
			_, err := b.store.Update(b.ctx(), func(tx *store.Tx) error { tx.SetForwarding(state.Forwarding{}); return nil })
			b.ok(err)
			b.host.forwarding = errHost
		}, "the host said no"},
		{"no port is free", programs, func(b *bench) { b.ports.err = errHost }, "the host said no"},
		{"flows stay", endpoints, func(b *bench) { b.flows.failed = errHost }, "the host said no"},
		{"state file closed", "", func(b *bench) { b.ok(b.store.Close()) }, "shutting down"},
		{"deadline during the pass", creates + endpoints + programs, func(b *bench) {
			b.loop.wait = func(ctx context.Context) error {
				<-ctx.Done()
				return fmt.Errorf("the links step has not finished: %w", ctx.Err())
			}
		}, "the links step has not finished"},
	}
	for name, call := range calls {
		for _, tt := range tests {
			if !strings.Contains(tt.calls, name) && tt.calls != "" {
				continue
			}
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				b := furnished(t)
				b.createEndpoint(1, 3)
				tt.fail(b)
				before := b.everything()
				ctx, cancel := context.WithCancel(b.ctx())
				if b.loop.wait != nil {
					cancel = endDuring(b, cancel)
				}
				defer cancel()
				refused(t, call(b, ctx), tt.want)
				b.same(before)
			})
		}
		t.Run(name+"/given up before it began", func(t *testing.T) {
			b := furnished(t)
			b.createEndpoint(1, 3)
			before := b.everything()
			ctx, cancel := context.WithCancel(b.ctx())
			cancel()
			if err := call(b, ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			b.same(before)
		})
	}
}

// endDuring ends the call's context in the middle of the pass.
func endDuring(b *bench, cancel context.CancelFunc) context.CancelFunc {
	wait := b.loop.wait
	b.loop.wait = func(ctx context.Context) error {
		cancel()
		return wait(ctx)
	}
	return cancel
}

// TestFailureReachesHost makes sure that the host is brought back, not only the state.
func TestFailureReachesHost(t *testing.T) {
	b := furnished(t)
	b.loop.fail = []error{errHost}
	refused(t, b.CreateNetwork(b.ctx(), newNetwork(t, 2)), "said no")
	passes := b.loop.passes()
	last := passes[len(passes)-1]
	if len(last.Networks) != 1 || len(last.Retired) != 1 || last.Retired[0] != state.DefaultBridgeName(state.NetworkID(id(2))) {
		t.Errorf("the last pass was over networks %v and retired bridges %v", last.Networks, last.Retired)
	}
}

// TestFailureOfOthersIsNotOurs leaves alone a call for whose object all went well.
func TestFailureOfOthersIsNotOurs(t *testing.T) {
	b := furnished(t)
	b.loop.broken = &state.ObjectError{Network: state.NetworkID(id(9)), Err: errHost}
	b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 2)))
	b.createEndpoint(2, 2)
	b.join(2, 2)
	b.ok(b.program(2, 2, `[`+tcp(80, 9090)+`]`))
	b.ok(b.revoke(2, 2))
	b.ok(b.leave(2, 2))
	b.ok(b.deleteEndpoint(2, 2))
	b.ok(b.deleteNetwork(2))
}

// TestRemovalStays: the engine forgets an object whatever the answer is, so that bringing it
// back would only make an orphan.
func TestRemovalStays(t *testing.T) {
	tests := []struct {
		name   string
		remove func(*bench) error
		gone   func(*bench) bool
	}{
		{"Revoke", func(b *bench) error { return b.revoke(1, 1) }, func(b *bench) bool { return len(b.endpoint(1).Ports) == 0 }},
		{"Leave", func(b *bench) error { return b.leave(1, 1) }, func(b *bench) bool { return !b.endpoint(1).Joined() }},
		{"DeleteEndpoint", func(b *bench) error { return b.deleteEndpoint(1, 1) }, func(b *bench) bool { return b.endpoint(1).ID == "" }},
		{"DeleteNetwork", func(b *bench) error { return b.deleteNetwork(1) }, func(b *bench) bool { _, ok := b.network(1); return !ok }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := furnished(t)
			b.loop.fail = []error{errHost}
			refused(t, tt.remove(b), "said no")
			if !tt.gone(b) {
				t.Error("it is still in the state")
			}
			if held := describe(b.ports.all()[state.EndpointID(id(1))]); held != "*:8080/tcp" {
				t.Errorf("held ports %q: the rules may still lead to them", held)
			}
			if addrs, closed := b.flows.forgotten(); len(addrs) == 0 && closed == "" {
				t.Error("its flows go on")
			}
			b.ok(tt.remove(b))
		})
		t.Run(tt.name+" fails elsewhere", func(t *testing.T) {
			b := furnished(t)
			b.loop.fail = []error{&state.ObjectError{Network: state.NetworkID(id(9)), Err: errHost}}
			b.ok(tt.remove(b))
			if held := b.ports.all(); len(held) > 0 {
				t.Errorf("ports are still held: %v", held)
			}
		})
		t.Run(tt.name+" holds the ports during the pass", func(t *testing.T) {
			b := furnished(t)
			var held map[state.EndpointID][]state.Port
			b.loop.wait = func(context.Context) error { held = b.ports.all(); return nil }
			b.ok(tt.remove(b))
			if len(held) != 1 || len(b.ports.all()) != 0 {
				t.Errorf("held ports %v, then %v", held, b.ports.all())
			}
		})
		t.Run(tt.name+" not stored", func(t *testing.T) {
			b := furnished(t)
			before := b.everything()
			b.ok(b.store.Close())
			refused(t, tt.remove(b), "shutting down")
			b.same(before)
		})
	}
}

// TestRetiredBridges follows the name of a bridge from its network's end until nothing is left.
func TestRetiredBridges(t *testing.T) {
	bridge := state.DefaultBridgeName(state.NetworkID(id(1)))
	unbinding := &state.ObjectError{Err: errors.New("firewalld is busy")} // of no network
	setup := func(t *testing.T) *bench {
		b := furnished(t)
		b.loop.broken = unbinding
		b.ok(b.deleteNetwork(1)) // nobody's failure
		if got := b.store.Snapshot().Retired; len(got) != 1 || got[0] != bridge {
			t.Fatalf("retired bridges %v", got)
		}
		b.loop.broken = nil
		return b
	}
	t.Run("forgotten by a later call", func(t *testing.T) {
		b := setup(t)
		b.ok(b.deleteNetwork(7))
		b.empty()
	})
	t.Run("kept while it fails", func(t *testing.T) {
		b := setup(t)
		b.loop.broken = unbinding
		b.ok(b.deleteNetwork(7))
		if got := b.store.Snapshot().Retired; len(got) != 1 {
			t.Errorf("retired bridges %v", got)
		}
	})
	t.Run("in use again", func(t *testing.T) {
		b := setup(t)
		b.ok(b.CreateNetwork(b.ctx(), newNetwork(t, 1)))
		if got := b.store.Snapshot().Retired; len(got) != 0 {
			t.Errorf("retired bridges %v", got)
		}
	})
	t.Run("retired again during the pass", func(t *testing.T) {
		b := setup(t)
		b.loop.wait = func(ctx context.Context) error {
			b.again(ctx)
			return nil
		}
		b.ok(b.deleteNetwork(7)) // its pass is over the state before the second life
		if got := b.store.Snapshot().Retired; len(got) != 1 || got[0] != bridge {
			t.Errorf("retired bridges %v: no pass has seen the second end", got)
		}
		b.ok(b.deleteNetwork(7))
		b.empty()
	})
	t.Run("gone with the boot", func(t *testing.T) {
		b := setup(t)
		b.host.boot = "boot-2"
		b.ok(b.Restore(b.ctx()))
		b.empty()
	})
}

// again is the second life of network 1, as far as the state shows it: another call made and
// removed the network, and waits for its own pass.
func (b *bench) again(ctx context.Context) {
	b.t.Helper()
	n, err := b.parseNetwork(newNetwork(b.t, 1))
	b.ok(err)
	for _, do := range []func(*store.Tx){
		func(tx *store.Tx) { tx.PutNetwork(n); tx.Unretire(n.Bridge) },
		func(tx *store.Tx) { b.dropNetwork(tx, n.ID) },
	} {
		_, err := b.store.Update(ctx, func(tx *store.Tx) error { do(tx); return nil })
		b.ok(err)
	}
}

func programRequest(t testing.TB, n, e int, ports string) *network.ProgramExternalConnectivityRequest {
	t.Helper()
	return parse[network.ProgramExternalConnectivityRequest](t, `{"NetworkID": "`+id(n)+`", "EndpointID": "`+id(e)+`",
		"Options": {"com.docker.network.portmap": [`+ports+`]}}`)
}

// TestClosedPorts: connections by a port that an endpoint has lost are ended by the next process too, which knows of them until that is
// done, and not those by a port that it has got again.
func TestClosedPorts(t *testing.T) {
	after := func(b *bench) { b.Driver = New(b.store, b.loop, b.ports, b.host, b.flows, Options{}) }
	for name, c := range map[string]struct {
		do   func(*bench)
		want string
	}{
		"revoked": {func(b *bench) { b.ok(b.revoke(1, 1)) }, "0.0.0.0:8080/tcp [::]:8080/tcp"},
		"one of two": {func(b *bench) {
			b.ok(b.program(1, 1, `[`+tcp(80, 8080)+`,`+tcp(81, 8081)+`]`))
			b.ok(b.program(1, 1, `[`+tcp(81, 8081)+`]`))
		}, "0.0.0.0:8080/tcp [::]:8080/tcp"},
		"got again": {func(b *bench) { b.ok(b.revoke(1, 1)); b.ok(b.program(1, 1, `[`+tcp(80, 8080)+`]`)) }, ""},
		"not had": {func(b *bench) {
			b.loop.broken = errors.New("no rules")
			_ = b.program(1, 1, `[`+tcp(81, 8081)+`]`)
			b.loop.broken = nil
		}, "0.0.0.0:8081/tcp [::]:8081/tcp"},
		"with the end": {func(b *bench) { b.ok(b.revoke(1, 1)); b.ok(b.leave(1, 1)); b.ok(b.deleteEndpoint(1, 1)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := furnished(t)
			c.do(b)
			after(b)
			b.flows.forgotten()
			b.loop.broken = errors.New("no rules")
			if err := b.Settle(b.ctx()); c.want != "" && err == nil {
				t.Error("the rules may still be there, and nobody says so")
			}
			if _, closed := b.flows.forgotten(); closed != "" {
				t.Errorf("ended while the rules may still be there: %s", closed)
			}
			b.loop.broken = nil
			for _, want := range []string{c.want, ""} {
				b.ok(b.Settle(b.ctx()))
				if _, closed := b.flows.forgotten(); closed != want {
					t.Errorf("ended were connections by %q, want %q", closed, want)
				}
			}
			if left := b.endpoint(1).Closed; len(left) > 0 {
				t.Errorf("remembered are %v", left)
			}
		})
	}
}
