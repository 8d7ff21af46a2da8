// Package execs counts the programs that are started in a pid namespace. The kernel tells of every fork and exec on
// the machine (the proc connector, which needs root); those of other namespaces are left out by descent.
package execs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Counter counts from New to Close.
type Counter struct {
	fd    int
	known map[uint32]bool // processes of the namespace
	count int
	lost  bool
}

const (
	idxProc    = 1 // CN_IDX_PROC
	listen     = 1 // PROC_CN_MCAST_LISTEN
	eventFork  = 1
	eventExec  = 2
	eventExit  = 1 << 31
	headLen    = 16 + 20 // nlmsghdr and cn_msg
	bufferSize = 8 << 20
)

// New begins to count in the pid namespace of a process. Processes that are in it already are found by
// their namespace, later ones by their parents.
func New(member int) (*Counter, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, err
	}
	c := &Counter{fd: fd, known: map[uint32]bool{}}
	if err := errors.Join(c.subscribe(), c.find(member)); err != nil {
		return nil, errors.Join(fmt.Errorf("asking the kernel for process events: %w", err), c.Close())
	}
	return c, nil
}

func (c *Counter) subscribe() error {
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize)
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: idxProc}); err != nil {
		return err
	}
	b := make([]byte, headLen+4)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], unix.NLMSG_DONE)
	binary.NativeEndian.PutUint32(b[16:], idxProc)
	binary.NativeEndian.PutUint32(b[20:], idxProc)
	binary.NativeEndian.PutUint16(b[32:], 4)
	binary.NativeEndian.PutUint32(b[36:], listen)
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func (c *Counter) find(member int) error {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", member))
	if err != nil {
		return err
	}
	for _, pid := range Pids() {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && ns == want {
			c.known[uint32(pid)] = true
		}
	}
	return nil
}

// Pids are the machine's processes.
func Pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var out []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// settle is how long after an operation its programs' starts may be told.
const settle = 100 * time.Millisecond

// Count is how many programs were started since New or the last Count.
func (c *Counter) Count() (int, error) {
	tv := unix.NsecToTimeval(settle.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	for end := time.Now().Add(settle); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			c.lost = true
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		default:
			c.event(buf[:n])
		}
	}
	count := c.count
	c.count = 0
	if c.lost {
		return count, errors.New("the kernel told of more processes than could be read")
	}
	return count, nil
}

// event enters one message: what (4), cpu (4), time (8), and then process ids.
func (c *Counter) event(message []byte) {
	if len(message) < headLen+32 {
		return
	}
	e := message[headLen:]
	id := func(i int) uint32 { return binary.NativeEndian.Uint32(e[16+4*i:]) }
	switch binary.NativeEndian.Uint32(e) {
	case eventFork: // parent pid, parent tgid, child pid, child tgid
		if c.known[id(1)] {
			c.known[id(3)] = true
		}
	case eventExec: // pid, tgid
		if c.known[id(1)] {
			c.count++
		}
	case eventExit:
		if id(0) == id(1) {
			delete(c.known, id(1))
		}
	}
}

// Close ends the count.
func (c *Counter) Close() error { return unix.Close(c.fd) }
