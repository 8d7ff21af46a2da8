package publish

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/drawbridge-net/drawbridge/state"
)

const c4, c6 = "172.18.0.2/16", "fd00:18::2/64"

func places(k *kernel) []string { return slices.Sorted(maps.Keys(k.list())) }

func names(ports []state.Port) []string {
	var out []string
	for _, p := range ports {
		out = append(out, p.String())
	}
	return out
}

func TestReserve(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
		taken []string // by other programs, TCP
		want  []state.PortRequest
		ports []string
		held  []string
		err   string
	}{
		{
			name: "nothing", addrs: []string{c4},
		}, {
			name: "exact, both families", addrs: []string{c4, c6},
			want:  []state.PortRequest{exact(state.TCP, "", 8080, 80)},
			ports: []string{"*:8080/tcp"},
			held:  []string{"0.0.0.0:8080/tcp", "[::]:8080/tcp"},
		}, {
			name: "exact, v4 with helper", addrs: []string{c4},
			want:  []state.PortRequest{exact(state.UDP, "", 53, 53)},
			ports: []string{"*:53/udp"},
			held:  []string{"0.0.0.0:53/udp", "[::1]:53/udp"},
		}, {
			name: "exact, v6 with helper", addrs: []string{c6},
			want:  []state.PortRequest{exact(state.UDP, "", 53, 53)},
			ports: []string{"*:53/udp"},
			held:  []string{"127.0.0.1:53/udp", "[::]:53/udp"},
		}, {
			name: "exact before range before ephemeral", addrs: []string{c4, c6},
			want: []state.PortRequest{
				ephemeral(state.TCP, "127.0.0.1", 3), ranged(state.TCP, "127.0.0.1", 8000, 8001, 2), exact(state.TCP, "127.0.0.1", 8000, 1),
			},
			taken: []string{"127.0.0.1:40000", "127.0.0.1:40002"},
			ports: []string{"127.0.0.1:8000/tcp", "127.0.0.1:8001/tcp", "127.0.0.1:40003/tcp"},
			held:  []string{"127.0.0.1:8000/tcp", "127.0.0.1:8001/tcp", "127.0.0.1:40003/tcp"},
		}, {
			name: "one number in both families", addrs: []string{c4, c6},
			want:  []state.PortRequest{ephemeral(state.TCP, "", 80)},
			taken: []string{"0.0.0.0:40000", "[::1]:40003"},
			ports: []string{"*:40002/tcp"},
			held:  []string{"0.0.0.0:40002/tcp", "[::]:40002/tcp"},
		}, {
			name: "helper has the number too", addrs: []string{c4},
			want:  []state.PortRequest{ranged(state.TCP, "", 8000, 8005, 80)},
			taken: []string{"127.0.0.1:8000", "[::1]:8001"},
			ports: []string{"*:8002/tcp"},
			held:  []string{"0.0.0.0:8002/tcp", "[::1]:8002/tcp"},
		}, {
			name: "same number in two protocols", addrs: []string{c4, c6},
			want:  []state.PortRequest{exact(state.UDP, "", 53, 53), exact(state.TCP, "", 53, 53)},
			ports: []string{"*:53/tcp", "*:53/udp"},
			held:  []string{"0.0.0.0:53/tcp", "0.0.0.0:53/udp", "[::]:53/tcp", "[::]:53/udp"},
		}, {
			name: "all or nothing", addrs: []string{c4, c6},
			want:  []state.PortRequest{exact(state.TCP, "", 80, 80), exact(state.TCP, "", 443, 443), ephemeral(state.TCP, "", 1)},
			taken: []string{"[::]:443"},
			err:   "port [::]:443/tcp is already in use on this host",
		}, {
			name: "helper taken", addrs: []string{c4},
			want:  []state.PortRequest{exact(state.TCP, "", 80, 80)},
			taken: []string{"[::1]:80"},
			err:   "port [::1]:80/tcp is already in use on this host",
		}, {
			name: "range full", addrs: []string{c4},
			want:  []state.PortRequest{exact(state.TCP, "", 80, 80), ranged(state.TCP, "", 81, 82, 80)},
			taken: []string{"0.0.0.0:81", "0.0.0.0:82"},
			err:   "no host port of 81-82/tcp is free for container port 80",
		}, {
			name: "no ephemeral left", addrs: []string{c4},
			want: []state.PortRequest{ephemeral(state.TCP, "", 1), ephemeral(state.TCP, "", 2), ephemeral(state.TCP, "", 3), ephemeral(state.TCP, "", 4)},
			err:  "no ephemeral host port is free for container port 4/tcp: widen the sysctl net.ipv4.ip_local_port_range",
		}, {
			name: "twice", addrs: []string{c4},
			want: []state.PortRequest{exact(state.TCP, "127.0.0.1", 80, 80), exact(state.TCP, "127.0.0.1", 80, 80)},
			err:  "port 127.0.0.1:80/tcp is requested twice",
		}, {
			name: "twice in one range", addrs: []string{c4},
			want:  []state.PortRequest{ranged(state.TCP, "127.0.0.1", 80, 81, 80), ranged(state.TCP, "127.0.0.1", 80, 81, 80)},
			ports: []string{"127.0.0.1:80/tcp", "127.0.0.1:81/tcp"},
			held:  []string{"127.0.0.1:80/tcp", "127.0.0.1:81/tcp"},
		}, {
			name: "family the container lacks", addrs: []string{c4},
			want:  []state.PortRequest{exact(state.TCP, "0.0.0.0", 80, 80), exact(state.TCP, "::", 81, 80)},
			ports: []string{"0.0.0.0:80/tcp", "[::]:81/tcp"},
			held:  []string{"0.0.0.0:80/tcp", "[::]:81/tcp"},
		}, {
			name: "sctp in a family the container lacks", addrs: []string{c4},
			want: []state.PortRequest{exact(state.TCP, "", 80, 80), exact(state.SCTP, "::", 81, 80)},
			err:  "port [::]:81/sctp cannot be published: sctp is not led from one address family to the other, give a host address of the container's",
		}, {
			name: "invalid", addrs: []string{c4},
			want: []state.PortRequest{exact(state.TCP, "", 80, 80), exact(33, "", 80, 80)},
			err:  "container port 80 cannot be published with protocol 33: tcp, udp and sctp are supported",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, k := fakePublisher(t)
			for _, addr := range tt.taken {
				k.take(addr, state.TCP)
			}
			before := k.list()
			asked := slices.Clone(tt.want)
			ports, err := p.Reserve(t.Context(), endpoint("a", tt.addrs...), tt.want)
			if text(err) != tt.err {
				t.Fatalf("error %q, want %q", text(err), tt.err)
			}
			if diff := cmp.Diff(asked, tt.want, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("the caller's requests were changed:\n%s", diff)
			}
			if diff := cmp.Diff(tt.ports, names(ports)); diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			held := k.list()
			maps.DeleteFunc(held, func(at string, _ bool) bool { return before[at] })
			if diff := cmp.Diff(tt.held, slices.Sorted(maps.Keys(held)), cmpopts.SortSlices(func(a, b string) bool { return a < b }), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReserveHelperWithoutFamily(t *testing.T) {
	tests := []struct {
		name    string
		addrs   []string
		refused netip.Addr
		err     error
		held    []string
		want    string
	}{
		{"no v6 in the kernel", []string{c4}, self6, syscall.EAFNOSUPPORT, []string{"0.0.0.0:80/tcp"}, ""},
		{"v6 turned off", []string{c4}, self6, syscall.EADDRNOTAVAIL, []string{"0.0.0.0:80/tcp"}, ""},
		{"no 127.0.0.1", []string{c6}, self4, syscall.EADDRNOTAVAIL, []string{"[::]:80/tcp"}, ""},
		{"other trouble counts", []string{c4}, self6, syscall.ENOBUFS, nil, "binding port [::1]:80/tcp: no buffer space available"},
		{"no helper, no leniency", []string{c4, c6}, any6, syscall.EAFNOSUPPORT, nil, "port [::]:80/tcp cannot be published: this host has no IPv6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, k := fakePublisher(t)
			k.refuse[tt.refused] = tt.err
			e := endpoint("a", tt.addrs...)
			ports, err := p.Reserve(t.Context(), e, []state.PortRequest{exact(state.TCP, "", 80, 80)})
			if text(err) != tt.want {
				t.Fatalf("error %q, want %q", text(err), tt.want)
			}
			if diff := cmp.Diff(tt.held, places(k), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
			apply(t, p, with(e, ports...)) // a missing helper is no failure there either
		})
	}
}

func TestReserveConflictWithOurs(t *testing.T) {
	tests := []struct {
		name  string
		first state.PortRequest
		then  state.PortRequest
		want  string
	}{
		{"same", exact(state.TCP, "", 80, 80), exact(state.TCP, "", 80, 81), "port 0.0.0.0:80/tcp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"ours is wider", exact(state.TCP, "", 80, 80), exact(state.TCP, "192.0.2.1", 80, 80), "port 192.0.2.1:80/tcp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"ours is narrower", exact(state.TCP, "127.0.0.1", 80, 80), exact(state.TCP, "", 80, 80), "port 0.0.0.0:80/tcp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"v6", exact(state.UDP, "::", 80, 80), exact(state.UDP, "::1", 80, 80), "port [::1]:80/udp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"other protocol", exact(state.TCP, "", 80, 80), exact(state.UDP, "", 80, 80), ""},
		{"other address", exact(state.TCP, "127.0.0.1", 80, 80), exact(state.TCP, "127.0.0.2", 80, 80), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := fakePublisher(t)
			reserve(t, p, endpoint("a", c4, c6), tt.first)
			_, err := p.Reserve(t.Context(), endpoint("b", c4, c6), []state.PortRequest{tt.then})
			if text(err) != tt.want {
				t.Errorf("error %q, want %q", text(err), tt.want)
			}
			if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
				t.Error("is not an EADDRINUSE")
			}
		})
	}
}

func TestReserveAgain(t *testing.T) {
	e := endpoint("a", c4, c6)
	want := []state.PortRequest{
		exact(state.TCP, "", 8080, 80), ranged(state.TCP, "", 9000, 9009, 80),
		ephemeral(state.TCP, "", 80), ephemeral(state.TCP, "", 80), ephemeral(state.UDP, "", 53),
	}
	tests := []struct {
		name      string
		committed bool // the store has the ports
		applied   bool
		restarted bool // the publisher is new
	}{
		{"before the commit", false, false, false},
		{"after the commit", true, false, false},
		{"after Apply", true, true, false},
		{"after a restart", true, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, k := fakePublisher(t)
			first := reserve(t, p, e, want...)
			again := e
			if tt.committed {
				again = with(e, first...)
			}
			if tt.applied {
				apply(t, p, again)
			}
			if tt.restarted {
				p, k = fakePublisher(t)
			}
			second := reserve(t, p, again, want...)
			// Two like requests may swap their ports.
			if diff := cmp.Diff(slices.Sorted(slices.Values(names(first))), slices.Sorted(slices.Values(names(second)))); diff != "" {
				t.Errorf("ports differ (-first +second):\n%s", diff)
			}
			if got := len(k.list()); got != 10 {
				t.Errorf("%d sockets, want 10: %v", got, places(k))
			}
			if tt.restarted {
				return
			}
			if k.opens > 20 { // five ports of two families, and what the random search met
				t.Errorf("bind was tried %d times", k.opens)
			}
		})
	}
}

