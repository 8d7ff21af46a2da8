package publish

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// tcpContainer runs serve for each connection to a listener on ip.
func tcpContainer(t *testing.T, ip string, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(deadline())
			serve(c.(*net.TCPConn))
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return unmapped(l.Addr().(*net.TCPAddr).AddrPort())
}

// upper answers with what it got, after it got all of it.
func upper(c *net.TCPConn) {
	b, err := io.ReadAll(c)
	if err == nil {
		c.Write(bytes.ToUpper(b))
	}
}

func dial(t *testing.T, ip string, port uint16) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(deadline())
	return c.(*net.TCPConn)
}

// ask sends, ends its direction, and reads the answer: it needs both half-closes.
func ask(t *testing.T, ip string, port uint16, question string) string {
	t.Helper()
	c := dial(t, ip, port)
	if _, err := io.WriteString(c, question); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	return string(answer)
}

func TestTCP(t *testing.T) {
	tests := []struct {
		name      string
		container string
		hostIP    string
		clients   []string
	}{
		{"v4 container, everywhere", "127.0.0.77", "", []string{"127.0.0.1", "127.0.0.2", "::1"}},
		{"v6 container, everywhere", "::1", "", []string{"127.0.0.1", "::1"}},
		{"v4 container, loopback only", "127.0.0.77", "127.0.0.3", []string{"127.0.0.3"}},
		{"v4 container, v6 loopback", "127.0.0.77", "::1", []string{"::1"}},
		{"v6 container, v4 loopback", "::1", "127.0.0.3", []string{"127.0.0.3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := tcpContainer(t, tt.container, upper)
			p := realPublisher(t, Options{})
			_, port := published(t, p, containerAt(at), state.TCP, tt.hostIP, at)
			for _, ip := range tt.clients {
				if got := ask(t, ip, port, "hello"); got != "HELLO" {
					t.Errorf("client of %s got %q", ip, got)
				}
			}
		})
	}
}

// A client that is faster than Apply is served when Apply comes.
func TestTCPClientBeforeApply(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", upper)
	p := realPublisher(t, Options{})
	e := containerAt(at)
	e.Ports = reserve(t, p, e, ephemeral(state.TCP, "", at.Port()))
	c := dial(t, "127.0.0.1", e.Ports[0].HostPort)
	io.WriteString(c, "early")
	c.CloseWrite()
	apply(t, p, e)
	if got, err := io.ReadAll(c); string(got) != "EARLY" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTCPLargeBothWays(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) { io.Copy(c, c) })
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	c := dial(t, "127.0.0.1", port)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back unchanged=%v, error %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
}

func TestTCPRefusedIsReset(t *testing.T) {
	for _, ip := range []string{"127.0.0.77", "::1"} {
		t.Run(ip, func(t *testing.T) {
			at := tcpContainer(t, ip, upper)
			p := realPublisher(t, Options{})
			e := containerAt(at)
			free := occupyThenFree(t, ip)
			_, port := published(t, p, e, state.TCP, "127.0.0.1", free) // on all addresses it could have the container's
			wantReset(t, "127.0.0.1", port)
		})
	}
}

// wantReset connects and waits for a reset, which may be so early that connect reports it.
func wantReset(t *testing.T, ip string, port uint16) {
	t.Helper()
	c, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
	if err == nil {
		defer c.Close()
		c.SetDeadline(deadline())
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

// occupyThenFree returns an address that nothing listens on.
func occupyThenFree(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return unmapped(l.Addr().(*net.TCPAddr).AddrPort())
}

func TestTCPResetIsPassedOn(t *testing.T) {
	t.Run("container to client", func(t *testing.T) {
		at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		})
		p := realPublisher(t, Options{})
		_, port := published(t, p, containerAt(at), state.TCP, "", at)
		c := dial(t, "127.0.0.1", port)
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("client to container", func(t *testing.T) {
		result := make(chan error, 1)
		at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
			c.Write([]byte("x"))
			_, err := c.Read(make([]byte, 1))
			result <- err
		})
		p := realPublisher(t, Options{})
		_, port := published(t, p, containerAt(at), state.TCP, "", at)
		c := dial(t, "127.0.0.1", port)
		io.ReadFull(c, make([]byte, 1))
		c.SetLinger(0)
		c.Close()
		if err := receive(t, result); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read in the container: %v, want a reset", err)
		}
	})
}

// A server that refuses an upload answers, and closes with data unread, which is a reset. The
// answer must reach the client.
func TestTCPAnswerBeforeReset(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 1))
		io.WriteString(c, "413 too large")
	})
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	for range 30 { // it is a race, which a proxy that cuts at once loses every few times
		c := dial(t, "127.0.0.1", port)
		go io.Copy(c, zeros{}) // ends with the connection
		got := make([]byte, len("413 too large"))
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatalf("read %q: %v", got, err)
		}
		c.Close()
	}
}

