package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// maxPath is the length of sockaddr_un.sun_path less the final zero (unix(7)).
	maxPath = 107
	// mode of the socket file: connecting takes the right to write to it.
	mode = 0o600
	// probe is how long a socket found in the way may take to accept. A unix socket
	// accepts or refuses at once unless its backlog is full.
	probe = time.Second
)

// Listen opens a stream socket at the absolute path, creating its folder. Only the
// owner can connect (mode 0600). A socket file that nobody serves is replaced; one
// that is served, and anything that is not a socket, is an error and is left
// alone. Closing the listener removes the file if it is still the one made here.
func Listen(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("socket path %q must be absolute", path)
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket path %s has %d characters: the kernel allows %d", path, len(path), maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("creating the folder of socket %s: %w", path, err)
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: ownerOnly}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return own(l.(*net.UnixListener), path)
}

// ownerOnly sets the mode that bind(2) will give to the file. The usual ways are worse:
// chmod after bind leaves a window, and umask belongs to the whole process, so that
// files which other goroutines make in that instant come out wrong. Linux takes
// the mode from the unbound socket's own inode (net/unix/af_unix.c, unix_bind_bsd).
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), mode) })
	return errors.Join(err, failed)
}

// clearStale removes a socket file that nobody serves.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("looking at %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is in the way and is not a socket: remove it, or choose another path for the socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probe)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("another process serves %s: stop it first, or choose another path for the socket", path)
	case errors.Is(err, fs.ErrNotExist): // it went away by itself
		return nil
	case !errors.Is(err, syscall.ECONNREFUSED):
		// A full backlog or a lack of rights says nothing about who serves it.
		return fmt.Errorf("%s is in the way and may be in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("removing the stale socket %s: %w", path, err)
	}
	return nil
}

// listener removes its file on Close, unless the file is no longer the one it made:
// net.UnixListener would remove whatever has the name by then.
type listener struct {
	*net.UnixListener
	path string
	made fs.FileInfo

	once sync.Once
	err  error // of the first Close
}

func own(l *net.UnixListener, path string) (net.Listener, error) {
	l.SetUnlinkOnClose(false)
	made, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("looking at the new socket %s: %w", path, err)
	}
	return &listener{UnixListener: l, path: path, made: made}, nil
}

// Close ends the listener. The file goes first: while the socket is open its inode
// number cannot be given to another file, so the comparison means something.
func (l *listener) Close() error {
	l.once.Do(func() {
		var removed error
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
			removed = os.Remove(l.path)
		}
		l.err = errors.Join(removed, l.UnixListener.Close())
	})
	return l.err
}
