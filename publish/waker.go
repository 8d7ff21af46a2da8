package publish

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// waker tells when the first client of a socket comes. Until then the socket has no goroutine, whose stack would be most of
// what a published port takes of memory: nearly all clients are served by the firewall.
type waker struct {
	epoll  *os.File
	closed atomic.Bool
}

func newWaker() (*waker, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // has the runtime wait for it, not a thread
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	return &waker{epoll: os.NewFile(uintptr(fd), "epoll")}, nil
}

// Close ends run.
func (w *waker) Close() error {
	w.closed.Store(true)
	return w.epoll.Close()
}

// watch has run report the file descriptor once, when there is something to read.
func (w *waker) watch(fd int) error {
	return w.control(unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(fd)})
}

// forget is the opposite of watch.
func (w *waker) forget(fd int) error { return w.control(unix.EPOLL_CTL_DEL, fd, nil) }

func (w *waker) control(op, fd int, event *unix.EpollEvent) error {
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), op, fd, event) }); err != nil {
		return err
	}
	return os.NewSyscallError("epoll_ctl", failed)
}

// run reports file descriptors until Close.
func (w *waker) run(woken func(fd int)) error {
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		var failed error
		err := raw.Read(func(epoll uintptr) bool {
			n, failed = unix.EpollWait(int(epoll), events, 0)
			return n != 0 || failed != nil && failed != unix.EINTR
		})
		switch {
		case w.closed.Load(): // a raw connection's error for that has no name
			return nil
		case err != nil || failed != nil:
			return fmt.Errorf("waiting for clients: %w", errors.Join(err, failed))
		}
		for _, e := range events[:n] {
			woken(int(e.Fd))
		}
	}
}
