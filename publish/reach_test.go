package publish

import (
	"cmp"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// theNetwork is that of every endpoint in these tests.
func theNetwork(e state.Exposure) state.Network {
	return state.Network{
		ID: state.NetworkID(strings.Repeat("f", 64)), Bridge: "br0", Exposure: e,
		V4: state.Subnet{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")},
		V6: state.Subnet{Prefix: netip.MustParsePrefix("fd09::/64"), Gateway: netip.MustParseAddr("fd09::1")},
	}
}

func mode(p state.Publish) state.Exposure { return state.Exposure{Publish: p} }

// modeAsSaid takes what an exposure says, and dnat where it says nothing.
func modeAsSaid(e state.Exposure) state.Publish { return cmp.Or(e.Publish, state.PublishDNAT) }

// TestReach: who comes to which socket, by the modes.
func TestReach(t *testing.T) {
	both := endpoint("a", "10.9.0.2/24", "fd09::2/64")
	only4 := endpoint("a", "10.9.0.2/24")
	routed := theNetwork(mode(state.PublishHost))
	routed.V4.Router = netip.MustParseAddr("10.9.0.200")
	unaddressed := theNetwork(mode(state.PublishHost))
	unaddressed.V6.NoAddress = true
	outside := reach{outside: true}
	full := reach{outside: true, asClient: true}
	tests := []struct {
		name     string
		network  state.Network
		own      state.Publish
		e        state.Endpoint
		ip       string
		serveAll bool
		want     string // by the addresses of the sockets
	}{
		{"dnat", theNetwork(mode(state.PublishDNAT)), "", both, "", false, "0.0.0.0 {}, :: {}"},
		{"nothing said", theNetwork(state.Exposure{}), "", both, "", false, "0.0.0.0 {}, :: {}"},
		{"host", theNetwork(mode(state.PublishHost)), "", both, "", false, "0.0.0.0 full, :: full"},
		{"learned", theNetwork(mode(state.PublishLearned)), "", both, "192.0.2.1", false, "192.0.2.1 full"},
		{"localhost", theNetwork(mode(state.PublishLocalhost)), "", both, "", false, "0.0.0.0 {}, :: {}"},
		{"the endpoint's own", theNetwork(mode(state.PublishHost)), state.PublishLocalhost, both, "", false, "0.0.0.0 {}, :: {}"},
		{"the endpoint's own, host", theNetwork(state.Exposure{}), state.PublishHost, both, "", false, "0.0.0.0 full, :: full"},
		{"on a loopback address", theNetwork(mode(state.PublishHost)), "", both, "127.0.0.1", false, "127.0.0.1 {}"},
		{"helper", theNetwork(mode(state.PublishHost)), "", only4, "", false, "0.0.0.0 full, ::1 {}"},
		{"other family", theNetwork(mode(state.PublishHost)), "", only4, "::", false, ":: all"},
		{"other family, dnat", theNetwork(mode(state.PublishDNAT)), "", only4, "::", false, ":: all"},
		{"other family, localhost", theNetwork(mode(state.PublishLocalhost)), "", only4, "::", false, ":: {}"},
		{"another router", routed, "", both, "", false, "0.0.0.0 outside, :: full"},
		{"no address on the bridge", unaddressed, "", both, "", false, "0.0.0.0 full, :: outside"},
		{"no firewall of ours", theNetwork(mode(state.PublishHost)), "", both, "", true, "0.0.0.0 all, :: all"},
		{"no firewall of ours, localhost", theNetwork(mode(state.PublishLocalhost)), "", both, "", true, "0.0.0.0 {}, :: {}"},
	}
	words := map[reach]string{{}: "{}", outside: "outside", full: "full", {outside: true, containers: true}: "all"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := New(Options{Mode: modeAsSaid, ServeAll: tt.serveAll})
			e := tt.e
			e.Exposure.Publish = tt.own
			e.Ports = []state.Port{portOf(exact(state.TCP, tt.ip, 8080, 80))}
			s := snapshot(e)
			s.Networks = []state.Network{tt.network}
			var got []string
			for _, b := range newPlan(s.Endpoints).bindings {
				got = append(got, b.addr.Addr().String()+" "+words[p.reach(s, b)])
			}
			if text := strings.Join(got, ", "); text != tt.want {
				t.Errorf("%s\nwant %s", text, tt.want)
			}
		})
	}
}

