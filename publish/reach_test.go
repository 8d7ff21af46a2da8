package publish

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
	limited := state.Exposure{Publish: state.PublishHost, From: "192.0.2.0/24", Links: "eth0"}
	translated := limited
	translated.Publish = state.PublishDNAT
	outside := reach{outside: true}
	full := reach{outside: true, asClient: true}
	tests := []struct {
		name    string
		network state.Network
		own     state.Publish
		e       state.Endpoint
		ip      string
		unruled string // families
		want    string // by the addresses of the sockets
	}{
		{"dnat", theNetwork(mode(state.PublishDNAT)), "", both, "", "", "0.0.0.0 {}, :: {}"},
		{"nothing said", theNetwork(state.Exposure{}), "", both, "", "", "0.0.0.0 {}, :: {}"},
		{"host", theNetwork(mode(state.PublishHost)), "", both, "", "", "0.0.0.0 full, :: full"},
		{"learned", theNetwork(mode(state.PublishLearned)), "", both, "192.0.2.1", "", "192.0.2.1 full"},
		{"localhost", theNetwork(mode(state.PublishLocalhost)), "", both, "", "", "0.0.0.0 {}, :: {}"},
		{"the endpoint's own", theNetwork(mode(state.PublishHost)), state.PublishLocalhost, both, "", "", "0.0.0.0 {}, :: {}"},
		{"the endpoint's own, host", theNetwork(state.Exposure{}), state.PublishHost, both, "", "", "0.0.0.0 full, :: full"},
		{"on a loopback address", theNetwork(mode(state.PublishHost)), "", both, "127.0.0.1", "", "127.0.0.1 {}"},
		{"helper", theNetwork(mode(state.PublishHost)), "", only4, "", "", "0.0.0.0 full, ::1 {}"},
		{"other family", theNetwork(mode(state.PublishHost)), "", only4, "::", "", ":: all"},
		{"other family, dnat", theNetwork(mode(state.PublishDNAT)), "", only4, "::", "", ":: all"},
		{"other family, localhost", theNetwork(mode(state.PublishLocalhost)), "", only4, "::", "", ":: {}"},
		{"another router", routed, "", both, "", "", "0.0.0.0 outside, :: full"},
		{"no address on the bridge", unaddressed, "", both, "", "", "0.0.0.0 full, :: outside"},
		{"no firewall of ours", theNetwork(mode(state.PublishHost)), "", both, "", "46", "0.0.0.0 all, :: all"},
		{"no firewall of ours, localhost", theNetwork(mode(state.PublishLocalhost)), "", both, "", "46", "0.0.0.0 {}, :: {}"},
		{"no firewall of ours in IPv6", theNetwork(mode(state.PublishDNAT)), "", both, "", "6", "0.0.0.0 {}, :: all"},
		{"limits", theNetwork(limited), "", both, "", "", "0.0.0.0 full limited, :: full limited"},
		{"limits, dnat", theNetwork(translated), "", both, "", "", "0.0.0.0 {} limited, :: {} limited"},
		{"limits, helper", theNetwork(limited), "", only4, "", "", "0.0.0.0 full limited, ::1 {}"},
		{"limits, other family", theNetwork(limited), "", only4, "::", "", ":: all limited"},
		{"limits that no rule keeps", theNetwork(limited), "", both, "", "46", "0.0.0.0 {} limited, :: {} limited"},
		{"limits that no rule keeps in IPv6", theNetwork(limited), "", both, "", "6", "0.0.0.0 full limited, :: {} limited"},
		{"limits that no rule keeps, other family", theNetwork(limited), "", only4, "::", "6", ":: {} limited"},
	}
	words := map[reach]string{{}: "{}", outside: "outside", full: "full", {outside: true, containers: true}: "all"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := New(Options{Mode: modeAsSaid, ServeAll: tt.unruled == "46", ServeAllV6: tt.unruled == "6"})
			e := tt.e
			e.Exposure.Publish = tt.own
			e.Ports = []state.Port{portOf(exact(state.TCP, tt.ip, 8080, 80))}
			s := snapshot(e)
			s.Networks = []state.Network{tt.network}
			var got []string
			for _, b := range newPlan(s.Endpoints).bindings {
				r := p.reach(s, b)
				text := ""
				if r.from == limited.From && r.links == limited.Links {
					text = " limited"
				}
				r.from, r.links = "", ""
				got = append(got, b.addr.Addr().String()+" "+words[r]+text)
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

// TestKeepsOut: whom a port's limits refuse.
func TestKeepsOut(t *testing.T) {
	p, _ := fakePublisher(t)
	a := &admission{o: p.servers}
	const unknown = 0
	from4 := state.Prefixes("192.0.2.0/24")
	tests := []struct {
		name          string
		from          state.Prefixes
		links         state.LinkNames
		client, local string
		link          int
		refused       bool
	}{
		{"no limits", "", "", "198.51.100.7", "203.0.113.1", unknown, false},
		{"within", from4, "", "192.0.2.7", "203.0.113.1", unknown, false},
		{"within, as a socket tells it", from4, "", "::ffff:192.0.2.7", "203.0.113.1", unknown, false},
		{"without", from4, "", "198.51.100.7", "203.0.113.1", unknown, true},
		{"no prefixes of the family", from4, "", "2001:db8::7", "2001:db8::1", unknown, true},
		{"all of the family", "::/0", "", "2001:db8::7", "2001:db8::1", unknown, false},
		{"all of the other", "::/0", "", "192.0.2.7", "203.0.113.1", unknown, true},
		{"a zone", "fe80::/10", "", "fe80::7%lo", "ff02::1", unknown, false},
		{"the host itself", from4, "other", "198.51.100.7", "203.0.113.1", loopbackIndex, false},
		{"an address of the host, to the same", from4, "other", "2001:db8::1", "2001:db8::1", unknown, false},
		{"a loopback address, not by lo", from4, "", "127.0.0.1", "203.0.113.1", unknown, true},
		{"not by a link that is listed", "", "lo", "198.51.100.7", "203.0.113.1", unknown, true},
		{"by one that is gone", "", "lo", "198.51.100.7", "203.0.113.1", 1 << 30, true},
		{"within, not by a link that is listed", from4, "lo", "192.0.2.7", "203.0.113.1", unknown, true},
	}
	for _, tt := range tests {
		for _, outside := range []bool{true, false} {
			a.now.Store(&reach{outside: outside, from: tt.from, links: tt.links})
			if got := a.keepsOut(netip.MustParseAddr(tt.client), netip.MustParseAddr(tt.local), tt.link); got != tt.refused {
				t.Errorf("%s, outside %v: refused %v", tt.name, outside, got)
			}
		}
	}
}

// TestAdmitFails: limits count from the first, whatever filter the socket has, and the next time it is exchanged.
func TestAdmitFails(t *testing.T) {
	o := &sockets{}
	srv, err := o.openTCP(binding{addr: netip.AddrPortFrom(self4, 0), port: state.Port{Proto: state.TCP}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	tcp := srv.(*tcpServer)
	if err := tcp.admit(reach{outside: true}); err != nil {
		t.Fatal(err)
	}
	limited := reach{outside: true, from: "192.0.2.0/24"}
	if err := tcp.admission.admit(-1, limited); err == nil || !tcp.reach().limited() {
		t.Errorf("without a filter: %v, limits %v", err, tcp.reach().limited())
	}
	if err := tcp.admit(limited); err != nil || getFilter(tcp.fd) != len(honest4) {
		t.Errorf("the next time: %v, filter of %d instructions", err, getFilter(tcp.fd))
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
			filters := func(when string, want func(place) int) {
				t.Helper()
				if len(p.held) != 2 {
					t.Fatalf("%s: %d sockets", when, len(p.held))
				}
				for _, s := range p.held {
					fd, err := s.server.(sleeper).descriptor()
					if got := getFilter(fd); got != want(s.place()) || err != nil || !sockets[s] {
						t.Errorf("%s: %s: filter of %d instructions, want %d (%v), the same socket %v", when, s.place(), got, want(s.place()), err, sockets[s])
					}
				}
			}
			filters("reserved", func(place) int { return len(guard) })
			s := snapshot(e)
			for _, by := range []string{"Apply", "Follow"} {
				for _, x := range []state.Exposure{
					mode("dnat"), mode("host"), mode("learned"),
					{Publish: "host", From: "192.0.2.0/24"},
					{Publish: "learned", Links: "eth0"},
					mode("host"), mode("localhost"),
					{Publish: "dnat", Links: "eth0"},
					mode("host"),
				} {
					next := snapshot(e)
					next.Networks = []state.Network{theNetwork(x)}
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
					want := func(at place) int {
						switch {
						case !x.Publish.ByHost():
							return len(guard)
						case !x.Limited():
							return len(everything)
						case at.addr.Addr().Is4():
							return len(honest4)
						}
						return len(honest6)
					}
					filters(fmt.Sprintf("%s %+v", by, x), want)
				}
			}
		})
	}
}

// TestAdmitBesideTheFirstClient: who comes to a port changes at the moment of its first client, when the socket gets another descriptor.
// The filter comes to the socket that listens, and not to that client.
func TestAdmitBesideTheFirstClient(t *testing.T) {
	o := New(Options{}).servers
	for range 1000 {
		opened, err := o.openTCP(binding{port: state.Port{Proto: state.TCP}, addr: netip.MustParseAddrPort("127.0.0.1:0")})
		if err != nil {
			t.Fatal(err)
		}
		server := opened.(*tcpServer)
		name, err := unix.Getsockname(server.fd)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp4", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(portIn(name))).String())
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan *net.TCPConn)
		go func() {
			first, err := server.accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- first
		}()
		if err := server.admit(reach{outside: true}); err != nil {
			t.Error(err)
		}
		if first := <-accepted; first != nil {
			first.Close()
		}
		fd, err := server.descriptor()
		if got := getFilter(fd); got != len(everything) || err != nil {
			t.Errorf("the socket that listens has a filter of %d instructions, want %d (%v)", got, len(everything), err)
		}
		client.Close()
		server.Close()
	}
}
