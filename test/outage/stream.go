package outage

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// every is the pause between an answer and the next question.
const every = 10 * time.Millisecond

// streamPatience is how long a stream waits for an answer before it gives its connection up.
const streamPatience = 60 * time.Second

// sessionPatience is the same for datagrams. One that has no answer is sent again after a quarter of it.
const sessionPatience = 16 * time.Second

// A Stream is one TCP connection, or one session of UDP, on which something is asked about a hundred times a second.
type Stream struct {
	client

	mu      sync.Mutex
	answers []time.Time // guarded by mu
	said    []string    // guarded by mu
}

// Open opens a connection and returns when the first answer has come.
func Open(ctx context.Context, from lab.Place, addr string) (*Stream, error) {
	return open(ctx, from, streamPatience, "tcp", addr)
}

// OpenUDP does the same with datagrams, all from one port. A lost one ends nothing; [Stream.Longest] tells of it.
func OpenUDP(ctx context.Context, from lab.Place, addr string) (*Stream, error) {
	return open(ctx, from, sessionPatience, "udp", addr)
}

func open(ctx context.Context, from lab.Place, patience time.Duration, network, addr string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{client: newClient(cancel, "the connection was cut")}
	cmd := from.Command(ctx, from.Probe(), "get", "-timeout", patience.String(), "-count", "100000000", "-every", every.String(), network, addr)
	cmd.Stderr = s.stderr
	lines, err := start(cmd)
	if err != nil {
		cancel()
		return nil, err
	}
	first := make(chan struct{})
	go s.read(cmd, lines, first)
	select {
	case <-first:
		return s, nil
	case <-s.ended:
	case <-time.After(lab.PassTimeout):
		s.Close()
	}
	return nil, fmt.Errorf("no connection to %s: %s", addr, strings.TrimSpace(s.stderr.String()))
}

// start starts a command and returns what it says, line by line.
func start(cmd *exec.Cmd) (*bufio.Reader, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return bufio.NewReader(out), cmd.Start()
}

func (s *Stream) read(cmd *exec.Cmd, lines *bufio.Reader, first chan<- struct{}) {
	defer close(s.ended)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		if !strings.Contains(line, " ") {
			continue // the word for how it ended
		}
		s.mu.Lock()
		s.answers = append(s.answers, time.Now())
		if word := strings.TrimSpace(line); !slices.Contains(s.said, word) {
			s.said = append(s.said, word)
		}
		if len(s.answers) == 1 {
			close(first)
		}
		s.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, lines)
	_ = cmd.Wait()
}

// GoesOn returns when questions asked from now on are answered, or with an error when the connection has ended or
// hangs for longer than the time given. The answer to a question that is on its way may have been sent before: hence
// more than one.
func (s *Stream) GoesOn(within time.Duration) error {
	began, hung := s.count(), time.After(within)
	for s.count() < began+3 {
		select {
		case <-s.ended:
			return s.Err()
		case <-hung:
			return fmt.Errorf("the connection hangs for %v", within)
		case <-time.After(every):
		}
	}
	return nil
}

func (s *Stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answers)
}

// Longest is the longest time without an answer between two moments.
func (s *Stream) Longest(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Longest(s.answers, from, to)
}

// Answers are the times of all answers so far.
func (s *Stream) Answers() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.answers)
}

// Said are the answers that differ: of each server, and of each address from which it saw the questions come, one.
func (s *Stream) Said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

// Longest returns the longest distance between neighbours among the moments and both ends. The moments are in order.
func Longest(moments []time.Time, from, to time.Time) (gap time.Duration) {
	last := from
	for _, m := range moments {
		if m.Before(from) {
			continue
		}
		if m.After(to) {
			break
		}
		gap, last = max(gap, m.Sub(last)), m
	}
	return max(gap, to.Sub(last))
}
