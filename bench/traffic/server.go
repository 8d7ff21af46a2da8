package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

// Serve answers tcp and udp on a port of all addresses. It says when it is ready, and returns only on an error.
func Serve(port uint16, ready func()) error {
	// One thread for each blocking call: none waits for another to come back from the kernel.
	runtime.GOMAXPROCS(2 * workers)
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	tcp, err := listen(at)
	if err != nil {
		return err
	}
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(udp, sockaddr(at)); err != nil {
		return fmt.Errorf("binding udp %v: %w", at, err)
	}
	failed := make(chan error, workers+1)
	for range workers {
		go func() { failed <- accept(tcp) }()
	}
	go func() { failed <- reflect(udp) }()
	ready()
	return <-failed
}

func listen(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		return -1, fmt.Errorf("binding tcp %v: %w", at, err)
	}
	return fd, unix.Listen(fd, 1024)
}

// accept serves echoes itself, one after the other, and leaves streams to others. Of what is held nothing more is read.
func accept(fd int) error {
	buf := make([]byte, 2)
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			return fmt.Errorf("accepting: %w", err)
		}
		n, _ := read(c, buf)
		if n > 0 && buf[0] == forStream {
			go swallow(c, int64(n-1))
			continue
		}
		if n > 0 && buf[0] == forHold {
			_, _ = write(c, buf[:1])
			continue // it stays open for as long as the server runs
		}
		if n > 0 {
			_, _ = write(c, buf[:1])
			_, _ = read(c, buf) // until the client's reset
		}
		_ = unix.Close(c)
	}
}

// swallow reads a stream to its end and answers with its length.
func swallow(c int, total int64) {
	defer unix.Close(c)
	buf := make([]byte, chunk)
	for {
		n, err := read(c, buf)
		if err != nil {
			return
		}
		if n == 0 {
			_, _ = write(c, binary.BigEndian.AppendUint64(nil, uint64(total)))
			return
		}
		total += int64(n)
	}
}

func reflect(fd int) error {
	if err := errors.Join(pin(), yield()); err != nil {
		return err
	}
	buf := make([]byte, 64)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch err {
		case nil:
			_ = unix.Sendto(fd, buf[:n], 0, from)
		case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH:
		default:
			return fmt.Errorf("receiving: %w", err)
		}
	}
}
