//go:build kernel

package inquiry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

const labVariable = "DRAWBRIDGE_INQUIRY_LAB"

// inLab runs the test again in a process with a network namespace of its own, and reports whether this is that one.
func inLab(t *testing.T) bool {
	t.Helper()
	if os.Getenv(labVariable) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), labVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	t.Logf("in the lab:\n%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in the lab: %v", err)
	}
	return false
}

// newLab makes a host with a link ext0 to the world and a bridge br0, on which nobody is. What has the bit is translated to 10.9.0.2:80, and
// shown and dropped where it has passed the chain named user.
func newLab(t *testing.T) (link int) {
	t.Helper()
	setUp := `
ip link set lo up
ip link add ext0 type veth peer name ext1
ip link set ext1 up
ip addr add 192.0.2.1/24 dev ext0
ip link set ext0 up
ip link add br0 type bridge
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
ip route add 203.0.0.0/8 dev ext0
sysctl -qw net.ipv4.ip_forward=1
nft add table ip lab
nft add chain ip lab lead '{ type nat hook prerouting priority -100; }'
nft add rule ip lab lead meta mark '&' 0x1000000 == 0x1000000 meta l4proto tcp dnat to 10.9.0.2:80
nft add chain ip lab user '{ type filter hook forward priority 0; }'
nft add chain ip lab behind '{ type filter hook forward priority 1; }'
nft add rule ip lab behind meta mark '&' 0x1000000 == 0x1000000 log group 1427 drop`
	if out, err := exec.Command("sh", "-ec", setUp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ext0, err := net.InterfaceByName("ext0")
	if err != nil {
		t.Fatal(err)
	}
	return ext0.Index
}

func nft(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("nft", command).CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v: %s", command, err, out)
	}
}

func visit(link int, client string) state.Visit {
	return state.Visit{Proto: state.TCP, Client: netip.MustParseAddrPort(client), At: netip.MustParseAddrPort("192.0.2.1:8080"), Link: link}
}

// want asks and compares.
func want(t *testing.T, d *Desk, v state.Visit, yes bool) {
	t.Helper()
	if got, err := d.Admits(t.Context(), v); err != nil || got != yes {
		t.Errorf("%s: %v, %v, want %v", v.Client, got, err, yes)
	}
}

// TestDesk: the answer is that of the rules, at each moment.
func TestDesk(t *testing.T) {
	if !inLab(t) {
		return
	}
	defer goleak.VerifyNone(t)
	link := newLab(t)
	d := New(Options{})
	defer d.Close()
	want(t, d, visit(link, "192.0.2.5:1234"), true)
	nft(t, "add rule ip lab user iifname ext0 ip saddr 192.0.2.5 tcp dport 80 ct original proto-dst 8080 drop")
	want(t, d, visit(link, "192.0.2.5:1234"), false)
	want(t, d, visit(link, "192.0.2.6:1234"), true)
	nft(t, "flush chain ip lab user")
	want(t, d, visit(link, "192.0.2.5:1234"), true)
	if d.Missing() != "" {
		t.Errorf("missing: %s", d.Missing())
	}
	if _, err := d.Admits(t.Context(), visit(link+100, "192.0.2.5:1234")); err == nil {
		t.Error("a link that is not there lets clients in")
	}
}

// TestCrowdOfSenders: senders of UDP, whom anybody can invent, leave those who have shaken hands their room.
func TestCrowdOfSenders(t *testing.T) {
	if !inLab(t) {
		return
	}
	link := newLab(t)
	d := New(Options{})
	defer d.Close()
	for range crowdUDP {
		d.rooms[state.UDP] <- struct{}{}
	}
	sender := visit(link, "192.0.2.5:1234")
	sender.Proto = state.UDP
	if yes, err := d.Admits(t.Context(), sender); yes || !errors.Is(err, errCrowded) {
		t.Errorf("one more sender: %v, %v", yes, err)
	}
	want(t, d, visit(link, "192.0.2.6:1234"), true)
}

// TestLinkWithoutAddresses: by a link that is no Ethernet, as that of a VPN, clients are asked about as well.
func TestLinkWithoutAddresses(t *testing.T) {
	if !inLab(t) {
		return
	}
	newLab(t)
	setUp := "ip tuntap add mode tun dev tun0 && ip addr add 198.51.100.1/24 dev tun0 && ip link set tun0 up"
	if out, err := exec.Command("sh", "-ec", setUp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tun, err := net.InterfaceByName("tun0")
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{})
	defer d.Close()
	v := visit(tun.Index, "198.51.100.9:1234")
	v.At = netip.MustParseAddrPort("198.51.100.1:8080")
	want(t, d, v, true)
	nft(t, "add rule ip lab user iifname ext0 drop")
	want(t, d, v, true)
	nft(t, "add rule ip lab user iifname tun0 drop")
	want(t, d, v, false)
}