// The same endpoint may ask for another container port behind a host port that it has.
func TestReserveChangedContainerPort(t *testing.T) {
	p, k := fakePublisher(t)
	e := endpoint("a", c4)
	old := with(e, reserve(t, p, e, exact(state.TCP, "", 80, 8080))...)
	apply(t, p, old)
	changed := with(e, reserve(t, p, old, exact(state.TCP, "", 80, 9090))...)
	apply(t, p, old) // a pass that began before the commit
	if got := targetOf(p, "0.0.0.0:80"); got != "172.18.0.2:8080" {
		t.Errorf("before the commit clients end at %s", got)
	}
	apply(t, p, changed)
	for _, at := range []string{"0.0.0.0:80", "[::1]:80"} {
		if got := targetOf(p, at); got != "172.18.0.2:9090" {
			t.Errorf("clients of %s end at %s", at, got)
		}
	}
	p.Release(e.ID, changed.Ports)
	if got := len(k.list()); got != 2 {
		t.Errorf("sockets %v", places(k))
	}
}

func targetOf(p *Publisher, addr string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.held[place{state.TCP, netip.MustParseAddrPort(addr)}]; ok {
		return s.target.String()
	}
	return "nothing"
}

// A failed second call must not lose what the first one got.
func TestReserveFailureKeepsEarlier(t *testing.T) {
	p, k := fakePublisher(t)
	e := endpoint("a", c4)
	reserve(t, p, e, exact(state.TCP, "", 80, 80))
	k.take("0.0.0.0:82", state.TCP)
	before := places(k)
	_, err := p.Reserve(t.Context(), e, []state.PortRequest{exact(state.TCP, "", 80, 80), exact(state.TCP, "", 81, 80), exact(state.TCP, "", 82, 80)})
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(before, places(k)); diff != "" {
		t.Errorf("sockets (-before +after):\n%s", diff)
	}
	apply(t, p, e) // still reserved
	if diff := cmp.Diff(before, places(k)); diff != "" {
		t.Errorf("sockets after Apply (-before +after):\n%s", diff)
	}
}

