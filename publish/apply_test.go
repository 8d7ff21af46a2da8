package publish

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
)

// A step is one call in the life of a Publisher; want is what is bound after it.
type step struct {
	name string
	do   func(*testing.T, *Publisher)
	want []string
}

func TestApply(t *testing.T) {
	a, b := endpoint("a", c4), endpoint("b", "172.18.0.3/16")
	web := portOf(exact(state.TCP, "0.0.0.0", 80, 80))
	tls := portOf(exact(state.TCP, "::", 443, 443))
	six := endpoint("c", c6)
	applies := func(es ...state.Endpoint) func(*testing.T, *Publisher) {
		return func(t *testing.T, p *Publisher) { t.Helper(); apply(t, p, es...) }
	}
	reserves := func(e state.Endpoint, rs ...state.PortRequest) func(*testing.T, *Publisher) {
		return func(t *testing.T, p *Publisher) { t.Helper(); reserve(t, p, e, rs...) }
	}
	http := exact(state.TCP, "0.0.0.0", 80, 80)
	held, none := []string{"0.0.0.0:80/tcp"}, []string(nil)
	tests := []struct {
		name  string
		steps []step
	}{
		{"restart binds", []step{
			{"both", applies(with(a, web), with(six, tls)), []string{"0.0.0.0:80/tcp", "[::]:443/tcp"}},
			{"again", applies(with(a, web), with(six, tls)), []string{"0.0.0.0:80/tcp", "[::]:443/tcp"}},
			{"one gone", applies(a, with(six, tls)), []string{"[::]:443/tcp"}},
			{"all gone", applies(), none},
		}},
		{"reservation outlives an older snapshot", []step{
			{"reserve", reserves(a, http), held},
			{"before the endpoint", applies(), held},
			{"before the commit", applies(a), held},
			{"the commit", applies(with(a, web)), held},
			{"revoked", applies(a), none},
		}},
		{"reservation ends with its endpoint", []step{
			{"reserve", reserves(a, http), held},
			{"before the endpoint", applies(b), held},
			{"before the commit", applies(a, b), held},
			{"deleted", applies(b), none},
		}},
		{"revoked and reserved again", []step{
			{"commit", applies(with(a, web)), held},
			{"reserve before the revoke is applied", reserves(a, http), held},
			{"revoked", applies(a), held},
			{"commit again", applies(with(a, web)), held},
			{"revoked again", applies(a), none},
		}},
		{"a repeated call for ports of the state needs no new snapshot", []step{
			{"commit", applies(with(a, web)), held},
			{"reserve", reserves(with(a, web), http), held},
			{"revoked", applies(a), none},
		}},
		{"a smaller second reservation", []step{
			{"two", reserves(a, http, exact(state.TCP, "0.0.0.0", 81, 80)), []string{"0.0.0.0:80/tcp", "0.0.0.0:81/tcp"}},
			{"one", reserves(a, http), []string{"0.0.0.0:80/tcp", "0.0.0.0:81/tcp"}},
			{"commit", applies(with(a, web)), held},
		}},
		{"port moves to another endpoint at once", []step{
			{"first", applies(with(a, web)), held},
			{"second", applies(with(b, web)), held},
		}},
		{"port moves by way of reserve", []step{
			{"first", applies(with(a, web)), held},
			{"refused while held", func(t *testing.T, p *Publisher) {
				if _, err := p.Reserve(t.Context(), b, []state.PortRequest{http}); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("error %v", err)
				}
			}, held},
			{"gone", applies(), none},
			{"second", reserves(b, http), held},
			{"commit", applies(with(b, web)), held},
		}},
		{"container changes its address", []step{
			{"first", applies(with(a, web)), held},
			{"second", applies(with(endpoint("a", "172.18.0.9/16"), web)), held},
			{"check", func(t *testing.T, p *Publisher) {
				if got := targetOf(p, "0.0.0.0:80"); got != "172.18.0.9:80" {
					t.Errorf("clients end at %s", got)
				}
			}, held},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, k := fakePublisher(t)
			for _, s := range tt.steps {
				s.do(t, p)
				if diff := cmp.Diff(s.want, places(k), cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("after %q (-want +got):\n%s", s.name, diff)
				}
			}
		})
	}
}

