package unixsocket

import (
	"errors"
	"net"
	"os"
)

// Adopt returns the listener of a socket that another process made and handed over. With owner, closing it removes the socket's file as
// that of [Listen] does; without, the file belongs to somebody else, as to systemd. The file f is closed.
func Adopt(f *os.File, owner bool) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("what was handed over is not a unix socket"), l.Close())
	}
	if owner {
		return own(u, u.Addr().String())
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

// File returns a copy of the listener's socket, to be handed over, and whether closing the listener removes the socket's file. l is one
// that [Listen] or [Adopt] made.
func File(l net.Listener) (f *os.File, owner bool, err error) {
	if made, ok := l.(*listener); ok {
		f, err = made.UnixListener.File()
		return f, true, err
	}
	f, err = l.(*net.UnixListener).File()
	return f, false, err
}

// Leave returns l without its file: closing it leaves the socket to whom it was handed over to.
func Leave(l net.Listener) net.Listener {
	if made, ok := l.(*listener); ok {
		return made.UnixListener
	}
	return l
}
