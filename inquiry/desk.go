package inquiry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

const (
	// Patience is how long an answer is waited for.
	Patience = 250 * time.Millisecond
	// catchUpPatience is how long answers that have come may take to be read.
	catchUpPatience = 2 * time.Second
	// openPatience is how long somebody else may have the group: a relay that hands over, and waits for its own last answers.
	openPatience = time.Second
	// crowd is how many clients may be asked about at a time. The answers of so many have room at the socket. Senders of UDP, whose addresses may be
	// invented, have a part that leaves the rest to those who have shaken hands.
	crowd    = 4096
	crowdUDP = crowd / 4
	// retryPause is before a packet is sent again that the kernel had no room for.
	retryPause = 5 * time.Millisecond
	// firstPort is the least source port, as a client's is.
	firstPort = 1024
)

// Desk asks. Its methods may be called concurrently.
type Desk struct {
	proc    string
	rooms   map[state.Proto]chan struct{}
	missing atomic.Pointer[string]

	opening sync.Mutex
	mu      sync.Mutex
	line    *line // nil until the first question; guarded by mu, as is what follows
	same    map[state.Visit]*question
	retired bool
}

// Options configure a Desk. The zero value is the usual one.
type Options struct {
	// Proc is where the proc file system is mounted; empty means /proc.
	Proc string
}

// New returns a Desk. It opens nothing before the first question.
func New(o Options) *Desk {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	rooms := map[state.Proto]chan struct{}{state.TCP: make(chan struct{}, crowd-crowdUDP), state.UDP: make(chan struct{}, crowdUDP)}
	return &Desk{proc: o.Proc, rooms: rooms, same: map[state.Visit]*question{}}
}

// question is one that all have who ask it at the same time.
type question struct {
	done chan struct{} // closed when what follows is there
	yes  bool
	err  error
}

// errCrowded is the error of a question for which there was no room.
var errCrowded = errors.New("too many clients are asked about at the same time")

// Admits reports whether the rules let a client pass that comes from outside. With an error it is not known, and nobody is to be admitted.
func (d *Desk) Admits(ctx context.Context, v state.Visit) (bool, error) {
	l, err := linkOf(v.Link)
	if err != nil {
		return false, err
	}
	if !d.forwards(l.name, v.At.Addr().Is6()) {
		return true, nil
	}
	about := v
	about.Client = netip.AddrPortFrom(v.Client.Addr(), 0) // whichever port it uses
	d.mu.Lock()
	q, asked := d.same[about]
	if !asked {
		q = &question{done: make(chan struct{})}
		d.same[about] = q
	}
	d.mu.Unlock()
	if !asked {
		q.yes, q.err = d.ask(v, l)
		d.mu.Lock()
		delete(d.same, about)
		d.mu.Unlock()
		close(q.done)
		d.settle()
	}
	select {
	case <-q.done:
		return q.yes, q.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// ask puts a question that nobody else has put.
func (d *Desk) ask(v state.Visit, l link) (bool, error) {
	protocol, ok := protocolOf(v.Proto)
	if !ok || !v.At.Addr().IsValid() || v.At.Addr().Is4() != v.Client.Addr().Is4() {
		return false, fmt.Errorf("nobody can be asked about %s from %s to %s", v.Proto, v.Client, v.At)
	}
	room := d.rooms[v.Proto]
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-time.After(Patience):
		return false, errCrowded
	}
	line, err := d.open()
	if err != nil {
		return false, err
	}
	from, answer := line.expect(protocol, v.Client, v.At)
	defer line.forget(protocol, from)
	packet := frame(protocol, from, v.At, l.hardware, rand.Uint32())
	return line.put(packet, v.Link, answer)
}

// Ready opens what questions take, for as long as nobody calls Retire, and says whether something is missing.
func (d *Desk) Ready() error {
	d.mu.Lock()
	d.retired = false
	d.mu.Unlock()
	_, err := d.open()
	return err
}

// open returns the line, and opens it for the first question. What fails is tried again with the next one.
func (d *Desk) open() (*line, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	d.mu.Lock()
	now := d.line
	d.mu.Unlock()
	if now != nil && !now.broken() {
		return now, nil
	}
	if now != nil {
		now.close()
	}
	fresh, err := openLine()
	for until := time.Now().Add(openPatience); isTaken(err) && time.Now().Before(until); fresh, err = openLine() {
		<-time.After(retryPause)
	}
	d.note(err)
	d.mu.Lock()
	d.line = fresh
	d.mu.Unlock()
	return fresh, err
}

// isTaken reports whether another socket has the group.
func isTaken(err error) bool {
	return errors.Is(err, errGroup) && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY))
}

// note remembers what is missing.
func (d *Desk) note(err error) {
	if err == nil {
		d.missing.Store(nil)
		return
	}
	text := err.Error()
	d.missing.Store(&text)
}

// Missing says what keeps questions from being put, "" for nothing as far as is known.
func (d *Desk) Missing() string {
	if text := d.missing.Load(); text != nil {
		return *text
	}
	return ""
}

// Retire gives back what was opened as soon as all questions are answered that were put. Further ones open it, each for itself.
func (d *Desk) Retire() {
	d.mu.Lock()
	d.retired = true
	d.mu.Unlock()
	d.settle()
}

// settle closes the line of a desk that has retired and has no question left.
func (d *Desk) settle() {
	d.mu.Lock()
	var idle *line
	if d.retired && len(d.same) == 0 {
		idle, d.line = d.line, nil
	}
	d.mu.Unlock()
	if idle != nil {
		idle.close()
	}
}

// Close gives back what was opened. Questions that are under way are answered by no.
func (d *Desk) Close() error {
	d.mu.Lock()
	last := d.line
	d.line = nil
	d.mu.Unlock()
	if last != nil {
		last.close()
	}
	return nil
}