func TestApplyWithNothingToDoOpensNothing(t *testing.T) {
	p, k := fakePublisher(t)
	e := with(endpoint("a", c4), portOf(exact(state.TCP, "", 80, 80)), portOf(exact(state.UDP, "", 53, 53)))
	apply(t, p, e)
	opens := k.opens
	apply(t, p, e)
	if k.opens != opens {
		t.Errorf("%d sockets were opened by a second Apply", k.opens-opens)
	}
}

func TestApplyErrors(t *testing.T) {
	p, k := fakePublisher(t)
	k.take("0.0.0.0:80", state.TCP)
	reserve(t, p, endpoint("d", c4), exact(state.TCP, "", 82, 82))
	snap := snapshot(
		with(endpoint("a", c4), portOf(exact(state.TCP, "", 80, 80)), portOf(exact(state.TCP, "", 81, 81))),
		with(endpoint("b", c4), portOf(exact(state.SCTP, "::", 83, 83)), portOf(exact(state.TCP, "", 82, 82))),
		with(endpoint("c", c4), portOf(exact(state.TCP, "", 81, 81)), portOf(exact(state.TCP, "127.0.0.1", 84, 84))),
	)
	err := p.Apply(t.Context(), snap)
	want := map[state.EndpointID][]string{
		endpoint("a").ID: {"port 0.0.0.0:80/tcp is already in use on this host"},
		endpoint("b").ID: {
			"port [::]:83/sctp cannot be published: sctp is not led from one address family to the other, give a host address of the container's",
			"port 0.0.0.0:82/tcp is already published by endpoint dddddddddddd of network ffffffffffff",
		},
		endpoint("c").ID: {"port 0.0.0.0:81/tcp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
	}
	got := map[state.EndpointID][]string{}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var object *state.ObjectError
		if !errors.As(e, &object) || object.Network != endpoint("a").Network {
			t.Fatalf("%v is no ObjectError of the network", e)
		}
		got[object.Endpoint] = append(got[object.Endpoint], object.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	// The others are held, the helper of the port that is taken among them.
	held := []string{"0.0.0.0:80/tcp", "0.0.0.0:81/tcp", "0.0.0.0:82/tcp", "127.0.0.1:84/tcp", "[::1]:80/tcp", "[::1]:81/tcp", "[::1]:82/tcp"}
	if diff := cmp.Diff(held, places(k)); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}

func TestApplyHeals(t *testing.T) {
	p, k := fakePublisher(t)
	k.refuse[any4] = syscall.EADDRINUSE
	e := with(endpoint("a", c4), portOf(exact(state.TCP, "0.0.0.0", 80, 80)))
	if err := p.Apply(t.Context(), snapshot(e)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("error %v", err)
	}
	delete(k.refuse, any4)
	apply(t, p, e)
	if diff := cmp.Diff([]string{"0.0.0.0:80/tcp"}, places(k)); diff != "" {
		t.Errorf("sockets (-want +got):\n%s", diff)
	}
}

func TestApplyEnded(t *testing.T) {
	p, k := fakePublisher(t)
	e := with(endpoint("a", c4), portOf(exact(state.TCP, "", 80, 80)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Apply(ctx, snapshot(e)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	apply(t, p, e)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := p.Apply(t.Context(), snapshot(e)); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
	if got := places(k); len(got) != 0 {
		t.Errorf("sockets after Close: %v", got)
	}
}

// However many ports are taken, /proc is searched a bounded number of times.
func TestApplyBoundsLookups(t *testing.T) {
	p, k := fakePublisher(t)
	k.refuse[any4] = syscall.EADDRINUSE
	e := endpoint("a", c4)
	for n := range 10 * mostLookups {
		e.Ports = append(e.Ports, portOf(exact(state.TCP, "0.0.0.0", uint16(1000+n), 80)))
	}
	line := procHeading
	for _, port := range e.Ports {
		line += procLine("0.0.0.0:"+port.String()[len("0.0.0.0:"):len(port.String())-len("/tcp")], "0A", 5)
	}
	p.proc = procfs(procDir(t, map[string]string{"net/tcp": line, "7/comm": "squid\n", "7/fd/3": "->socket:[5]"}))
	err := p.Apply(t.Context(), snapshot(e))
	named := 0
	for _, err := range err.(interface{ Unwrap() []error }).Unwrap() {
		var c *conflict
		if errors.As(err, &c) && c.owner == "squid (pid 7)" {
			named++
		}
	}
	if named != mostLookups {
		t.Errorf("%d owners were looked up, want %d", named, mostLookups)
	}
}

// The sockets are always those of the last snapshot plus the open reservations, whatever the
// order of calls; and a Reserve that fails changes nothing.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := New(Options{Proc: t.TempDir()})
		k := newKernel()
		p.open = k.open
		defer p.Close()
		es := []state.Endpoint{endpoint("a", c4), endpoint("b", c6), endpoint("c", c4, c6)}
		pending := map[state.EndpointID]state.Endpoint{} // reserved, not yet shown
		last := snapshot(slices.Clone(es)...)
		applyOrFollow := func(rt *rapid.T) {
			from, to := last, snapshot(slices.Clone(es)...)
			last = to
			if rapid.Bool().Draw(rt, "follow") {
				if err := p.Follow(t.Context(), state.Compare(from, to)); err != nil {
					rt.Fatalf("Follow: %v", err)
				}
				return
			}
			apply(t, p, es...)
		}
		request := rapid.Custom(func(t *rapid.T) state.PortRequest {
			ip := rapid.SampledFrom([]string{"", "", "0.0.0.0", "::", "127.0.0.1", "::1"}).Draw(t, "ip")
			first := rapid.Uint16Range(1, 4).Draw(t, "first")
			last := rapid.Uint16Range(first, 4).Draw(t, "last")
			return ranged(rapid.SampledFrom([]state.Proto{state.TCP, state.UDP, state.SCTP}).Draw(t, "proto"), ip, first, last, rapid.Uint16Range(1, 2).Draw(t, "to"))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": func(rt *rapid.T) {
				e := es[rapid.IntRange(0, 2).Draw(rt, "endpoint")]
				if _, busy := pending[e.ID]; busy || len(e.Ports) > 0 {
					rt.Skip("has ports")
				}
				before := k.list()
				ports, err := p.Reserve(t.Context(), e, rapid.SliceOfN(request, 1, 3).Draw(rt, "requests"))
				if err != nil {
					if diff := cmp.Diff(before, k.list()); diff != "" {
						rt.Fatalf("a failed Reserve left a trace:\n%s", diff)
					}
					return
				}
				pending[e.ID] = with(e, ports...)
			},
			"release": func(rt *rapid.T) {
				id := es[rapid.IntRange(0, 2).Draw(rt, "endpoint")].ID
				if _, ok := pending[id]; !ok {
					rt.Skip("nothing reserved")
				}
				delete(pending, id)
				p.Release(id, nil)
			},
			"commit": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "endpoint")
				e, ok := pending[es[i].ID]
				if !ok {
					rt.Skip("nothing reserved")
				}
				delete(pending, e.ID)
				es[i] = e
				applyOrFollow(rt)
			},
			"revoke": func(rt *rapid.T) {
				i := rapid.IntRange(0, 2).Draw(rt, "endpoint")
				es[i].Ports = nil
				applyOrFollow(rt)
			},
			"": func(rt *rapid.T) {
				want := map[string]bool{}
				for _, e := range es {
					for _, e := range []state.Endpoint{e, pending[e.ID]} {
						for _, port := range e.Ports {
							bs, _ := bindings(e, port)
							for _, b := range bs {
								want[b.place().String()] = true
							}
						}
					}
				}
				if diff := cmp.Diff(want, k.list()); diff != "" {
					rt.Fatalf("sockets (-want +got):\n%s", diff)
				}
			},
		})
	})
}

// Run with -race: the calls may come at the same time.
func TestConcurrentCalls(t *testing.T) {
	p, k := fakePublisher(t)
	var wg sync.WaitGroup
	for i, letter := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			e := endpoint(letter, c4, c6)
			for range 50 {
				ports, err := p.Reserve(context.Background(), e, []state.PortRequest{
					exact(state.TCP, "", uint16(100+i), 1), ranged(state.TCP, "", 200, 209, 2),
				})
				if err != nil {
					t.Error(err)
					return
				}
				if err := p.Apply(context.Background(), snapshot(with(e, ports...))); err != nil {
					t.Error(err)
				}
				p.Release(e.ID, nil)
			}
		})
	}
	wg.Wait()
	if got := places(k); len(got) != 0 {
		t.Errorf("sockets at the end: %v", got)
	}
}
