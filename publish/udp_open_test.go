package publish

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestOpenBesideAClient: a client's source port, which a socket of ours bears, keeps no port from being published. A port that somebody else has stays his, and
// one that is published is nobody else's.
func TestOpenBesideAClient(t *testing.T) {
	reusing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		_ = c.Control(func(fd uintptr) { err = reuse(int(fd), 1) })
		return err
	}}
	client, err := reusing.ListenPacket(t.Context(), "udp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	has := client.LocalAddr().(*net.UDPAddr).AddrPort()
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), has.Port())
	b := binding{addr: at, port: state.Port{Proto: state.UDP}}
	o := &sockets{}
	if s, err := o.openUDP(t.Context(), b); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the port of a program of the host was published: %v %v", s, err)
	}
	if !o.pairs.take(pair{client: has, target: netip.MustParseAddrPort("192.0.2.2:53")}) {
		t.Fatal("the pair was taken")
	}
	s, err := o.openUDP(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, lc := range map[string]net.ListenConfig{"a program": {}, "a program that reuses": reusing} {
		if other, err := lc.ListenPacket(t.Context(), "udp4", at.String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s may have the port as well: %v", name, err)
			if err == nil {
				other.Close()
			}
		}
	}
}
