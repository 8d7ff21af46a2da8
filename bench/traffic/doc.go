// Package traffic is the load of the benchmark: a server and closed-loop clients over IPv4, on plain system calls, so
// that what is measured is the kernel's way from one to the other and not a runtime's.
//
// A TCP connection begins with a byte that says what it is for: an echo of one byte, after which the client resets
// the connection so that nothing is left waiting, a stream, of which the server tells in the end how many bytes came, or one that is
// held, of which the server reads no more. Every load is bounded in time or in number, but those that are held end with their context.
package traffic

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// What a TCP connection is for.
const (
	forEcho   = 'e'
	forStream = 's'
	forHold   = 'h'
)

// workers is how many clients connect at the same time, and how many threads of the server accept.
const workers = 4

// patience is how long a call may take before it counts as lost, in seconds.
const patience = 2

// chunk is what a stream writes at a time.
const chunk = 256 << 10

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// open makes a socket that waits no longer than patience.
func open(kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.Timeval{Sec: patience}
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// dial makes a connected socket.
func dial(kind int, to netip.AddrPort) (int, error) {
	fd, err := open(kind)
	if err != nil {
		return -1, err
	}
	err = again(func() error { return unix.Connect(fd, sockaddr(to)) })
	// A connect that a signal ended goes on by itself, and may have got there.
	if err != nil && err != unix.EISCONN {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connecting to %v: %w", to, err)
	}
	return fd, nil
}

// pin binds the caller to one processor. Both ends of datagram flows are on it: whether the kernel has to wake another
// processor for the receiver, which a virtual machine takes longer for than for the packet, is left to no chance.
func pin() error {
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("binding a thread to a processor: %w", err)
	}
	return nil
}

// yield has the caller, a thread of its own, not interrupt others when it is woken. A receiver that does would send its
// answer within the sender's call, whose time would be that of both ways or of one, as it comes.
func yield() error {
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}, 0); err != nil {
		return fmt.Errorf("choosing a thread's scheduler: %w", err)
	}
	return nil
}

// again repeats a call that a signal interrupted: the runtime sends them to its threads.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func read(fd int, b []byte) (n int, err error) {
	err = again(func() error { n, err = unix.Read(fd, b); return err })
	return n, err
}

func write(fd int, b []byte) (n int, err error) {
	err = again(func() error { n, err = unix.Write(fd, b); return err })
	return n, err
}
