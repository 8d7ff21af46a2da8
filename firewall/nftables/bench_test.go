package nftables

import (
	"net/netip"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

func many(n int) firewall.Policy {
	p := sample()
	p.V4.Ports, p.V6.Ports = nil, nil
	for i := range uint16(n) {
		p.V4.Ports = append(p.V4.Ports, firewall.Port{Proto: state.TCP, HostPort: 1000 + i, Target: netip.AddrPortFrom(address("10.1.0.2"), 30000-i)})
		p.V6.Ports = append(p.V6.Ports, firewall.Port{Proto: state.TCP, HostPort: 1000 + i, Target: netip.AddrPortFrom(address("fd00:1::2"), 30000-i)})
	}
	return p
}

func BenchmarkRender(b *testing.B) {
	p := many(10000)
	for b.Loop() {
		Render(p, false)
	}
}

func BenchmarkNothingToDo(b *testing.B) {
	p := many(10000)
	have := Render(p, false).holds()
	for b.Loop() {
		if len(difference(have, Render(p, false))) > 0 {
			b.Fatal("something to do")
		}
	}
}
