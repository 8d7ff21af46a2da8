package publish

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// kernelHasSCTP says which half of openSCTP the tests below run.
func kernelHasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// TestSCTPConflicts: with a socket or without, nobody gets what another endpoint has.
func TestSCTPConflicts(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second state.PortRequest
		want          string
	}{
		{"same", exact(state.SCTP, "", 3868, 1), exact(state.SCTP, "", 3868, 2), "port 0.0.0.0:3868/sctp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"all, then v6", exact(state.SCTP, "", 3868, 1), exact(state.SCTP, "::", 3868, 2), "port [::]:3868/sctp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"v4, then v6", exact(state.SCTP, "0.0.0.0", 3868, 1), exact(state.SCTP, "::", 3868, 2), ""},
		{"a range", exact(state.SCTP, "0.0.0.0", 3868, 1), ranged(state.SCTP, "0.0.0.0", 3868, 3869, 2), ""},
		{"a full range", ranged(state.SCTP, "0.0.0.0", 3868, 3869, 1), ranged(state.SCTP, "0.0.0.0", 3868, 3868, 2), "port 0.0.0.0:3868/sctp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"},
		{"other protocol", exact(state.SCTP, "0.0.0.0", 3868, 1), exact(state.TCP, "0.0.0.0", 3868, 1), ""}, // none that the kernel lends to anybody's connection
		{"address of nobody", exact(state.SCTP, "0.0.0.0", 3868, 1), exact(state.SCTP, "203.0.113.9", 3869, 1), "port 203.0.113.9:3869/sctp cannot be published: 203.0.113.9 is not an address of this host"},
		{"link-local", exact(state.SCTP, "0.0.0.0", 3868, 1), exact(state.SCTP, "fe80::1", 3869, 1), "port [fe80::1]:3869/sctp cannot be published: fe80::1 is a link-local address, which is not unique on this host: give another address or none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := realPublisher(t, Options{})
			reserve(t, p, endpoint("a", c4, c6), tt.first)
			e := endpoint("b", c4, c6)
			_, err := p.Reserve(t.Context(), e, []state.PortRequest{tt.second})
			if text(err) != tt.want {
				t.Fatalf("error %q, want %q", text(err), tt.want)
			}
			p.Release(endpoint("a").ID, nil)
			if ports, err := p.Reserve(t.Context(), e, []state.PortRequest{exact(state.SCTP, "0.0.0.0", 3868, 1)}); err != nil {
				t.Errorf("after Release: %v %v", ports, err)
			}
		})
	}
}

// TestSCTPOverlap: an address and all addresses meet, too.
func TestSCTPOverlap(t *testing.T) {
	p, k := fakePublisher(t)
	clear(k.bound) // whatever the kernel knows
	reserve(t, p, endpoint("a", c4), exact(state.SCTP, "192.0.2.1", 3868, 1))
	clear(k.bound)
	_, err := p.Reserve(t.Context(), endpoint("b", c4), []state.PortRequest{exact(state.SCTP, "", 3868, 1)})
	if want := "port 0.0.0.0:3868/sctp is already published by endpoint aaaaaaaaaaaa of network ffffffffffff"; text(err) != want || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %q, want %q", text(err), want)
	}
}

// TestSCTPIsAppliedAndClosed: serving a port that is not served ends with it.
func TestSCTPIsAppliedAndClosed(t *testing.T) {
	p := realPublisher(t, Options{})
	e := endpoint("a", c4, c6)
	e.Ports = reserve(t, p, e, ephemeral(state.SCTP, "", 3868))
	apply(t, p, e)
	apply(t, p, e)
	if len(p.held) != 2 {
		t.Errorf("%d places are held", len(p.held))
	}
	apply(t, p)
	if len(p.held) != 0 {
		t.Errorf("%d places are left", len(p.held))
	}
}

// TestSCTPNeedsRules: with --iptables=false there is nobody to serve it.
func TestSCTPNeedsRules(t *testing.T) {
	p := realPublisher(t, Options{ServeAll: true})
	_, err := p.Reserve(t.Context(), endpoint("a", c4), []state.PortRequest{exact(state.SCTP, "", 3868, 1)})
	if want := "port 0.0.0.0:3868/sctp cannot be published: only firewall rules lead sctp to a container, and --iptables=false allows none"; text(err) != want {
		t.Errorf("error %q, want %q", text(err), want)
	}
}

// TestBound tries the socket calls with a protocol that every kernel has.
func TestBound(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		s, err := bound(netip.MustParseAddrPort(addr), unix.SOCK_STREAM, unix.IPPROTO_TCP)
		if err != nil {
			t.Fatal(err)
		}
		sa, err := unix.Getsockname(int(s.Fd()))
		if err != nil || portIn(sa) != 0 {
			t.Errorf("%s: bound to %v (%v), not to an address alone", addr, sa, err)
		}
		s.Close()
	}
	at := occupy(t, "tcp6", "[::1]:0")
	if _, err := bound(at.addr, unix.SOCK_STREAM, unix.IPPROTO_TCP); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
	var err error
	for range 50 { // of which one connection of somebody's may have one or the other, but not all
		if err = boundInBoth(occupy(t, "tcp6", "[::1]:0").addr.Port() - 1); err == nil {
			return
		}
	}
	t.Errorf("the families are not apart: %v", err)
}

// boundInBoth binds all addresses of both families, each by a socket of its own.
func boundInBoth(port uint16) error {
	v6, err := bound(netip.AddrPortFrom(any6, port), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer v6.Close()
	v4, err := bound(netip.AddrPortFrom(any4, port), unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	return v4.Close()
}

// TestSCTPSocketIsHeld is for kernels that have SCTP: others are refused.
func TestSCTPSocketIsHeld(t *testing.T) {
	if !kernelHasSCTP() {
		t.Skip("the kernel has no SCTP")
	}
	p := realPublisher(t, Options{})
	ports := reserve(t, p, endpoint("a", c4, c6), ephemeral(state.SCTP, "", 3868))
	for _, ip := range []netip.Addr{any4, any6} {
		s, err := bound(netip.AddrPortFrom(ip, ports[0].HostPort), unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v", ip, err)
		}
	}
}
