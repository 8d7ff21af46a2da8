package publish

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// errOnlyByRules says that a port of SCTP would lead nowhere.
var errOnlyByRules = errors.New("only firewall rules lead sctp to a container")

// openSCTP takes the place of b. Its socket is bound and never listens. There is none where the kernel has
// no SCTP: then no other program of the host can have the port.
func (o *sockets) openSCTP(b binding) (server, error) {
	if o.servesAll(b) {
		return nil, errOnlyByRules
	}
	socket, err := bound(b.addr, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		return unserved{socket}, nil
	}
	if !errors.Is(err, syscall.EPROTONOSUPPORT) && !errors.Is(err, syscall.ESOCKTNOSUPPORT) {
		return nil, err
	}
	// UDP says what bind(2) says to an address that the host has not.
	if socket, err = bound(netip.AddrPortFrom(b.addr.Addr(), 0), unix.SOCK_DGRAM, unix.IPPROTO_UDP); err != nil {
		return nil, err
	}
	return unserved{}, socket.Close()
}
