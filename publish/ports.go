package publish

import (
	"fmt"
	"math"
	"os"
	"sync"
	"time"
)

// lentPorts are those that the kernel gives to sockets of the host that ask for none (net.ipv4.ip_local_port_range, of both families).
type lentPorts struct {
	path string

	mu        sync.Mutex
	low, high uint16    // guarded by mu
	read      time.Time // when; guarded by mu
}

const (
	lentPath = "/proc/sys/net/ipv4/ip_local_port_range" // of the network namespace of who reads it
	// lentFor is how long they are believed to be what they were.
	lentFor = 10 * time.Second
)

// span returns the first and the last. Where nobody says, all could be.
func (l *lentPorts) span() (low, high uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read.IsZero() || time.Since(l.read) > lentFor {
		l.low, l.high, l.read = 1, math.MaxUint16, time.Now()
		var low, high uint16
		text, err := os.ReadFile(l.path)
		if err == nil {
			_, err = fmt.Sscan(string(text), &low, &high)
		}
		if err == nil && low <= high {
			l.low, l.high = low, high
		}
	}
	return l.low, l.high
}

// lends reports whether the kernel may give the port to any socket.
func (o *sockets) lends(port uint16) bool {
	low, high := o.lent.span()
	return low <= port && port <= high
}

// defaultSessions leaves most files to everything else, and most of the ports that the kernel lends: each session of UDP takes one of either.
func defaultSessions(lent *lentPorts) int {
	low, high := lent.span()
	return max(min(fileLimit()/8, (int(high)-int(low)+1)/4), 16)
}
