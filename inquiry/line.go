package inquiry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// line is where questions go out and answers come in.
type line struct {
	injector *injector
	conn     *netlink.Conn // has the answers
	tracking *netlink.Conn // to connection tracking
	ended    chan struct{} // closed when nobody reads answers any more
	down     atomic.Bool   // close was called, or reading failed

	mu      sync.Mutex
	waiting map[asked]chan bool      // guarded by mu, as are
	fences  map[uint32]chan struct{} // those who wait for a message to be acknowledged, by its number
}

// asked is by what an answer is known.
type asked struct {
	protocol byte
	from     netip.AddrPort
}

// errGroup marks failures to have the group of NFLOG.
var errGroup = errors.New("the group of NFLOG cannot be had")

func openLine() (*line, error) {
	injector, err := newInjector()
	if err != nil {
		return nil, err
	}
	conn, err := listen()
	if err != nil {
		return nil, errors.Join(err, injector.close())
	}
	tracking, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close(), injector.close())
	}
	l := &line{injector: injector, conn: conn, tracking: tracking, ended: make(chan struct{}), waiting: map[asked]chan bool{}, fences: map[uint32]chan struct{}{}}
	go l.read()
	return l, nil
}

func (l *line) broken() bool { return l.down.Load() }

// close ends the reading of answers, and gives back what was opened.
func (l *line) close() {
	l.down.Store(true)
	_ = l.conn.Close()
	<-l.ended
	_ = errors.Join(l.tracking.Close(), l.injector.close())
}

// expect chooses a port of the client from which a packet is to come to an address, and returns what gets true with its answer, and false when
// an answer may have been lost. No connection of the client's has the port: one that has thousands, as a proxy, would else be refused at times.
func (l *line) expect(protocol byte, client, to netip.AddrPort) (netip.AddrPort, <-chan bool) {
	const attempts = 32
	for i := 0; ; i++ {
		from, answer := l.choose(protocol, client)
		if i == attempts || !isTracked(l.tracking, protocol, from, to) {
			return from, answer
		}
		l.forget(protocol, from)
	}
}

// choose chooses a port that nobody waits for.
func (l *line) choose(protocol byte, client netip.AddrPort) (netip.AddrPort, <-chan bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := make(chan bool, 1)
	for {
		from := netip.AddrPortFrom(client.Addr(), uint16(firstPort+rand.IntN(1<<16-firstPort)))
		if _, taken := l.waiting[asked{protocol, from}]; !taken && from != client {
			l.waiting[asked{protocol, from}] = answer
			return from, answer
		}
	}
}

func (l *line) forget(protocol byte, from netip.AddrPort) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, asked{protocol, from})
}

// put sends a packet, again where it or its answer was lost on the way, and waits for the answer.
func (l *line) put(packet []byte, link int, answer <-chan bool) (bool, error) {
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		err := l.injector.arrive(packet, link)
		var again <-chan time.Time
		if errors.Is(err, errDropped) {
			again = time.After(retryPause)
		} else if err != nil {
			return false, err
		}
		select {
		case yes := <-answer:
			if yes {
				return true, nil
			}
		case <-again:
		case <-late.C:
			l.catchUp()
			select {
			case yes := <-answer:
				return yes, err
			default:
				return false, err
			}
		}
	}
}

// catchUp returns when all answers are read that have come: on a busy host these may be many. It asks the kernel for a word, which comes
// behind them.
func (l *line) catchUp() {
	m, err := configuration(threshold)
	if err != nil {
		return
	}
	done := make(chan struct{})
	l.mu.Lock() // who reads the word finds who waits for it
	sent, err := l.conn.Send(m)
	if err == nil {
		l.fences[sent.Header.Sequence] = done
	}
	l.mu.Unlock()
	if err != nil {
		return
	}
	select {
	case <-done:
	case <-l.ended:
	case <-time.After(catchUpPatience):
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.fences, sent.Header.Sequence)
}

// read takes answers until the line is closed.
func (l *line) read() {
	defer close(l.ended)
	for {
		messages, err := l.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.answerAll(false)
			continue
		case err != nil:
			l.down.Store(true)
			return
		}
		for _, m := range messages {
			if m.Header.Type == netlink.Error {
				l.caughtUp(m.Header.Sequence)
			} else if protocol, from, ok := source(logged(m)); ok {
				l.answer(asked{protocol, from})
			}
		}
	}
}

func (l *line) answer(a asked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer, ok := l.waiting[a]; ok {
		tell(answer, true)
	}
}

func (l *line) caughtUp(sequence uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if done, ok := l.fences[sequence]; ok {
		close(done)
		delete(l.fences, sequence)
	}
}

// answerAll tells all who wait.
func (l *line) answerAll(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, answer := range l.waiting {
		tell(answer, yes)
	}
}

// tell replaces what nobody has read yet. Who calls it is the only one who sends.
func tell(answer chan bool, yes bool) {
	select {
	case answer <- yes:
	default:
		if yes {
			select {
			case <-answer:
			default:
			}
			answer <- yes
		}
	}
}

// explain says of an error what to do.
func explain(what string, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: it takes CAP_BPF and CAP_NET_ADMIN: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
