package publish

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

func TestBindings(t *testing.T) {
	const c4, c6 = "172.18.0.2/16", "fd00:18::2/64"
	tests := []struct {
		name  string
		addrs []string
		ip    string
		want  []string // socket -> target
		err   string
	}{
		{"everywhere, both", []string{c4, c6}, "", []string{"0.0.0.0:8080 -> 172.18.0.2:80", "[::]:8080 -> [fd00:18::2]:80"}, ""},
		{"everywhere, v4 only", []string{c4}, "", []string{"0.0.0.0:8080 -> 172.18.0.2:80", "[::1]:8080 -> 172.18.0.2:80 helper"}, ""},
		{"everywhere, v6 only", []string{c6}, "", []string{"[::]:8080 -> [fd00:18::2]:80", "127.0.0.1:8080 -> [fd00:18::2]:80 helper"}, ""},
		{"all v4", []string{c4, c6}, "0.0.0.0", []string{"0.0.0.0:8080 -> 172.18.0.2:80"}, ""},
		{"all v6", []string{c4, c6}, "::", []string{"[::]:8080 -> [fd00:18::2]:80"}, ""},
		{"one v4", []string{c4}, "192.0.2.1", []string{"192.0.2.1:8080 -> 172.18.0.2:80"}, ""},
		{"one v6", []string{c6}, "2001:db8::1", []string{"[2001:db8::1]:8080 -> [fd00:18::2]:80"}, ""},
		{"v4 loopback", []string{c4, c6}, "127.0.0.1", []string{"127.0.0.1:8080 -> 172.18.0.2:80"}, ""},
		{"v6 loopback", []string{c4, c6}, "::1", []string{"[::1]:8080 -> [fd00:18::2]:80"}, ""},
		{"v4 loopback of a v6 container", []string{c6}, "127.0.0.5", []string{"127.0.0.5:8080 -> [fd00:18::2]:80"}, ""},
		{"v6 loopback of a v4 container", []string{c4}, "::1", []string{"[::1]:8080 -> 172.18.0.2:80"}, ""},
		{"v4 address, v6 container", []string{c6}, "192.0.2.1", []string{"192.0.2.1:8080 -> [fd00:18::2]:80"}, ""},
		{"all v4, v6 container", []string{c6}, "0.0.0.0", []string{"0.0.0.0:8080 -> [fd00:18::2]:80"}, ""},
		{"v6 address, v4 container", []string{c4}, "2001:db8::1", []string{"[2001:db8::1]:8080 -> 172.18.0.2:80"}, ""},
		{"no address", nil, "", nil, "port *:8080/tcp cannot be published: the container has no address on this network"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := endpoint("a", tt.addrs...)
			port := portOf(exact(state.TCP, tt.ip, 8080, 80))
			bs, err := bindings(e, port)
			if got := text(err); got != tt.err {
				t.Fatalf("error %q, want %q", got, tt.err)
			}
			var got []string
			for _, b := range bs {
				line := b.addr.String() + " -> " + b.target.String()
				if b.helper {
					line += " helper"
				}
				got = append(got, line)
				if b.endpoint != e.ID || b.network != e.Network || b.port != port {
					t.Errorf("binding %s belongs to %s %s %s", line, b.endpoint, b.network, b.port)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
		})
	}
}

// SCTP is not proxied: there is nothing to be had on a loopback address.
func TestBindingsOfSCTP(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
		ip    string
		want  []string
		err   string
	}{
		{"everywhere, both", []string{c4, c6}, "", []string{"0.0.0.0:3868/sctp", "[::]:3868/sctp"}, ""},
		{"everywhere, v4 only", []string{c4}, "", []string{"0.0.0.0:3868/sctp"}, ""},
		{"everywhere, v6 only", []string{c6}, "", []string{"[::]:3868/sctp"}, ""},
		{"one v4", []string{c4, c6}, "192.0.2.1", []string{"192.0.2.1:3868/sctp"}, ""},
		{
			"v4 loopback",
			[]string{c4, c6},
			"127.0.0.1", nil,
			"port 127.0.0.1:3868/sctp cannot be published: sctp is not served on loopback addresses, give another host address or none",
		},
		{
			"v6 loopback",
			[]string{c4, c6},
			"::1", nil,
			"port [::1]:3868/sctp cannot be published: sctp is not served on loopback addresses, give another host address or none",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bs, err := bindings(endpoint("a", tt.addrs...), portOf(exact(state.SCTP, tt.ip, 3868, 3868)))
			if text(err) != tt.err {
				t.Fatalf("error %q, want %q", text(err), tt.err)
			}
			var got []string
			for _, b := range bs {
				got = append(got, b.place().String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOverlaps(t *testing.T) {
	tests := []struct {
		name string
		a, b string
		q    state.Proto
		want bool
	}{
		{"same", "127.0.0.1:80", "127.0.0.1:80", state.TCP, true},
		{"wildcard", "0.0.0.0:80", "127.0.0.1:80", state.TCP, true},
		{"wildcard of v6", "[::]:80", "[::1]:80", state.TCP, true},
		{"two addresses", "127.0.0.1:80", "127.0.0.2:80", state.TCP, false},
		{"two families", "0.0.0.0:80", "[::]:80", state.TCP, false},
		{"two ports", "0.0.0.0:80", "0.0.0.0:81", state.TCP, false},
		{"two protocols", "0.0.0.0:80", "0.0.0.0:80", state.UDP, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := place{state.TCP, netip.MustParseAddrPort(tt.a)}
			b := place{tt.q, netip.MustParseAddrPort(tt.b)}
			if got, back := a.overlaps(b), b.overlaps(a); got != tt.want || back != tt.want {
				t.Errorf("overlaps: %v and %v, want %v", got, back, tt.want)
			}
		})
	}
}
