package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Connections connects as often as it can for a time and returns how many connections per second carried a byte each way.
func Connections(to netip.AddrPort, d time.Duration) (perSecond float64, err error) {
	runtime.GOMAXPROCS(2 * workers)
	var wg sync.WaitGroup
	counts, errs := make([]int, workers), make([]error, workers)
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			for time.Since(began) < d && errs[w] == nil {
				errs[w] = echo(to)
				counts[w]++
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / took.Seconds(), errors.Join(errs...)
}

func echo(to netip.AddrPort) error {
	fd, err := dial(unix.SOCK_STREAM, to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// A reset leaves no TIME_WAIT, of which there would soon be too many.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	b := []byte{forEcho}
	if _, err := write(fd, b); err != nil {
		return fmt.Errorf("writing to %v: %w", to, err)
	}
	n, err := read(fd, b)
	if err != nil || n != 1 {
		return errors.Join(fmt.Errorf("no echo from %v", to), err)
	}
	return nil
}

// Packets are the medians over the flows of one measurement. The way of a packet from a veth to the socket that
// receives it is gone by the sender's own call of send, so that its time is that of the whole way.
type Packets struct {
	RoundTrip   float64 // microseconds from a flow's first packet to its answer
	New         float64 // nanoseconds to send a flow's first packet
	Established float64 // nanoseconds to send a later one
}

// later is how many packets a flow has after its first.
const later = 4

// Flows makes flows of datagrams, one after the other, each from another port. It keeps the thread that it is called on.
func Flows(to netip.AddrPort, flows int) (Packets, error) {
	if err := pin(); err != nil {
		return Packets{}, err
	}
	var trips, first, rest []float64
	lost := 0
	for range flows {
		fd, err := dial(unix.SOCK_DGRAM, to)
		if err != nil {
			return Packets{}, err
		}
		for i := range later + 1 {
			sent, answered, err := roundTrip(fd)
			if err != nil {
				lost++
				break
			}
			if i > 0 {
				rest = append(rest, float64(sent.Nanoseconds()))
				continue
			}
			first, trips = append(first, float64(sent.Nanoseconds())), append(trips, float64(answered.Nanoseconds())/1e3)
		}
		_ = unix.Close(fd)
		if lost > flows/100+2 {
			return Packets{}, fmt.Errorf("%d flows to %v had no answer", lost, to)
		}
	}
	return Packets{median(trips), median(first), median(rest)}, nil
}

func roundTrip(fd int) (sent, answered time.Duration, err error) {
	b := []byte{'?'}
	began := time.Now()
	if _, err := write(fd, b); err != nil {
		return 0, 0, err
	}
	sent = time.Since(began)
	_, err = read(fd, b)
	return sent, time.Since(began), err
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// Stream writes to one connection for a time and returns how many Gbit/s arrived.
func Stream(to netip.AddrPort, d time.Duration) (gbits float64, err error) {
	fd, err := dial(unix.SOCK_STREAM, to)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if _, err := write(fd, []byte{forStream}); err != nil {
		return 0, err
	}
	buf := make([]byte, chunk)
	began := time.Now()
	for time.Since(began) < d {
		if _, err := write(fd, buf); err != nil {
			return 0, fmt.Errorf("streaming to %v: %w", to, err)
		}
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return 0, err
	}
	answer := make([]byte, 8)
	if n, err := read(fd, answer); err != nil || n != len(answer) {
		return 0, errors.Join(fmt.Errorf("the end of the stream to %v was not told", to), err)
	}
	return float64(binary.BigEndian.Uint64(answer)) * 8 / 1e9 / time.Since(began).Seconds(), nil
}
