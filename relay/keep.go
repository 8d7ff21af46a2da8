package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// keepCall names the abstract socket of the daemon from which the relay gets the file that it is to keep.
type keepCall struct {
	Session string `json:"session"`
	From    string `json:"from"`
}

// Keep has the relay hold a file beside the ports, for as long as it lives, or, for nil, none. One is started for that. Keep waits for
// nobody: [Client.Watch] hands the file over, to each relay that comes.
func (c *Client) Keep(f *os.File) {
	c.mu.Lock() // nobody sends it meanwhile
	defer c.mu.Unlock()
	if old := c.file.Swap(f); old != nil {
		_ = old.Close()
	}
	c.handOn()
}

// LetGo has a relay that runs hold no file, whoever gave it.
func (c *Client) LetGo(ctx context.Context) error {
	err := c.with(ctx, briefTime, false, func(ctx context.Context) error {
		_, err := c.post(ctx, letGoPath, struct{}{})
		return err
	})
	if errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// LetGo has the relay that answers on a socket, if one does, hold no file beside the ports.
func LetGo(ctx context.Context, socket string) error {
	c := New(Options{Socket: socket})
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, briefTime)
	defer cancel()
	if _, err := c.hello(ctx); errors.Is(err, errAbsent) {
		return nil
	}
	_, err := c.post(ctx, letGoPath, struct{}{})
	return err
}

// handOn asks Watch to hand the file over.
func (c *Client) handOn() { signal(c.keeping) }

// signal puts an element into a channel of one, if it has none.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// handOver gives the file to the relay, or has it let go.
func (c *Client) handOver(ctx context.Context) error {
	f := c.file.Load()
	if f == nil {
		return c.LetGo(ctx)
	}
	return c.with(ctx, callTime, true, func(ctx context.Context) error {
		c.idle = false
		return c.giveFile(ctx, f)
	})
}

// giveFile has the relay call for it: HTTP carries no files.
func (c *Client) giveFile(ctx context.Context, f *os.File) error {
	name := "@drawbridge-" + rand.Text()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: name})
	if err != nil {
		return fmt.Errorf("opening a socket to hand a file over: %w", err)
	}
	defer l.Close()
	go func() {
		for {
			line, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.sendFile(line, f)
		}
	}()
	if _, err = c.post(ctx, keepPath, keepCall{c.session, name}); err == nil {
		c.relay.Load().settled.Store(true)
	}
	return err
}

// sendFile answers one call at the socket, by whoever has seen its name.
func (c *Client) sendFile(line *net.UnixConn, f *os.File) {
	defer line.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := unixsocket.Peer(line); err == nil && c.file.Load() == f {
		_ = send(line, []byte(keepWord), []*os.File{f}) // or the relay says that it got none
	}
}

// keep gets a file from the daemon.
func (s *Server) keep(ctx context.Context, call keepCall) (reply, error) {
	if call.Session != s.session {
		return reply{}, errUnknown
	}
	dialer := net.Dialer{Timeout: briefTime}
	conn, err := dialer.DialContext(ctx, "unixpacket", call.From)
	if err != nil {
		return reply{}, fmt.Errorf("fetching a file to keep: %w", err)
	}
	defer conn.Close()
	if _, err := unixsocket.Peer(conn); err != nil {
		return reply{}, err
	}
	if err := conn.SetDeadline(time.Now().Add(briefTime)); err != nil {
		return reply{}, err
	}
	word, files, err := receive(conn.(*net.UnixConn))
	if err == nil && (string(word) != keepWord || len(files) != 1) {
		err = fmt.Errorf("%d files came", len(files))
	}
	if err != nil {
		closeAll(files)
		return reply{}, fmt.Errorf("fetching a file to keep: %w", err)
	}
	s.drop()
	s.kept = files[0]
	return reply{}, nil
}

// letGo closes what is kept.
func (s *Server) letGo(context.Context, struct{}) (reply, error) {
	s.drop()
	return reply{}, nil
}

// drop is letGo for who has the turn.
func (s *Server) drop() {
	if s.kept != nil {
		_ = s.kept.Close()
	}
	s.kept = nil
}