func TestStopReading(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
		c.Write([]byte("left behind"))
		io.ReadFull(c, make([]byte, 1))
		abort(c)
	})
	reset := dial(t, "127.0.0.77", at.Port())
	reset.Write([]byte("x"))
	eventually(t, "the reset arrives", func() bool { return dead(reset) })
	alive := dial(t, "127.0.0.77", at.Port())
	io.ReadFull(alive, make([]byte, len("left behind")))
	if dead(alive) {
		t.Error("a live connection counts as dead")
	}
	stopReading(reset, alive)
	if got, err := io.ReadAll(reset); string(got) != "left behind" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the dead connection gave %q and %v", got, err)
	}
	if _, err := alive.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the live connection: %v, want no more reading", err)
	}
	alive.Close() // the container waits for it
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestTCPEndsWithThePort(t *testing.T) {
	tests := []struct {
		name string
		end  func(*testing.T, *Publisher, state.Endpoint)
	}{
		{"revoked", func(t *testing.T, p *Publisher, e state.Endpoint) { apply(t, p, with(e)) }},
		{"deleted", func(t *testing.T, p *Publisher, e state.Endpoint) { apply(t, p) }},
		{"released", func(t *testing.T, p *Publisher, e state.Endpoint) { p.Release(e.ID, nil) }},
		{"closed", func(t *testing.T, p *Publisher, e state.Endpoint) { p.Close() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inside := make(chan error, 1)
			at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
				io.Copy(c, io.LimitReader(c, 1))
				_, err := c.Read(make([]byte, 1))
				inside <- err
			})
			p := realPublisher(t, Options{})
			e, port := published(t, p, containerAt(at), state.TCP, "", at)
			c := dial(t, "127.0.0.1", port)
			c.Write([]byte("x"))
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			tt.end(t, p, e)
			if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
				t.Errorf("client: %v, want an end", err)
			}
			if err := receive(t, inside); err == nil || isTimeout(err) {
				t.Errorf("container: %v, want an end", err)
			}
			if _, err := net.Dial("tcp", c.RemoteAddr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a new client: %v, want a refusal", err)
			}
		})
	}
}

// receive waits for a value as long as everything in these tests may take.
func receive[T any](t *testing.T, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(time.Until(deadline())):
		t.Fatal("nothing came")
	}
	return v
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// Above the limit clients wait; they are served when others have gone.
func TestTCPMaxConns(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	p := realPublisher(t, Options{MaxConns: 1})
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	accept := func(until time.Time) (net.Conn, error) {
		l.(*net.TCPListener).SetDeadline(until)
		return l.Accept()
	}
	clients := []*net.TCPConn{dial(t, "127.0.0.1", port), dial(t, "127.0.0.1", port)}
	io.WriteString(clients[0], "0")
	io.WriteString(clients[1], "1")
	for i, client := range clients {
		c, err := accept(deadline())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make([]byte, 1)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != fmt.Sprint(i) {
			t.Errorf("the container read %q from client %d: %v", got, i, err)
		}
		// What would come without the limit comes in microseconds.
		if _, err := accept(time.Now().Add(100 * time.Millisecond)); !isTimeout(err) {
			t.Errorf("beside client %d: %v, want no further connection", i, err)
		}
		c.Close()
		client.Close()
	}
}

// A container that does not answer costs its client the timeout, and then a reset.
func TestTCPDialTimeout(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", upper)
	p := realPublisher(t, Options{DialTimeout: 1}) // a nanosecond: over before it began
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	wantReset(t, "127.0.0.1", port)
}

// TestTCPSlowReader: a client that does not read holds its container up. What is between them is bounded, and none of it is lost.
func TestTCPSlowReader(t *testing.T) {
	var sent atomic.Int64
	stop := make(chan struct{})
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
		block := make([]byte, 1<<16)
		for {
			n, err := c.Write(block)
			sent.Add(int64(n))
			select {
			case <-stop:
				return
			default:
			}
			if err != nil {
				return
			}
		}
	})
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := dial(t, "127.0.0.1", port)
	last := int64(-1)
	eventually(t, "the container is held up", func() bool {
		now := sent.Load()
		still := now > 0 && now == last
		last = now
		time.Sleep(100 * time.Millisecond) // much longer than a block takes
		return still
	})
	runtime.ReadMemStats(&after)
	// The kernel's buffers of both connections, and a pipe.
	most := 2*(maxBuffer(t, "tcp_rmem")+maxBuffer(t, "tcp_wmem")) + 1<<20
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); last > most || grown > 4<<20 {
		t.Errorf("%d KiB were taken from the container, the kernel's buffers hold %d; the heap grew by %d", last>>10, most>>10, grown>>10)
	}
	close(stop)
	got, err := io.Copy(io.Discard, c)
	if err != nil || got != sent.Load() {
		t.Errorf("%d of %d bytes arrived: %v", got, sent.Load(), err)
	}
}

