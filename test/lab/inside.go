package lab

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/test/lab/ask"
)

// netNS is the network namespace from which a request can be made, as a path outside of the lab. It is empty where only a process of the place's own can make
// it: names are looked up in its files, zones are of its links, and raw sockets are another matter.
func netNS(ctx context.Context, from Place, r Request) (path string, err error) {
	to, err := netip.ParseAddrPort(r.Addr)
	if err != nil || to.Addr().Zone() != "" || r.Network == "sctp" {
		return "", nil
	}
	switch p := from.(type) {
	case *Host:
		return p.NetNS(), nil
	case *Client:
		return p.host.Path("/run/netns/" + p.Name), nil
	case *Container:
		return p.netNS(ctx)
	}
	return "", nil
}

// netNS is that of the container's process.
func (c *Container) netNS(ctx context.Context) (string, error) {
	var described struct{ State struct{ Pid int } }
	if err := c.d.inspect(ctx, "/containers/"+c.Name+"/json", &described); err != nil {
		return "", err
	}
	if described.State.Pid == 0 {
		return "", fmt.Errorf("container %s does not run", c.Name)
	}
	return c.d.host.Path(fmt.Sprintf("/proc/%d/ns/net", described.State.Pid)), nil
}

// askIn makes a request from a network namespace. The thread that goes there is not used again.
func askIn(ctx context.Context, ns string, r Request) (line string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		line, err = askHere(ctx, ns, r)
	}()
	<-done
	return line, err
}

func askHere(ctx context.Context, ns string, r Request) (string, error) {
	f, err := os.Open(ns)
	if err != nil {
		return "", err
	}
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	_ = f.Close()
	if err != nil {
		return "", fmt.Errorf("entering the network namespace %s: %w", ns, err)
	}
	c, err := ask.Dial(ctx, r.Network, r.Addr, r.Bind, r.Timeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	return ask.Line(c, bufio.NewReader(c), r.Network, r.Timeout)
}
