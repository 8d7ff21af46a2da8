package publish

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// realPublisher binds real sockets, on loopback or behind the guard.
func realPublisher(t *testing.T, o Options) *Publisher {
	t.Helper()
	p := New(o)
	closeLater(t, p)
	return p
}

// published reserves an ephemeral port for the container and serves it.
func published(t *testing.T, p *Publisher, e state.Endpoint, proto state.Proto, ip string, container netip.AddrPort) (state.Endpoint, uint16) {
	t.Helper()
	e.Ports = reserve(t, p, e, ephemeral(proto, ip, container.Port()))
	apply(t, p, e)
	return e, e.Ports[0].HostPort
}

// containerAt is the endpoint of a container that is played by a listener on loopback.
func containerAt(ap netip.AddrPort) state.Endpoint {
	bits := "/8"
	if ap.Addr().Is6() {
		bits = "/128"
	}
	return endpoint("a", ap.Addr().String()+bits)
}

func TestGuardProgram(t *testing.T) {
	raw, err := bpf.Assemble(guard)
	if err != nil {
		t.Fatal(err)
	}
	// The library's machine lacks the interface extension: a load of a packet byte takes its place.
	program := append([]bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 1}}, guard[1:]...)
	vm, err := bpf.NewVM(program)
	if err != nil || len(raw) != len(guard) {
		t.Fatal(err, raw)
	}
	for index, pass := range []bool{false, true, false, false} {
		packet := make([]byte, 1500)
		packet[0] = byte(index)
		n, err := vm.Run(packet)
		if err != nil {
			t.Fatal(err)
		}
		if (n > 0) != pass || pass && n < len(packet) {
			t.Errorf("interface %d: %d bytes pass", index, n)
		}
	}
}

// getFilter asks the kernel how many instructions a socket's filter has.
func getFilter(fd int) int {
	var n uint32
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return -1
	}
	return int(n)
}

func TestEverySocketHasTheGuard(t *testing.T) {
	tests := []struct {
		name     string
		serveAll bool
		ip       string
		guarded  bool // when served
	}{
		{"v4", false, "0.0.0.0", true},
		{"v6", false, "::", true},
		{"loopback v4", false, "127.0.0.1", true},
		{"loopback v6", false, "::1", true},
		{"v4, serving all", true, "0.0.0.0", false},
		{"v6, serving all", true, "::", false},
		{"loopback v4, serving all", true, "127.0.0.1", true},
		{"loopback v6, serving all", true, "::1", true},
	}
	for _, tt := range tests {
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			t.Run(tt.name+" "+proto.String(), func(t *testing.T) {
				p := realPublisher(t, Options{ServeAll: tt.serveAll})
				check := func(want int) {
					t.Helper()
					for _, s := range p.held {
						fd, err := s.server.(sleeper).descriptor()
						if got := getFilter(fd); got != want || err != nil {
							t.Errorf("%s: filter of %d instructions, want %d (%v)", s.place(), got, want, err)
						}
					}
				}
				e := endpoint("a", c4, c6)
				e.Ports = reserve(t, p, e, ephemeral(proto, tt.ip, 80))
				check(len(guard))
				apply(t, p, e)
				if tt.guarded {
					check(len(guard))
				} else {
					check(len(everything))
				}
			})
		}
	}
}

// The filter must be there when bind(2) makes the socket reachable.
func TestGuardComesBeforeBind(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			ip := netip.MustParseAddr(map[byte]string{'4': "127.0.0.1", '6': "::1"}[network[3]])
			check := func(fd int) {
				sa, err := unix.Getsockname(fd)
				if err != nil || portIn(sa) != 0 {
					t.Errorf("bound already to %v (%v)", sa, err)
				}
				if got := getFilter(fd); got != len(guard) {
					t.Errorf("filter of %d instructions", got)
				}
			}
			if network[:3] == "tcp" {
				fd, err := bind(netip.AddrPortFrom(ip, 0), unix.SOCK_STREAM, unix.IPPROTO_TCP, func(fd int) error {
					defer check(fd)
					return shelter(fd)
				})
				if err != nil {
					t.Fatal(err)
				}
				unix.Close(fd)
				return
			}
			lc := net.ListenConfig{Control: func(n, a string, c syscall.RawConn) error {
				if err := configure(n, a, c); err != nil {
					return err
				}
				return c.Control(func(fd uintptr) { check(int(fd)) })
			}}
			c, err := lc.ListenPacket(t.Context(), network, netip.AddrPortFrom(ip, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

func portIn(sa unix.Sockaddr) int {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port
	case *unix.SockaddrInet6:
		return sa.Port
	}
	return -1
}

// The real kernel refuses as the fake one does, and the owner is named.
func TestConflictNamesTheProcess(t *testing.T) {
	tests := []struct{ name, network, addr, ip string }{
		{"tcp4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp6", "tcp6", "[::1]:0", "::1"},
		{"udp4", "udp4", "127.0.0.1:0", "127.0.0.1"},
		{"udp6", "udp6", "[::1]:0", "::1"},
		{"we want all", "tcp4", "127.0.0.1:0", "0.0.0.0"},
		{"we want all of v6", "udp6", "[::1]:0", "::"},
		{"they have all", "udp4", "0.0.0.0:0", "127.0.0.1"},
		{"they have both families", "tcp", "[::]:0", "127.0.0.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := occupy(t, tt.network, tt.addr)
			p := realPublisher(t, Options{})
			_, err := p.Reserve(t.Context(), endpoint("a", c4, c6), []state.PortRequest{exact(at.proto, tt.ip, at.addr.Port(), 80)})
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(text(err), " is already in use by ") {
				t.Fatalf("error %q", text(err))
			}
			comm, _ := os.ReadFile("/proc/self/comm")
			if !strings.Contains(err.Error(), " by "+strings.TrimSpace(string(comm))+" (pid ") {
				t.Errorf("error %q does not name this process", err)
			}
		})
	}
}

// What we hold is refused to others, in every protocol and family.
func TestReservedPortIsRefusedToOthers(t *testing.T) {
	for _, proto := range []state.Proto{state.TCP, state.UDP} {
		t.Run(proto.String(), func(t *testing.T) {
			p := realPublisher(t, Options{})
			ports := reserve(t, p, endpoint("a", c4), ephemeral(proto, "", 80))
			for _, ip := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
				at := netip.AddrPortFrom(netip.MustParseAddr(ip), ports[0].HostPort).String()
				if err := tryBind(proto, at); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%s: %v", at, err)
				}
			}
			p.Release(endpoint("a").ID, nil)
			if err := tryBind(proto, netip.AddrPortFrom(any4, ports[0].HostPort).String()); err != nil {
				t.Errorf("after Release: %v", err)
			}
		})
	}
}

func tryBind(proto state.Proto, at string) error {
	if proto == state.UDP {
		c, err := net.ListenPacket("udp", at)
		if err == nil {
			c.Close()
		}
		return err
	}
	l, err := net.Listen("tcp", at)
	if err == nil {
		l.Close()
	}
	return err
}

// deadline bounds what a test waits for; it is never reached when all is well.
func deadline() time.Time { return time.Now().Add(10 * time.Second) }