// maxBuffer returns the size in bytes to which the kernel lets a TCP buffer grow by itself: 6 MiB to receive was the default for long, it
// is 32 MiB since Linux 6.16.
func maxBuffer(t *testing.T, sysctl string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/" + sysctl)
	if err != nil {
		t.Fatal(err)
	}
	var least, initial, most int64
	if _, err := fmt.Sscan(string(text), &least, &initial, &most); err != nil {
		t.Fatalf("%s: %q: %v", sysctl, text, err)
	}
	return most
}

// TestTCPClientGoneBeforeItIsRead: a client that was reset does not keep its connection for as long as the container does not read, and
// what a client sent that is there is.
func TestTCPClientGoneBeforeItIsRead(t *testing.T) {
	read, ended := make(chan struct{}), make(chan error, 2)
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
		<-read
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	release := sync.OnceFunc(func() { close(read) })
	t.Cleanup(release)
	p := realPublisher(t, Options{})
	p.servers.legacy = 200 * time.Millisecond
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	full := func() *net.TCPConn {
		c := dial(t, "127.0.0.1", port)
		c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := io.Copy(c, zeros{})
		if !isTimeout(err) {
			t.Fatalf("%d bytes were taken: %v", n, err)
		}
		return c
	}
	stays, goes := full(), full()
	abort(goes)
	eventually(t, "the connection of the client that was reset ends", func() bool { return p.servers.conns.count() == 1 })
	release()
	if err := stays.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, ended); err != nil {
		t.Errorf("the container read of the client that stayed: %v", err)
	}
	if err := receive(t, ended); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the container read of the client that was reset: %v", err)
	}
}

// TestTCPKeepsAlive: the kernel asks after both peers of a connection that says nothing, so that one whose peer is gone ends.
func TestTCPKeepsAlive(t *testing.T) {
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) { io.Copy(c, c) })
	p := realPublisher(t, Options{})
	_, port := published(t, p, containerAt(at), state.TCP, "", at)
	c := dial(t, "127.0.0.1", port)
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	const established, keepalive = "01", "02:"
	hex := func(n uint16) string { return fmt.Sprintf(":%04X", n) }
	eventually(t, "both are asked after", func() bool {
		text, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		client, backend := false, false
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if f[3] != established || !strings.HasPrefix(f[5], keepalive) {
				continue
			}
			client = client || strings.HasSuffix(f[1], hex(port))
			backend = backend || strings.HasSuffix(f[2], hex(at.Port()))
		}
		return client && backend
	})
}

func TestPauseEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	pause(ctx)
}

// TestTCPShare: clients of one port that take all connections which they can get leave some to other ports, and are served in turn.
func TestTCPShare(t *testing.T) {
	const most = 8
	var serving sync.WaitGroup
	at := tcpContainer(t, "127.0.0.77", func(c *net.TCPConn) {
		own, err := c.File() // the helper closes c, and serves one at a time
		if err != nil {
			t.Error(err)
			return
		}
		serving.Go(func() {
			defer own.Close()
			b, _ := io.ReadAll(own)
			own.Write(bytes.ToUpper(b))
		})
	})
	t.Cleanup(serving.Wait)
	p := realPublisher(t, Options{MaxConns: most})
	greedy, other := containerAt(at), endpoint("b", at.Addr().String()+"/8")
	greedy.Ports = reserve(t, p, greedy, ephemeral(state.TCP, "127.0.0.1", at.Port()))
	other.Ports = reserve(t, p, other, ephemeral(state.TCP, "127.0.0.1", at.Port()))
	apply(t, p, greedy, other)
	var clients []*net.TCPConn
	for range 2 * most {
		clients = append(clients, dial(t, "127.0.0.1", greedy.Ports[0].HostPort))
	}
	eventually(t, "the port has its share", func() bool { return p.servers.conns.count() == most/2 })
	ask := func(c *net.TCPConn) {
		t.Helper()
		_, err := io.WriteString(c, "x")
		if err == nil {
			err = c.CloseWrite()
		}
		if got, failed := io.ReadAll(c); err != nil || failed != nil || string(got) != "X" {
			t.Errorf("answered %q, %v", got, errors.Join(err, failed))
		}
	}
	ask(dial(t, "127.0.0.1", other.Ports[0].HostPort))
	if n := p.servers.conns.count(); n < most/2 {
		t.Errorf("%d connections are in flight", n)
	}
	for _, c := range clients { // each makes room for the next that waits
		ask(c)
	}
	eventually(t, "all connections end", func() bool { return p.servers.conns.count() == 0 })
}
