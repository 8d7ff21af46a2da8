package traffic

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Hold opens connections one after the other, each of which carries a byte each way, says so, and keeps them until the context ends.
// The server reads no more of them. With stop it sends before that what is taken of it all the same, and tells how many bytes that were.
func Hold(ctx context.Context, to netip.AddrPort, n int, stop bool, ready func(taken int64)) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	b := []byte{forHold}
	for range n {
		fd, err := dial(unix.SOCK_STREAM, to)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		// Their ends are resets: nobody has to read to learn of them.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
		if _, err := write(fd, b); err != nil {
			return fmt.Errorf("writing to %v: %w", to, err)
		}
		if got, err := read(fd, make([]byte, 1)); err != nil || got != 1 {
			return fmt.Errorf("connection %d has no answer from %v: %w", len(fds), to, err)
		}
	}
	var taken int64
	if stop {
		taken = fill(fds)
	}
	ready(taken)
	<-ctx.Done()
	return nil
}

// settled is how long nothing more must have been taken before it counts as all.
const settled = time.Second

// fill sends until nothing more is taken.
func fill(fds []int) (taken int64) {
	buf := make([]byte, chunk)
	for last := time.Now(); time.Since(last) < settled; time.Sleep(10 * time.Millisecond) {
		for _, fd := range fds {
			if n, err := unix.SendmsgN(fd, buf, nil, nil, unix.MSG_DONTWAIT); err == nil {
				taken += int64(n)
				last = time.Now()
			}
		}
	}
	return taken
}
