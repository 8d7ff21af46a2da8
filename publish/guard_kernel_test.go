//go:build kernel

package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// The lab is two network namespaces, "host" and "client", joined by a veth pair:
//
//	client 192.0.2.2, 2001:db8::2 --- 192.0.2.1, 2001:db8::1 host
//
// Each test runs itself again in a process that is born into the host namespace. Nothing of the
// machine's own namespace is touched, and the lab ends with the process.
var (
	hostAddrs   = []string{"192.0.2.1/24", "2001:db8::1/64"}
	clientAddrs = []string{"192.0.2.2/24", "2001:db8::2/64"}
)

// inLab reports whether the test runs in the lab; if not it has been run there.
func inLab(t *testing.T) bool {
	t.Helper()
	if os.Getenv(labVariable) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), labVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	t.Logf("in the lab:\n%s", out)
	if err != nil {
		t.Fatalf("in the lab: %v", err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal("the test did not run in the lab")
	}
	return false
}

// client runs functions in the client namespace, on a thread that is never used for anything else.
type client struct{ work chan func() }

func (c client) do(f func()) {
	done := make(chan struct{})
	c.work <- func() { defer close(done); f() }
	<-done
}

func newLab(t *testing.T) client {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	must(err)
	must(netlink.LinkSetUp(lo))
	c := client{make(chan func())}
	ready := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
		}
		ready <- ns
		for f := range c.work {
			f()
		}
	}()
	t.Cleanup(func() { close(c.work) })
	ns := <-ready
	must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "tohost0"}, PeerName: "toclient0", PeerNamespace: netlink.NsFd(int(ns)),
	}))
	must(bringUp("tohost0", hostAddrs))
	c.do(func() { err = bringUp("toclient0", clientAddrs) })
	must(err)
	return c
}

func bringUp(link string, addrs []string) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("%s on %s: %w", a, link, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// silence is how long no answer counts as none. An answer over a veth takes microseconds.
const silence = 500 * time.Millisecond

// waitFor is how long what is expected may take: on a busy machine an answer may be late, or its question be sent again.
func waitFor(want string) time.Duration {
	if want == "silence" {
		return silence
	}
	return 5 * time.Second
}

// try sends a question as any client would, and returns the answer, or "silence", or what else happened. It waits for what is wanted.
func try(proto state.Proto, ip string, port uint16, want string) string {
	at := netip.AddrPortFrom(netip.MustParseAddr(ip), port).String()
	c, err := (&net.Dialer{Timeout: waitFor(want)}).Dial(proto.String(), at)
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(waitFor(want)))
		var answer [2]byte
		c.Write([]byte("hi"))
		if _, err = io.ReadFull(c, answer[:]); err == nil {
			return string(answer[:])
		}
	}
	if isTimeout(err) {
		if proto == state.TCP && c != nil {
			return "connected, then silence"
		}
		return "silence"
	}
	return err.Error()
}

// echo plays the container: it answers on ip, in both protocols, until the process ends.
func echo(t *testing.T, ip string) uint16 {
	t.Helper()
	at := tcpContainer(t, ip, func(c *net.TCPConn) { io.Copy(c, c) })
	u, err := net.ListenPacket("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo(buf[:n], from)
		}
	}()
	return at.Port()
}

