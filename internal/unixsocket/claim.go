package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

var (
	// ErrClaimed says that another process has what is claimed.
	ErrClaimed = errors.New("another process has it")
	// ErrForeign says that a name is with a process that is neither root's nor of this process's own user, or that does not say whose it
	// is: anybody may take an abstract name.
	ErrForeign = errors.New("a process of another user has it")
)

// Claim takes a name of which there is one in each network namespace (the abstract names of unix(7)), until it is closed or
// the process ends. If another process has it the error is ErrClaimed, or ErrForeign. A process that claims in this instant may look
// foreign.
func Claim(name string) (io.Closer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "unix", "@"+name)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	c, err := net.Dial("unix", "@"+name)
	if err != nil {
		return nil, fmt.Errorf("claiming %s: %w: %w", name, ErrForeign, err)
	}
	defer c.Close()
	if _, err := Peer(c); err != nil { // the kernel names who listens
		return nil, fmt.Errorf("claiming %s: %w: %w", name, ErrForeign, err)
	}
	return nil, fmt.Errorf("claiming %s: %w", name, ErrClaimed)
}

// fileClaim is a file that is locked. It goes with its lock.
type fileClaim struct{ *os.File }

// Close gives the claim up. The file goes first, or it would be another process's by then.
func (c fileClaim) Close() error {
	err := os.Remove(c.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // somebody has cleaned up
	}
	return errors.Join(err, c.File.Close())
}

// ClaimFile takes a file, which it makes, for its owner alone, and its folder, until it is closed or the process ends. If another process
// has it the error is ErrClaimed. Unlike a name nobody else can take it, where the folder is its owner's.
func ClaimFile(path string) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("creating the folder of %s: %w", path, err)
	}
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, mode)
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrClaimed
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("claiming %s: %w", path, err), f.Close())
		}
		made, err := f.Stat()
		if now, gone := os.Lstat(path); err == nil && gone == nil && os.SameFile(made, now) {
			return fileClaim{f}, nil
		}
		// Who had it before has removed it in between.
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}
