package traffic

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// served starts a server that lasts as long as the test program.
func served(t *testing.T) netip.AddrPort {
	t.Helper()
	for {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		ready, failed := make(chan struct{}), make(chan error, 1)
		go func() { failed <- Serve(at.Port(), func() { close(ready) }) }()
		select {
		case <-ready:
			return at
		case err := <-failed:
			if !errors.Is(err, unix.EADDRINUSE) { // somebody has it on another address, or of the other protocol
				t.Fatal(err)
			}
		}
	}
}

func TestLoads(t *testing.T) {
	at := served(t)
	if n, err := Connections(at, 50*time.Millisecond); err != nil || n <= 0 {
		t.Errorf("%v connections per second, %v", n, err)
	}
	if p, err := Flows(at, 20); err != nil || p.RoundTrip <= 0 || p.New <= 0 || p.Established <= 0 {
		t.Errorf("flows %+v, %v", p, err)
	}
	if g, err := Stream(at, 50*time.Millisecond); err != nil || g <= 0 {
		t.Errorf("%v Gbit/s, %v", g, err)
	}
}

func TestNobodyThere(t *testing.T) {
	at := netip.MustParseAddrPort("127.0.0.1:1")
	if _, err := Connections(at, time.Second); err == nil {
		t.Error("connections to nobody")
	}
	if _, err := Flows(at, 20); err == nil {
		t.Error("flows to nobody")
	}
	if _, err := Stream(at, time.Second); err == nil {
		t.Error("a stream to nobody")
	}
}