func TestGuardKernel(t *testing.T) {
	if !inLab(t) {
		return
	}
	c := newLab(t)
	four := containerAt(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), 1))
	six := containerAt(netip.AddrPortFrom(self6, 1))
	port4, port6 := echo(t, "127.0.0.77"), echo(t, "::1")
	outside := map[bool]string{true: "hi", false: "silence"}
	tests := []struct {
		name     string
		serveAll bool
		e        state.Endpoint
		target   uint16
		hostIP   string
		near     string // a client on the host uses it
		far      string // a client in the other namespace uses it
	}{
		{"guarded v4", false, four, port4, "", "127.0.0.1", "192.0.2.1"},
		{"guarded v4, one address", false, four, port4, "192.0.2.1", "192.0.2.1", "192.0.2.1"},
		{"guarded v6", false, six, port6, "", "::1", "2001:db8::1"},
		{"guarded v6, one address", false, six, port6, "2001:db8::1", "2001:db8::1", "2001:db8::1"},
		{"serving all v4", true, four, port4, "", "127.0.0.1", "192.0.2.1"},
		{"serving all v4, one address", true, four, port4, "192.0.2.1", "192.0.2.1", "192.0.2.1"},
		{"serving all v6", true, six, port6, "", "::1", "2001:db8::1"},
		{"serving all v6, one address", true, six, port6, "2001:db8::1", "2001:db8::1", "2001:db8::1"},
	}
	for _, tt := range tests {
		for _, proto := range []state.Proto{state.TCP, state.UDP} {
			t.Run(tt.name+" "+proto.String(), func(t *testing.T) {
				p := New(Options{ServeAll: tt.serveAll})
				defer p.Close()
				e := tt.e
				e.Ports = reserve(t, p, e, ephemeral(proto, tt.hostIP, tt.target))
				port := e.Ports[0].HostPort
				far := func(want string) (got string) {
					c.do(func() { got = try(proto, tt.far, port, want) })
					return got
				}
				if !tt.serveAll {
					if got := far("silence"); got != "silence" {
						t.Errorf("reserved: the outside client got %q", got)
					}
				}
				apply(t, p, e)
				if got := try(proto, tt.near, port, "hi"); got != "hi" {
					t.Errorf("the client on the host got %q", got)
				}
				if got := far(outside[tt.serveAll]); got != outside[tt.serveAll] {
					t.Errorf("the outside client got %q, want %q", got, outside[tt.serveAll])
				}
			})
		}
	}
}

// With route_localnet, which another program may turn on, a neighbour can address 127.0.0.1. A port that is
// published there must not answer, not even when everyone is served elsewhere.
func TestGuardKernelRouteLocalnet(t *testing.T) {
	if !inLab(t) {
		return
	}
	c := newLab(t)
	sysctl(t, "net/ipv4/conf/tohost0/route_localnet", "1")
	c.do(func() {
		sysctl(t, "net/ipv4/conf/toclient0/route_localnet", "1")
		if err := netlink.RouteAdd(&netlink.Route{
			Dst: netlink.NewIPNet(net.IPv4(127, 0, 0, 1)),
			Gw:  net.IPv4(192, 0, 2, 1),
			Src: net.IPv4(192, 0, 2, 2),
		}); err != nil {
			t.Error(err)
		}
	})
	unguarded := echo(t, "127.0.0.1")
	target := echo(t, "127.0.0.77")
	e := containerAt(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), 1))
	for _, proto := range []state.Proto{state.TCP, state.UDP} {
		t.Run(proto.String(), func(t *testing.T) {
			p := New(Options{ServeAll: true})
			defer p.Close()
			_, port := published(t, p, e, proto, "127.0.0.1", netip.AddrPortFrom(any4, target))
			if got := try(proto, "127.0.0.1", port, "hi"); got != "hi" {
				t.Errorf("the client on the host got %q", got)
			}
			c.do(func() {
				if got := try(proto, "127.0.0.1", unguarded, "hi"); got != "hi" {
					t.Errorf("the lab is wrong: the neighbour got %q from a socket without the guard", got)
				}
				if got := try(proto, "127.0.0.1", port, "silence"); got != "silence" {
					t.Errorf("the neighbour got %q", got)
				}
			})
		})
	}
}

func sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// A flood of connection attempts meets the socket at every point of its short lives: none may succeed.
func TestGuardKernelNoMomentWithout(t *testing.T) {
	if !inLab(t) {
		return
	}
	c := newLab(t)
	p := New(Options{})
	defer p.Close()
	e := containerAt(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), 1))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	flood := make(chan int)
	go func() {
		reached := 0
		c.do(func() {
			for ctx.Err() == nil {
				if conn, err := (&net.Dialer{Timeout: 2 * time.Millisecond}).Dial("tcp", "192.0.2.1:8080"); err == nil {
					reached++
					conn.Close()
				}
			}
		})
		flood <- reached
	}()
	lives := 0
	for ctx.Err() == nil {
		reserve(t, p, e, exact(state.TCP, "0.0.0.0", 8080, 80))
		p.Release(e.ID, nil)
		lives++
	}
	if reached := <-flood; reached > 0 {
		t.Errorf("%d connections were made", reached)
	}
	t.Logf("the socket was bound %d times", lives)
}

