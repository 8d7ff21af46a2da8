//go:build kernel

package firewalltest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/state"
)

// passage is a port that comes and goes with its limit, the only one of its network or not, and where a source knocks at it that is refused.
type passage struct {
	name   string
	change func(*state.Snapshot)
	alone  bool
	to     [2]string
}

var passages = []passage{
	{name: "published", change: nothing, to: At(Ext1, "8080")},
	{name: "published, the first limit", change: nothing, alone: true, to: At(Ext1, "8080")},
	{name: "a range", change: ranged, to: At(Ext1, "7000")},
	{name: "routed", change: routed, to: At(C1a, "80")},
	{name: "routed, the first limit", change: routed, alone: true, to: At(C1a, "80")},
	{name: "unprotected", change: mode(state.ModeUnprotected), to: At(Ext1, "8080")},
	{name: "trusted link", change: func(s *state.Snapshot) { s.Networks[0].Trusted = "ext0:ext1" }, to: At(C1a, "80")},
}

func routed(s *state.Snapshot) {
	mode(state.ModeRouted)(s)
	s.Endpoints[0].Ports = []state.Port{{Proto: state.UDP, ContainerPort: 80}}
}

// ranged publishes so many ports in a row that nftables has a set of intervals for them.
func ranged(s *state.Snapshot) {
	s.Endpoints[0].Ports = nil
	for port := uint16(6990); port <= 7000; port++ {
		s.Endpoints[0].Ports = append(s.Endpoints[0].Ports, state.Port{Proto: state.UDP, HostPort: port, ContainerPort: port})
	}
}

// closed and open are the state without the port, and with it.
func (p passage) closed() state.Snapshot {
	s := p.open()
	s.Endpoints[0].Ports = nil
	return s
}

func (p passage) open() state.Snapshot {
	s := State()
	p.change(&s)
	s.Networks[0].Exposure.From = nearSources
	if p.alone {
		s.Endpoints[1].Ports = nil
	}
	return s
}

// LimitsHold floods ports that come and go with their limits. Who is refused does not get in, not even for the moment of the change,
// since a flow that did would stay.
func LimitsHold(t *testing.T, variant string, backend Maker) {
	l := New(t, variant)
	plane := firewall.NewPlane(backend(l), firewall.Settings{})
	for _, p := range passages {
		t.Run(p.name, func(t *testing.T) {
			must(t, plane.Apply(t.Context(), p.closed()))
			for round := range 8 { // both ways, both families, and twice since a flood may miss a moment
				to := netip.MustParseAddrPort(p.to[round/2%2])
				act := func(from, s state.Snapshot) func() error {
					if round%2 == 0 {
						return func() error { return plane.Follow(t.Context(), state.Compare(from, s)) }
					}
					return func() error { return plane.Apply(t.Context(), s) }
				}
				l.holdsOut(t, to, act(p.closed(), p.open()), fmt.Sprintf("%s, opening %d", p.name, round))
				l.admits(t, to)
				l.holdsOut(t, to, act(p.open(), p.closed()), fmt.Sprintf("%s, closing %d", p.name, round))
			}
		})
	}
	t.Run("the flood comes to what is open", func(t *testing.T) {
		must(t, plane.Apply(t.Context(), State()))
		for _, to := range At(Ext1, "8080") {
			came := false
			for range 10 { // the host may be busy
				came = came || l.flood(t, "far", netip.MustParseAddrPort(to), "to "+to, func() error { return nil })
			}
			if !came {
				t.Errorf("nothing came to %s", to)
			}
		}
	})
}

// holdsOut fails the test where somebody who is refused gets in while f runs.
func (l *Lab) holdsOut(t *testing.T, to netip.AddrPort, f func() error, token string) {
	t.Helper()
	must(t, l.router.handle.ConntrackTableFlush(netlink.ConntrackTable))
	if l.flood(t, "far", to, token, f) {
		t.Errorf("%s: who is refused got in", token)
	}
}

// admits fails the test where the port is closed to those whom it is for.
func (l *Lab) admits(t *testing.T, to netip.AddrPort) {
	t.Helper()
	if got := l.knock("out", "udp", netip.Addr{}, to, Patience); !strings.HasPrefix(got, "c1a ") {
		t.Errorf("admitted to %s, and answered by %q", to, got)
	}
}

// flood has a host send the token to an address while f runs and for a moment before and after, as fast as it can and each time from another
// port, so that what passes is not a flow that was there. It reports whether any of it came to a server.
func (l *Lab) flood(t *testing.T, from string, to netip.AddrPort, token string, f func() error) bool {
	t.Helper()
	const moment = 3 * time.Millisecond
	stop, done := make(chan struct{}), make(chan error)
	go l.hosts[from].in(func() {
		fd, err := rawUDP(to.Addr().Is6())
		defer unix.Close(fd)
		for port := uint16(1024); err == nil; port = max(port+1, 1024) {
			select {
			case <-stop:
				done <- nil
				return
			default:
				err = sendRaw(fd, port, to, token)
			}
		}
		<-stop
		done <- err
	})
	time.Sleep(moment)
	err := f()
	time.Sleep(moment)
	close(stop)
	must(t, errors.Join(err, <-done))
	time.Sleep(5 * moment) // until what was sent is read
	return l.arrived.get(token) != ""
}

// rawUDP opens a socket for datagrams with headers of their own. To bind one for each port would take several times as long.
func rawUDP(v6 bool) (fd int, err error) {
	if !v6 {
		return unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	}
	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_CHECKSUM, udpChecksum)
	}
	return fd, err
}

// udpChecksum is the place of the checksum in the header, which IPv4 can do without.
const udpChecksum = 6

func sendRaw(fd int, from uint16, to netip.AddrPort, text string) error {
	var b []byte
	for _, field := range []int{int(from), int(to.Port()), 8 + len(text), 0} {
		b = binary.BigEndian.AppendUint16(b, uint16(field))
	}
	b = append(b, text...)
	if to.Addr().Is6() {
		return unix.Sendto(fd, b, 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
	}
	return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
}
