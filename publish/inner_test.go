package publish

import (
	"net/netip"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestShuts: who is on an internal network is refused where a socket serves everyone.
func TestShuts(t *testing.T) {
	p, _ := fakePublisher(t)
	if p.servers.shuts(netip.MustParseAddr("10.1.0.2")) {
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
	for addr, want := range map[string]bool{"10.1.0.2": true, "::ffff:10.1.0.2": true, "fd01::2": true, "10.2.0.2": false, "10.1.0.1": false, "192.0.2.1": false} {
		if p.servers.shuts(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s: refused %v", addr, !want)
		}
	}
	if err := p.Follow(t.Context(), state.Compare(s, snapshot())); err != nil || p.servers.shuts(netip.MustParseAddr("fd01::2")) {
		t.Errorf("refused after the network went: %v", err)
	}
}
