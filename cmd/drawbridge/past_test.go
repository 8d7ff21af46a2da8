package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/state"
)

// withPorts is a network with a container in each way to publish.
func withPorts() state.Snapshot {
	id := func(c string) string { return strings.Repeat(c, 64) }
	s := state.Snapshot{Networks: []state.Network{{
		ID: state.NetworkID(id("1")), Bridge: "br-one", V4: state.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: netip.MustParseAddr("10.1.0.1")},
	}}}
	add := func(c string, mode state.Publish, ports ...state.Port) {
		addr := netip.PrefixFrom(netip.MustParseAddr("10.1.0.1"), 24)
		s.Endpoints = append(s.Endpoints, state.Endpoint{
			ID: state.EndpointID(id(c)), Network: s.Networks[0].ID, Addr4: addr, Ports: ports, Exposure: state.Exposure{Publish: mode},
		})
	}
	port := func(n uint16) state.Port { return state.Port{Proto: state.TCP, HostPort: n, ContainerPort: 80} }
	add("a", state.PublishInherit, port(8080), state.Port{Proto: state.TCP, HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8081, ContainerPort: 80})
	add("b", state.PublishDNAT, port(8082), state.Port{Proto: state.UDP, HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 8082, ContainerPort: 80})
	add("c", state.PublishHost, port(8083))
	add("f", state.PublishAuto, state.Port{Proto: state.SCTP, HostPort: 8085, ContainerPort: 80}) // which no socket can serve
	add("d", state.PublishAuto, port(8084))
	add("e", state.PublishDNAT, state.Port{Proto: state.TCP, HostIP: netip.IPv4Unspecified(), ContainerPort: 80})
	add("0", state.PublishDNAT, state.Port{Proto: state.TCP, HostIP: netip.IPv6Unspecified(), HostPort: 8086, ContainerPort: 80}) // behind INPUT, by a proxy
	s.Sort()
	return s
}

func TestPortsPast(t *testing.T) {
	guarded := hostfw.Finding{Active: true, Why: "ufw is active"}
	for _, tt := range []struct {
		name    string
		found   hostfw.Finding
		inherit state.Publish
		strict  bool
		want    []string
	}{
		{"guarded", guarded, state.PublishDNAT, false, []string{"0.0.0.0:8080/tcp", "0.0.0.0:8082/tcp", "192.0.2.1:8082/udp", "0.0.0.0:8085/sctp"}},
		{"guarded, auto", guarded, state.PublishAuto, false, []string{"0.0.0.0:8082/tcp", "192.0.2.1:8082/udp", "0.0.0.0:8085/sctp"}},
		{"open", hostfw.Finding{}, state.PublishDNAT, false, nil},
		{"strict", guarded, state.PublishDNAT, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := (&fakeHost{found: tt.found, strict: tt.strict}).auto(tt.inherit, discard())
			if err := a.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range portsPast(withPorts(), a.Finding(), control.Publishing{Modes: a.Modes()}) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWarnsOnce: of each port once, of new ones later, and of nothing while no firewall is known to be active.
func TestWarnsOnce(t *testing.T) {
	var log bytes.Buffer
	host := &fakeHost{}
	a := host.auto(state.PublishDNAT, slog.New(slog.NewTextHandler(&log, nil)))
	w := &pastWarner{a, func() control.Publishing { return control.Publishing{Modes: a.Modes()} }, map[warning]bool{}}
	s := withPorts()
	last := s
	step := func(change state.Change) error { return w.Apply(t.Context(), change.To) }
	expect := func(ports ...string) {
		t.Helper()
		log.Reset()
		if err := step(state.Compare(last, s)); err != nil {
			t.Fatal(err)
		}
		last = s
		last.Endpoints = slices.Clone(s.Endpoints)
		if n := strings.Count(log.String(), "level=WARN"); n != len(ports) {
			t.Errorf("%d warnings, want %d: %s", n, len(ports), log.String())
		}
		for _, p := range ports {
			if !strings.Contains(log.String(), "port="+p) || strings.HasSuffix(p, "/sctp") != !strings.Contains(lineOf(log.String(), p), "-o drawbridge.publish=host") {
				t.Errorf("no warning of %s, or one with the wrong advice: %s", p, log.String())
			}
		}
	}
	look := func() {
		t.Helper()
		if err := a.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect() // not looked at yet
	look()
	expect()
	host.found = hostfw.Finding{Active: true, Why: "ufw is active"}
	look()
	expect("0.0.0.0:8080/tcp", "0.0.0.0:8082/tcp", "192.0.2.1:8082/udp", "0.0.0.0:8085/sctp")
	expect()
	s.Endpoints[1].Ports = append(slices.Clone(s.Endpoints[1].Ports), state.Port{Proto: state.TCP, HostPort: 9000, ContainerPort: 80})
	expect("0.0.0.0:9000/tcp")
	// The port goes to a container of another network.
	other := s.Networks[0]
	other.ID = state.NetworkID(strings.Repeat("2", 64))
	s.Networks = append(s.Networks, other)
	s.Endpoints[1].Network = other.ID
	expect("0.0.0.0:8080/tcp", "0.0.0.0:9000/tcp")
	// Of what is changed alone.
	step = func(change state.Change) error { return w.Follow(t.Context(), change) }
	expect()
	clear(w.warned)
	s.Endpoints[1].Ports = append(slices.Clone(s.Endpoints[1].Ports), state.Port{Proto: state.TCP, HostPort: 9001, ContainerPort: 80})
	expect("0.0.0.0:8080/tcp", "0.0.0.0:9000/tcp", "0.0.0.0:9001/tcp")
	expect()
	// Networks that are gone are forgotten.
	step = func(change state.Change) error { return w.Apply(t.Context(), change.To) }
	s.Networks, s.Endpoints = nil, nil
	expect()
	if len(w.warned) > 0 {
		t.Errorf("it remembers %v", w.warned)
	}
}

// lineOf is the line of a log that is about a port.
func lineOf(log, port string) string {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "port="+port) {
			return line
		}
	}
	return ""
}