// TestShuts: who is refused at a socket that serves others than the host itself.
func TestShuts(t *testing.T) {
	p, _ := fakePublisher(t)
	a := &admission{o: p.servers}
	open := func(r reach) { a.now.Store(&r) }
	open(reach{outside: true})
	if a.shuts(netip.MustParseAddr("10.1.0.2")) {
		t.Error("refused before the first state")
	}
	s := snapshot()
	s.Networks = []state.Network{
		{ID: "a", Internal: true, V4: state.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")}, V6: state.Subnet{Prefix: netip.MustParsePrefix("fd01::/64")}},
		{ID: "b", V4: state.Subnet{Prefix: netip.MustParsePrefix("10.2.0.0/24")}},
	}
	if err := p.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	clients := []string{"10.1.0.2", "::ffff:10.1.0.2", "fd01::2", "10.2.0.2", "10.1.0.1", "192.0.2.1"}
	for _, tt := range []struct {
		r    reach
		shut []bool // of the clients
	}{
		{reach{}, []bool{false, false, false, false, false, false}}, // the filter sees to it
		{reach{outside: true, containers: true}, []bool{true, true, true, false, false, false}},
		{reach{outside: true}, []bool{true, true, true, true, false, false}},
	} {
		open(tt.r)
		for i, addr := range clients {
			if a.shuts(netip.MustParseAddr(addr)) != tt.shut[i] {
				t.Errorf("%+v: %s: refused %v", tt.r, addr, !tt.shut[i])
			}
		}
	}
	if err := p.Follow(t.Context(), state.Compare(s, snapshot())); err != nil || a.shuts(netip.MustParseAddr("fd01::2")) {
		t.Errorf("refused after the network went: %v", err)
	}
}

// TestShutsLink: what comes by a bridge of ours is refused whatever its source, and lo never is.
func TestShutsLink(t *testing.T) {
	p, _ := fakePublisher(t)
	a := &admission{o: p.servers}
	for _, bridge := range []string{"lo", "br0"} { // lo is the one link that is there everywhere
		s := snapshot()
		s.Networks = []state.Network{{ID: "a", Bridge: bridge, V4: state.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24")}}}
		if err := p.Apply(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		a.now.Store(&reach{outside: true})
		if a.shutsLink(loopbackIndex) || a.shutsLink(0) || a.shutsLink(1<<30) {
			t.Errorf("with bridge %s: refused what is no bridge's", bridge)
		}
	}
	if name, err := linkName(loopbackIndex); name != "lo" || err != nil {
		t.Errorf("link 1 is %q: %v", name, err)
	}
}

// TestAdmission: a socket is closed until a state shows it, and a change of the mode exchanges its filter and leaves the socket
// alone.
func TestAdmission(t *testing.T) {
	for _, proto := range []state.Proto{state.TCP, state.UDP} {
		t.Run(proto.String(), func(t *testing.T) {
			p := realPublisher(t, Options{Mode: modeAsSaid})
			e := endpoint("a", "10.9.0.2/24", "fd09::2/64")
			e.Ports = reserve(t, p, e, ephemeral(proto, "", 80))
			sockets := map[*socket]bool{}
			for _, s := range p.held {
				sockets[s] = true
			}
			filters := func(when string, want int) {
				t.Helper()
				if len(p.held) != 2 {
					t.Fatalf("%s: %d sockets", when, len(p.held))
				}
				for _, s := range p.held {
					fd, err := s.server.(sleeper).descriptor()
					if got := getFilter(fd); got != want || err != nil || !sockets[s] {
						t.Errorf("%s: %s: filter of %d instructions, want %d (%v), the same socket %v", when, s.place(), got, want, err, sockets[s])
					}
				}
			}
			filters("reserved", len(guard))
			s := snapshot(e)
			for _, by := range []string{"Apply", "Follow"} {
				for _, m := range []state.Publish{"dnat", "host", "learned", "localhost", "host"} {
					next := snapshot(e)
					next.Networks = []state.Network{theNetwork(mode(m))}
					var err error
					if by == "Apply" {
						err = p.Apply(t.Context(), next)
					} else {
						err = p.Follow(t.Context(), state.Compare(s, next))
					}
					if err != nil {
						t.Fatal(err)
					}
					s = next
					want := len(guard)
					if m.ByHost() {
						want = len(everything)
					}
					filters(by+" "+string(m), want)
				}
			}
		})
	}
}
