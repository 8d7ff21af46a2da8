package control

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/state"
)

// cmpNetip lets cmp look at addresses by value.
var cmpNetip = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// endpoint is one of network n with the families given.
func endpoint(id state.EndpointID, n state.Network, addr4, addr6 string, ports ...state.Port) state.Endpoint {
	e := state.Endpoint{ID: id, Network: n.ID, Ports: ports}
	if addr4 != "" {
		e.Addr4 = netip.MustParsePrefix(addr4)
	}
	if addr6 != "" {
		e.Addr6 = netip.MustParsePrefix(addr6)
	}
	return e
}

var (
	web    = state.Network{ID: "netaaaaaaaaa0000", Bridge: "br-web"}
	hidden = state.Network{ID: "netbbbbbbbbb0000", Bridge: "br-hid", Internal: true}
)

func snapshot(endpoints ...state.Endpoint) state.Snapshot {
	s := state.Snapshot{Revision: 7, Networks: []state.Network{web, hidden}, Endpoints: endpoints}
	s.Sort()
	return s
}

// byFlag is a daemon that nobody told anything.
var byFlag = Publishing{InheritWhy: "--publish"}

func TestPorts(t *testing.T) {
	const one, two = "epaaaaaaaaaa0000", "epbbbbbbbbbb0000"
	at := func(ip string) (a netip.Addr) {
		if ip != "" {
			a = addr(ip)
		}
		return a
	}
	tcp := func(ip string, host, container uint16) state.Port {
		return state.Port{Proto: state.TCP, HostIP: at(ip), HostPort: host, ContainerPort: container}
	}
	udp := func(ip string, host, container uint16) state.Port {
		return state.Port{Proto: state.UDP, HostIP: at(ip), HostPort: host, ContainerPort: container}
	}
	row := func(host string, hostPort uint16, p state.Proto, cont string, contPort uint16, e state.EndpointID) Port {
		mode, why := "dnat", "--publish"
		switch {
		case addr(host).IsLoopback():
			mode, why = "localhost", "published on a loopback address"
		case addr(host).Is6() != addr(cont).Is6():
			mode, why = "host", "the container has no address of this family: a proxy serves all"
		}
		return Port{addr(host), hostPort, p, addr(cont), contPort, mode, why, "", "", e, web.ID, web.Bridge}
	}
	rows := []struct {
		name  string
		state state.Snapshot
		want  []Port
	}{
		{"empty", state.Snapshot{}, []Port{}},
		{"nothing published", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64")), []Port{}},
		{"every address, both families", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64", tcp("", 8080, 80))), []Port{
			row("0.0.0.0", 8080, state.TCP, "10.0.0.2", 80, one),
			row("::", 8080, state.TCP, "fd00::2", 80, one),
		}},
		{"every address, container has IPv4 only", snapshot(endpoint(one, web, "10.0.0.2/24", "", tcp("", 8080, 80))), []Port{
			row("0.0.0.0", 8080, state.TCP, "10.0.0.2", 80, one),
		}},
		{"every address, container has IPv6 only", snapshot(endpoint(one, web, "", "fd00::2/64", tcp("", 8080, 80))), []Port{
			row("::", 8080, state.TCP, "fd00::2", 80, one),
		}},
		{"every IPv4 address", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64", tcp("0.0.0.0", 1, 80))), []Port{
			row("0.0.0.0", 1, state.TCP, "10.0.0.2", 80, one),
		}},
		{"every IPv6 address", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64", tcp("::", 1, 80))), []Port{
			row("::", 1, state.TCP, "fd00::2", 80, one),
		}},
		{"one address of each family", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64", tcp("192.0.2.1", 1, 80), tcp("2001:db8::1", 1, 80))), []Port{
			row("192.0.2.1", 1, state.TCP, "10.0.0.2", 80, one),
			row("2001:db8::1", 1, state.TCP, "fd00::2", 80, one),
		}},
		{"::1 for a container without IPv6", snapshot(endpoint(one, web, "10.0.0.2/24", "", tcp("::1", 1, 80))), []Port{
			row("::1", 1, state.TCP, "10.0.0.2", 80, one),
		}},
		{"127.0.0.1 for a container without IPv4", snapshot(endpoint(one, web, "", "fd00::2/64", tcp("127.0.0.1", 1, 80))), []Port{
			row("127.0.0.1", 1, state.TCP, "fd00::2", 80, one),
		}},
		{"loopback, both families", snapshot(endpoint(one, web, "10.0.0.2/24", "fd00::2/64", tcp("127.0.0.1", 1, 80), tcp("::1", 1, 80))), []Port{
			row("127.0.0.1", 1, state.TCP, "10.0.0.2", 80, one),
			row("::1", 1, state.TCP, "fd00::2", 80, one),
		}},
		{"an IPv6 address for a container without IPv6", snapshot(endpoint(one, web, "10.0.0.2/24", "", tcp("2001:db8::1", 1, 80), tcp("::", 2, 80))), []Port{
			row("2001:db8::1", 1, state.TCP, "10.0.0.2", 80, one),
			row("::", 2, state.TCP, "10.0.0.2", 80, one),
		}},
		{"an IPv4 address for a container without IPv4", snapshot(endpoint(one, web, "", "fd00::2/64", tcp("192.0.2.1", 1, 80))), []Port{
			row("192.0.2.1", 1, state.TCP, "fd00::2", 80, one),
		}},
		{"one family opened at the address of a container that lacks it", snapshot(endpoint(one, web, "10.0.0.2/24", "", tcp("::", 0, 80))), []Port{}},
		{"order", snapshot(
			endpoint(two, web, "10.0.0.3/24", "", udp("", 53, 53), tcp("192.0.2.9", 80, 80), tcp("", 443, 443)),
			endpoint(one, web, "10.0.0.2/24", "", tcp("192.0.2.1", 80, 8080), udp("", 52, 52)),
		), []Port{
			row("192.0.2.1", 80, state.TCP, "10.0.0.2", 8080, one),
			row("192.0.2.9", 80, state.TCP, "10.0.0.3", 80, two),
			row("0.0.0.0", 443, state.TCP, "10.0.0.3", 443, two),
			row("0.0.0.0", 52, state.UDP, "10.0.0.2", 52, one),
			row("0.0.0.0", 53, state.UDP, "10.0.0.3", 53, two),
		}},
		{"an internal network publishes nothing", snapshot(endpoint(one, hidden, "10.0.0.2/24", "fd00::2/64", tcp("", 8080, 80))), []Port{}},
		{"an endpoint without network", state.Snapshot{Endpoints: []state.Endpoint{endpoint(one, web, "10.0.0.2/24", "", tcp("", 1, 1))}}, []Port{}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if diff := cmp.Diff(r.want, Ports(r.state, byFlag), cmpNetip); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPortsDoesNotChangeTheSnapshot(t *testing.T) {
	build := func() state.Snapshot {
		return snapshot(endpoint("epaaaaaaaaaa0000", web, "10.0.0.2/24", "",
			state.Port{Proto: state.UDP, HostPort: 9, ContainerPort: 9}, state.Port{Proto: state.TCP, HostPort: 1, ContainerPort: 1}))
	}
	s := build()
	Ports(s, byFlag)
	if diff := cmp.Diff(build(), s, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpNetip); diff != "" {
		t.Error(diff)
	}
}

// The order of endpoints and of their ports in the state does not show.
func TestPortsOrderIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		port := rapid.Custom(func(t *rapid.T) state.Port {
			return state.Port{
				Proto:         rapid.SampledFrom([]state.Proto{state.TCP, state.UDP, state.SCTP}).Draw(t, "proto"),
				HostIP:        rapid.SampledFrom([]netip.Addr{{}, addr("0.0.0.0"), addr("::"), addr("192.0.2.1")}).Draw(t, "ip"),
				HostPort:      rapid.Uint16Range(1, 3).Draw(t, "host"),
				ContainerPort: rapid.Uint16Range(1, 3).Draw(t, "container"),
			}
		})
		ports := rapid.SliceOfN(port, 0, 8).Draw(t, "ports")
		first := Ports(snapshot(endpoint("epaaaaaaaaaa0000", web, "10.0.0.2/24", "fd00::2/64", ports...)), byFlag)
		other := rapid.Permutation(ports).Draw(t, "permuted")
		second := Ports(snapshot(endpoint("epaaaaaaaaaa0000", web, "10.0.0.2/24", "fd00::2/64", other...)), byFlag)
		if diff := cmp.Diff(first, second, cmpNetip); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestPortJSON(t *testing.T) {
	p := Port{addr("0.0.0.0"), 8080, state.TCP, addr("10.0.0.2"), 80, "host", "--publish", "192.0.2.0/24,2001:db8::/32", "eth0:wg0", "epaaaaaaaaaa0000", web.ID, web.Bridge}
	got, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"hostAddress":"0.0.0.0","hostPort":8080,"protocol":"tcp","containerAddress":"10.0.0.2","containerPort":80,` +
		`"mode":"host","why":"--publish","from":"192.0.2.0/24,2001:db8::/32","interfaces":"eth0:wg0",` +
		`"endpoint":"epaaaaaaaaaa0000","network":"netaaaaaaaaa0000","bridge":"br-web"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	var back Port
	if err := json.Unmarshal(got, &back); err != nil || back != p {
		t.Errorf("read back as %v, %v", back, err)
	}
}