// TestClientOfManyConnections: the packet about a client is never taken for a part of one of the connections that it has.
func TestClientOfManyConnections(t *testing.T) {
	if !inLab(t) {
		return
	}
	link := newLab(t)
	d := New(Options{})
	defer d.Close()
	want(t, d, visit(link, "192.0.2.5:1234"), true)
	l := d.line
	at := netip.MustParseAddrPort("192.0.2.1:8080")
	if out, err := exec.Command("ip", "addr", "add", "192.0.2.5/24", "dev", "ext1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const first, last = 20000, 20009
	for port := first; port <= last; port++ {
		from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.5"), uint16(port))
		if isTracked(l.tracking, unix.IPPROTO_UDP, from, at) {
			t.Errorf("%s is tracked, and has sent nothing", from)
		}
		conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if !isTracked(l.tracking, unix.IPPROTO_UDP, from, at) {
			t.Errorf("%s has a connection, and is not known", from)
		}
	}
	v6 := netip.MustParseAddrPort("[2001:db8::5]:20000")
	if isTracked(l.tracking, unix.IPPROTO_TCP, v6, netip.MustParseAddrPort("[2001:db8::1]:80")) {
		t.Error("of IPv6 nothing was sent")
	}
}

// TestDeskOfMany: thousands who are asked about at once get the right answer, each his own.
func TestDeskOfMany(t *testing.T) {
	if !inLab(t) {
		return
	}
	link := newLab(t)
	nft(t, "add rule ip lab user ip saddr 203.1.0.0/16 drop")
	d := New(Options{})
	defer d.Close()
	clients := cap(d.rooms[state.TCP]) // more would be refused where a busy machine takes long over the first ones
	var all sync.WaitGroup
	var wrong, failed atomic.Int64
	began := time.Now()
	for i := range clients {
		all.Go(func() {
			refused := i%2 == 1
			yes, err := d.Admits(context.Background(), visit(link, fmt.Sprintf("203.%d.%d.%d:1234", i%2, i/250, 1+i%250)))
			if err != nil {
				failed.Add(1)
			} else if yes == refused {
				wrong.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d clients in %v", clients, time.Since(began))
	if wrong.Load() > 0 || failed.Load() > 0 {
		t.Errorf("of %d clients %d got the wrong answer, %d none", clients, wrong.Load(), failed.Load())
	}
	text, _ := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	if n := strings.Count(string(text), "dport=8080"); n > 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestGroupIsTaken: while another program has the group nobody is let in, and what is missing has a name. A desk that retires gives it away.
func TestGroupIsTaken(t *testing.T) {
	if !inLab(t) {
		return
	}
	link := newLab(t)
	first, second := New(Options{}), New(Options{})
	defer first.Close()
	defer second.Close()
	want(t, first, visit(link, "192.0.2.5:1234"), true)
	if yes, err := second.Admits(t.Context(), visit(link, "192.0.2.5:1234")); yes || err == nil {
		t.Errorf("without the group: %v, %v", yes, err)
	}
	if !strings.Contains(second.Missing(), "1427") {
		t.Errorf("missing: %q", second.Missing())
	}
	first.Retire()
	want(t, second, visit(link, "192.0.2.5:1234"), true)
	if second.Missing() != "" {
		t.Errorf("missing: %q", second.Missing())
	}
	second.Retire()
	if err := first.Ready(); err != nil {
		t.Error(err)
	}
}

// TestWithoutRights: who may not load a program lets nobody in, and says so.
func TestWithoutRights(t *testing.T) {
	if !inLab(t) {
		return
	}
	link := newLab(t)
	runtime.LockOSThread()
	for _, cap := range []uintptr{unix.CAP_BPF, unix.CAP_SYS_ADMIN} {
		dropped := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&dropped, &data[0]); err != nil {
			t.Fatal(err)
		}
		data[cap/32].Effective &^= 1 << (cap % 32)
		if err := unix.Capset(&dropped, &data[0]); err != nil { // of this thread, which asks
			t.Fatal(err)
		}
	}
	d := New(Options{})
	defer d.Close()
	if yes, err := d.Admits(t.Context(), visit(link, "192.0.2.5:1234")); yes || err == nil || !strings.Contains(d.Missing(), "CAP_BPF") {
		t.Errorf("%v, %v, missing %q", yes, err, d.Missing())
	}
}
