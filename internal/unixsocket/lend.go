package unixsocket

import (
	"net"
	"time"
)

// lent is a listener whose owner goes on with it after it was closed.
type lent struct{ net.Listener }

// Lend returns l for a server that serves it for a while. Its Close only ends the Accept under way: clients that come later wait for
// the next server, and the socket's file stays. l is one that [Listen] made; [Reclaim] makes it accept again.
func Lend(l net.Listener) net.Listener { return lent{l} }

// Close implements net.Listener.
func (l lent) Close() error { return acceptUntil(l.Listener, time.Unix(1, 0)) }

// Reclaim ends a loan, when the server has ended.
func Reclaim(l net.Listener) error { return acceptUntil(l, time.Time{}) }

func acceptUntil(l net.Listener, deadline time.Time) error {
	return l.(interface{ SetDeadline(time.Time) error }).SetDeadline(deadline)
}
