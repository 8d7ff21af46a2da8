package nftables

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

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

// nowhere is a kernel that takes everything.
type nowhere struct{ editor }

func (nowhere) hasElements(string) (bool, error)                      { return false, nil }
func (nowhere) generation() (uint32, error)                           { return 0, nil }
func (nowhere) commit(uint32, []edit) (took time.Duration, err error) { return 0, nil }

// BenchmarkFollow is one port more among others, and one less.
func BenchmarkFollow(b *testing.B) {
	for _, others := range []int{0, 500, 10000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			without, with := publishing(others), publishing(others)
			with.Endpoints = append(with.Endpoints, container(200, 1))
			backend := newBackend(nowhere{}, &fakeNeighbour{}, nil)
			plane := firewall.NewPlane(backend, firewall.Settings{})
			backend.known, backend.looked, backend.have = true, time.Now(), func() *held { return nil }
			more, less := state.Compare(without, with), state.Compare(with, without)
			for b.Loop() {
				// The generation stands still, as that of our own transactions would not.
				backend.gen = 0
				if err := plane.Follow(b.Context(), more); err != nil {
					b.Fatal(err)
				}
				backend.gen = 0
				if err := plane.Follow(b.Context(), less); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// publishing is a network on which n ports are published, a hundred of each container.
func publishing(n int) state.Snapshot {
	s := state.Snapshot{Networks: []state.Network{{
		ID: "1", Bridge: "br-one",
		V4: state.Subnet{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Gateway: address("10.1.0.1")},
		V6: state.Subnet{Prefix: netip.MustParsePrefix("fd00:1::/64"), Gateway: address("fd00:1::1")},
	}}}
	for i := 0; n > 0; i++ {
		s.Endpoints = append(s.Endpoints, container(i, min(n, 100)))
		n -= 100
	}
	return s
}

func container(i, ports int) state.Endpoint {
	e := state.Endpoint{
		ID: state.EndpointID(fmt.Sprintf("%03d", i)), Network: "1",
		Addr4: netip.MustParsePrefix(fmt.Sprintf("10.1.0.%d/24", 2+i)), Addr6: netip.MustParsePrefix(fmt.Sprintf("fd00:1::%x/64", 2+i)),
	}
	for j := range ports {
		e.Ports = append(e.Ports, state.Port{Proto: state.TCP, HostPort: uint16(20000 + 100*i + j), ContainerPort: uint16(1000 + j)})
	}
	return e
}
