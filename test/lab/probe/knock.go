package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/test/lab/ask"
)

// knocker makes a request over a new connection to each of its addresses, again and again.
type knocker struct {
	network string
	timeout time.Duration
	mu      sync.Mutex
	out     *bufio.Writer // guarded by mu
}

// knock prints a line for each request that came to its end: when it began and how long it took, both in
// microseconds (the first of the clock that nobody sets), to which address, and the server's name behind "ok" or a word of
// outcome. A slow answer holds up no later request. A connection that took more than one SYN was not let in, and is a timeout.
func knock(args []string) error {
	flags := flag.NewFlagSet("knock", flag.ContinueOnError)
	every := flags.Duration("every", 10*time.Millisecond, "pause between two requests to one address")
	timeout := flags.Duration("timeout", 900*time.Millisecond, "how long to wait for a connection and for an answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() < 2 || *every <= 0 {
		return errors.New("usage: probe knock [-every D] [-timeout D] tcp|udp ADDR...")
	}
	k := &knocker{network: flags.Arg(0), timeout: *timeout, out: bufio.NewWriter(os.Stdout)}
	return k.run(context.Background(), flags.Args()[1:], *every)
}

// run knocks until ctx ends, and waits for what is under way.
func (k *knocker) run(ctx context.Context, addrs []string, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var under sync.WaitGroup
	defer under.Wait()
	for {
		for _, addr := range addrs {
			under.Go(func() { k.once(addr) })
		}
		k.mu.Lock()
		err := k.out.Flush()
		k.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (k *knocker) once(addr string) {
	moment, began := monotonic(), time.Now()
	said, err := k.ask(addr)
	took := time.Since(began)
	if err != nil {
		said = ask.Outcome(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	fmt.Fprintln(k.out, moment.Microseconds(), took.Microseconds(), addr, said)
}

// monotonic is the time of the clock that every process of the machine reads alike, and that nobody sets.
func monotonic() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // there is none that lacks it
	return time.Duration(now.Nano())
}

// sentAgain reports whether a connection took more than one SYN.
func sentAgain(c *net.TCPConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	if err := raw.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil || failed != nil {
		return false, errors.Join(err, os.NewSyscallError("getsockopt", failed))
	}
	return info.Total_retrans > 0, nil
}

// ask makes a request over a connection of its own. It ends it with a reset, which leaves no port in TIME_WAIT.
func (k *knocker) ask(addr string) (string, error) {
	c, err := net.DialTimeout(k.network, addr, k.timeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if tcp, ok := c.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return "", err
		}
		if again, err := sentAgain(tcp); err != nil {
			return "", err
		} else if again {
			return "", os.ErrDeadlineExceeded
		}
	}
	if err := c.SetDeadline(time.Now().Add(k.timeout)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	name, _, _ := strings.Cut(line, " ")
	return "ok " + name, err
}
