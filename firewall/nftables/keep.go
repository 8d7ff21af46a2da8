package nftables

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Keeper has a copy of a latch's socket in another process, so that the table has its owner while no daemon runs. relay.Client is one.
type Keeper interface {
	// Keep has the socket kept from now on, in place of what was kept before, or, for nil, nothing any more. It waits for nobody, and
	// closes the socket when that is not needed here any more.
	Keep(socket *os.File)
	// LetGo has nobody keep what an earlier daemon gave.
	LetGo(ctx context.Context) error
}

// give has the socket kept while there is a table.
func (l *Latch) give(there bool) error {
	switch {
	case l.Keeper == nil || there == l.given:
		return nil
	case !there:
		l.Keeper.Keep(nil)
	default:
		fd, err := unix.FcntlInt(uintptr(l.kernel.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("copying the socket of the latch: %w", os.NewSyscallError("fcntl", err))
		}
		l.Keeper.Keep(os.NewFile(uintptr(fd), "latch"))
	}
	l.given = there
	return nil
}

// release has who keeps the socket of an earlier daemon let it go, if that is why the table cannot be changed: it is that socket's. It
// returns false if nobody does.
func (l *Latch) release(ctx context.Context, err error) bool {
	return l.Keeper != nil && errors.Is(err, unix.EPERM) && l.Keeper.LetGo(ctx) == nil
}
