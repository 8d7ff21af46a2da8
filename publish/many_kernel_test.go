//go:build kernel

package publish

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// peersVariable tells the test that it is the clients and the container, in a process of their own: they have as many files open as
// the proxy.
const peersVariable = "DRAWBRIDGE_PUBLISH_PEERS"

// manyConns is how many connections there are at once.
const manyConns = 5000

// TestKernelManyConnections proxies many connections at once, all of which are used, and tells what they take.
func TestKernelManyConnections(t *testing.T) {
	if os.Getenv(peersVariable) != "" {
		peers(t)
		return
	}
	if !inLab(t) {
		return
	}
	manyFiles(t)
	newLab(t)
	sysctl(t, "net/ipv4/ip_local_port_range", "10000 60000")
	p := New(Options{MaxConns: 2 * manyConns})
	t.Cleanup(func() { p.Close() })
	container := netip.MustParseAddrPort("127.0.0.77:80")
	e := containerAt(container)
	e.Ports = reserve(t, p, e, exact(state.TCP, "127.0.0.1", 8080, 80))
	apply(t, p, e)

	began, before := time.Now(), memory(t)
	others := exec.Command(os.Args[0], "-test.run=^TestKernelManyConnections$", "-test.timeout=5m")
	others.Env = append(os.Environ(), peersVariable+"=1")
	others.Stderr = os.Stderr
	in, err := others.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := others.StdoutPipe()
	if err == nil {
		err = others.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	if !said.Scan() || said.Text() != "all are open" {
		t.Fatalf("the peers say %q", said.Text())
	}
	t.Logf("%d connections in %v: %s", manyConns, time.Since(began).Round(time.Millisecond), memory(t).since(before, manyConns))
	if n := p.servers.conns.count(); n != manyConns {
		t.Errorf("%d connections are in flight", n)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil || len(files) > 2*manyConns+500 { // and pipes that nobody has collected yet
		t.Errorf("connections that say nothing take %d files: %v", len(files), err)
	}
	in.Close()
	for said.Scan() {
	}
	if err := others.Wait(); err != nil {
		t.Errorf("the peers: %v", err)
	}
	eventually(t, "all connections end", func() bool { return p.servers.conns.count() == 0 })
}

// manyFiles lets this process and those that it starts have as many files open as these tests need, whatever the limit was.
func manyFiles(t *testing.T) {
	t.Helper()
	const files = 12000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= files {
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: max(files, limit.Max)}); err != nil {
		t.Fatal(err)
	}
}

// peers opens the connections, has all of them say something, and again, waits for the end of its input, and ends them.
func peers(t *testing.T) {
	container := netip.MustParseAddrPort("127.0.0.77:80")
	l, err := bind(container, unix.SOCK_STREAM, unix.IPPROTO_TCP, func(int) error { return nil })
	if err == nil {
		err = unix.Listen(l, 1024)
	}
	if err != nil {
		t.Fatal(err)
	}
	var clients, servers []int
	for range manyConns { // one accepted for one opened: none waits in a backlog
		clients = append(clients, connected(t, "127.0.0.1:8080"))
		fd, _, err := unix.Accept(l)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, fd)
	}
	each := func(fds []int, do func(fd int, b []byte) (int, error)) {
		t.Helper()
		for i, fd := range fds {
			if n, err := do(fd, make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("connection %d: %d, %v", i, n, err)
			}
		}
	}
	for range 2 {
		each(clients, unix.Write)
		each(servers, unix.Read)
		each(servers, unix.Write)
		each(clients, unix.Read)
	}
	fmt.Println("all are open")
	io.Copy(io.Discard, os.Stdin)
	for _, fd := range clients {
		unix.Close(fd)
	}
	each(servers, func(fd int, b []byte) (int, error) { // each is told of the end
		n, err := unix.Read(fd, b)
		return n + 1, err
	})
}

// connected returns a socket without the runtime's, which would be most of what is measured.
func connected(t *testing.T, at string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(netip.MustParseAddrPort(at)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestKernelManyPorts holds many ports that everybody may come to, and tells what they take.
func TestKernelManyPorts(t *testing.T) {
	if !inLab(t) {
		return
	}
	manyFiles(t)
	newLab(t)
	const ports = 10000
	p := New(Options{Mode: modeAsSaid})
	t.Cleanup(func() { p.Close() })
	e := endpoint("a", "10.9.0.2/24")
	for n := range uint16(ports) {
		e.Ports = append(e.Ports, portOf(exact(state.TCP, "0.0.0.0", 10000+n, 80)))
	}
	s := snapshot(e)
	s.Networks = []state.Network{theNetwork(mode(state.PublishHost))}
	began, before := time.Now(), memory(t)
	if err := p.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d ports in %v: %s", ports, time.Since(began).Round(time.Millisecond), memory(t).since(before, ports))
	began = time.Now()
	s.Networks = []state.Network{theNetwork(mode(state.PublishDNAT))}
	if err := p.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	t.Logf("all of them closed to others in %v", time.Since(began).Round(time.Millisecond))
	if len(p.held) != ports || len(p.asleep) != ports {
		t.Errorf("%d are held, and %d wait for their first client", len(p.held), len(p.asleep))
	}
}

// taken is what a process takes, in KiB: of the runtime, of memory, and what the kernel has of everybody.
type taken struct{ runtime, resident, slab int }

func memory(t *testing.T) taken {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	value := func(file, key string) (kib int) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, key); ok {
				fmt.Sscan(rest, &kib)
			}
		}
		return kib
	}
	return taken{int(m.HeapInuse+m.StackInuse) >> 10, value("/proc/self/status", "VmRSS:"), value("/proc/meminfo", "Slab:")}
}

func (a taken) since(b taken, n int) string {
	each := func(kib int) string { return fmt.Sprintf("%d MiB (%.1f KiB each)", kib>>10, float64(kib)/float64(n)) }
	return fmt.Sprintf("runtime %s, resident %s, the kernel's slabs on this machine %s",
		each(a.runtime-b.runtime), each(a.resident-b.resident), each(a.slab-b.slab))
}