// On a host whose IPv6 is turned off the helper is left out; what needs IPv6 says so.
func TestKernelWithoutIPv6(t *testing.T) {
	if !inLab(t) {
		return
	}
	newLab(t)
	sysctl(t, "net/ipv6/conf/all/disable_ipv6", "1")
	p := New(Options{})
	defer p.Close()
	at := tcpContainer(t, "127.0.0.77", upper)
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	if got := ask(t, "127.0.0.1", port, "hello"); got != "HELLO" {
		t.Errorf("got %q", got)
	}
	if got := len(p.held); got != 1 {
		t.Errorf("%d sockets, want 1", got)
	}
	_, err := p.Reserve(t.Context(), endpoint("b", c6), []state.PortRequest{exact(state.TCP, "2001:db8::1", 80, 80)})
	if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "2001:db8::1 is not an address of this host") {
		t.Errorf("error %v", err)
	}
}

// The limit of open files is reported as such, and nothing stays bound.
func TestKernelFileLimit(t *testing.T) {
	if !inLab(t) {
		return
	}
	newLab(t)
	p := New(Options{})
	defer p.Close()
	limitFiles(t, 64)
	var want []state.PortRequest
	for n := range uint16(40) { // and a helper for each, which another host would do without
		want = append(want, exact(state.TCP, "", 10000+n, 80))
	}
	_, err := p.Reserve(t.Context(), endpoint("a", c4), want)
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "raise the limit") {
		t.Errorf("error %v", err)
	}
	if len(p.held) != 0 {
		t.Errorf("%d sockets stay", len(p.held))
	}
}

// TestKernelRangeBeyondTheFiles: more ports than there are files for are refused before the first is opened, by a sentence that says how many it
// takes. What the host can have it gets then.
func TestKernelRangeBeyondTheFiles(t *testing.T) {
	if !inLab(t) {
		return
	}
	newLab(t)
	limitFiles(t, 20000)
	p := New(Options{Mode: modeAsSaid})
	defer p.Close()
	opened := 0
	really := p.open
	p.open = func(ctx context.Context, b binding, outside bool) (server, error) {
		opened++
		return really(ctx, b, outside)
	}
	ports := func(n uint16) (want []state.PortRequest) {
		for i := range n {
			want = append(want, exact(state.TCP, "", 5000+i, 80))
		}
		return want
	}
	e := endpoint("a", c4, c6)
	other := reserve(t, p, endpoint("b", c4), exact(state.TCP, "0.0.0.0", 80, 80))
	opened = 0

	_, err := p.Reserve(t.Context(), e, ports(60000))
	const sentence = "60000 ports cannot be published: they take 120000 files, and drawbridge may open 19487 more for ports: raise the limit of 20000 to 120513 at least " +
		"(LimitNOFILE= in drawbridge-relay.service, ulimit -n elsewhere), or publish fewer of them"
	if !errors.Is(err, syscall.EMFILE) || err.Error() != sentence {
		t.Errorf("error %v, want %s", err, sentence)
	}
	if opened > 0 || len(p.held) != len(other) {
		t.Errorf("%d sockets were opened, and %d are held", opened, len(p.held))
	}
	opened = 0
	for _, n := range []uint16{500, 1000} { // the second has half of its sockets already
		e.Ports = reserve(t, p, e, ports(n)...)
		if len(e.Ports) != int(n) || opened != 2*int(n) {
			t.Errorf("%d ports of %d, by %d sockets", len(e.Ports), n, opened)
		}
	}
}

// limitFiles lets the process have so many files open and no more.
func limitFiles(t *testing.T, n uint64) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
		t.Fatal(err)
	}
}

// TestKernelFilesLeft: however many ports are published, the daemon can open what else it needs.
func TestKernelFilesLeft(t *testing.T) {
	if !inLab(t) {
		return
	}
	newLab(t)
	p := New(Options{})
	defer p.Close()
	limitFiles(t, 400)
	var err error
	held := 0
	for ; held < 400 && err == nil; held++ {
		_, err = p.Reserve(t.Context(), endpoint(fmt.Sprint(held), c4), []state.PortRequest{exact(state.TCP, "0.0.0.0", uint16(10000+held), 80)})
	}
	if !errors.Is(err, syscall.EMFILE) || held < 250 {
		t.Errorf("after %d ports: %v", held, err)
	}
	for range 30 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
}