func TestRelease(t *testing.T) {
	p, k := fakePublisher(t)
	a, b := endpoint("a", c4), endpoint("b", c4)
	ports := reserve(t, p, a, exact(state.TCP, "", 80, 80), exact(state.TCP, "", 81, 81))
	reserve(t, p, b, exact(state.TCP, "", 90, 90))
	tests := []struct {
		name string
		id   state.EndpointID
		keep []state.Port
		want []string
	}{
		{"unknown endpoint", endpoint("c").ID, nil, []string{"0.0.0.0:80/tcp", "0.0.0.0:81/tcp", "0.0.0.0:90/tcp", "[::1]:80/tcp", "[::1]:81/tcp", "[::1]:90/tcp"}},
		{"all kept", a.ID, ports, []string{"0.0.0.0:80/tcp", "0.0.0.0:81/tcp", "0.0.0.0:90/tcp", "[::1]:80/tcp", "[::1]:81/tcp", "[::1]:90/tcp"}},
		{"one kept", a.ID, ports[:1], []string{"0.0.0.0:80/tcp", "0.0.0.0:90/tcp", "[::1]:80/tcp", "[::1]:90/tcp"}},
		{"none kept", a.ID, nil, []string{"0.0.0.0:90/tcp", "[::1]:90/tcp"}},
		{"again", a.ID, nil, []string{"0.0.0.0:90/tcp", "[::1]:90/tcp"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p.Release(tt.id, tt.keep)
			if diff := cmp.Diff(tt.want, places(k)); diff != "" {
				t.Errorf("sockets (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReserveEnded(t *testing.T) {
	p, k := fakePublisher(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Reserve(ctx, endpoint("a", c4), []state.PortRequest{ephemeral(state.TCP, "", 80)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err = p.Reserve(t.Context(), endpoint("a", c4), nil); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
	if k.opens != 0 {
		t.Errorf("%d sockets were opened", k.opens)
	}
}
