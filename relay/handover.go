package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/publish"
	"github.com/drawbridge-net/drawbridge/state"
)

const (
	// handoverTime bounds a hand-over, in which no call is answered. 10,000 sockets take a tenth of a second.
	handoverTime = 10 * time.Second
	// batch is how many sockets one message has; the kernel takes 253.
	batch = 100
	// maxMessage bounds a message, which has a batch in words.
	maxMessage = 1 << 18
)

// inheritance is what a relay hands over beside sockets. It grows, and nothing in it changes its meaning: both sides may be of any version.
type inheritance struct {
	Settings Settings       `json:"settings"`
	Session  string         `json:"session"`
	Base     string         `json:"base"`
	State    state.Snapshot `json:"state"`
	Inquire  *Inquire       `json:"inquire,omitempty"`
	// Owner says that the file of the control socket is removed at the end; it is not systemd's.
	Owner bool `json:"owner"`
}

// A hand-over is a conversation on a socket of whole messages. The old relay sends
//
//	"state" with two files: an inheritance as JSON, and the listener of the control socket
//	[]publish.Held as JSON, with a file for each that has one, again and again; an empty list ends it
//
// The new one answers "ready", and from then on sends places ([]publish.Place as JSON) that are not published any more, until it ends.
const (
	stateWord = "state"
	readyWord = "ready"
	keepWord  = "keep" // with what a daemon has a relay keep
)

// upgrade starts the program of the daemon that asks and hands everything over to it. If that fails all is as before.
func (s *Server) upgrade(ctx context.Context, _ []byte) (reply, error) {
	pid, _ := ctx.Value(caller{}).(int)
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.over {
		return reply{}, errOver
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return reply{}, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "heir")
	heir, err := lineOf(os.NewFile(uintptr(pair[0]), "heir"))
	if err != nil {
		return reply{}, errors.Join(err, theirs.Close())
	}
	// The daemon's own file, whatever has its name by now.
	child, err := process.Detach(fmt.Sprintf("/proc/%d/exe", pid), []string{"drawbridge", "relay", "--take-over"}, theirs)
	_ = theirs.Close()
	if err != nil {
		return reply{}, errors.Join(err, heir.Close())
	}
	if err := s.handOver(heir); err != nil {
		child.Kill()
		return reply{}, errors.Join(fmt.Errorf("handing published ports over to the relay of another version: %w", err), heir.Close())
	}
	if s.o.Notify != nil {
		s.o.Notify(fmt.Sprintf("MAINPID=%d", child.Pid))
	}
	s.log.Info("published ports were handed over to the relay of another version", "pid", child.Pid)
	s.ports.Load().Retire()
	s.desk.Retire()
	s.drop() // the daemon that asks gives it to the new one
	s.heir, s.over = heir, true
	s.leave.Do(func() { close(s.left) })
	return reply{}, nil
}

// handOver sends all and waits for the word that it is there. No call changes anything meanwhile.
func (s *Server) handOver(heir *net.UnixConn) (err error) {
	defer func() {
		if err != nil {
			s.ports.Load().Resume()
		}
	}()
	if err := heir.SetDeadline(time.Now().Add(handoverTime)); err != nil {
		return err
	}
	if err := s.sendState(heir); err != nil {
		return err
	}
	if err := s.sendSockets(heir); err != nil {
		return err
	}
	word, files, err := receive(heir)
	closeAll(files)
	if err != nil || string(word) != readyWord {
		return fmt.Errorf("it answers %q: %w", state.Clip(string(word)), err)
	}
	return heir.SetDeadline(time.Time{})
}

func (s *Server) sendState(heir *net.UnixConn) error {
	listener, owner, err := unixsocket.File(s.listener)
	if err != nil {
		return err
	}
	defer listener.Close()
	document, err := document(inheritance{Settings: s.settings, Session: s.session, Base: s.base, State: s.state, Inquire: s.inquire.Load(), Owner: owner})
	if err != nil {
		return err
	}
	defer document.Close()
	return send(heir, []byte(stateWord), []*os.File{document, listener})
}

// document returns a file in memory, since a state is larger than a message may be.
func document(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("drawbridge", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "state")
	if err := json.NewEncoder(f).Encode(v); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *Server) sendSockets(heir *net.UnixConn) error {
	var held []publish.Held
	var files []*os.File
	flush := func() error {
		defer func() { closeAll(files); held, files = nil, nil }()
		text, err := json.Marshal(append([]publish.Held{}, held...))
		if err != nil {
			return err
		}
		return send(heir, text, files)
	}
	for h, f := range s.ports.Load().Given() {
		held = append(held, h)
		if f != nil {
			files = append(files, f)
		}
		if len(held) < batch {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	if len(held) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return flush() // nothing, which is the end
}

// drain lives until the last connection has ended, or until the relay that took over has: then nobody would tell which of them
// must end since their ports are not published any more.
func (s *Server) drain(ctx context.Context, heir *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer heir.Close()
	ports := s.ports.Load()
	go func() {
		defer cancel()
		for {
			text, files, err := receive(heir)
			closeAll(files)
			var gone []publish.Place
			if err != nil || decode(text, &gone) != nil {
				return
			}
			ports.Cut(gone)
			s.elder.tell(gone...)
		}
	}()
	if ports.Wait(ctx) == nil && s.elder.wait(ctx) == nil {
		return
	}
	_ = ports.Close() // which has closed its sockets before
	s.elder.close()
}

// TakeOver returns a server in place of that of another process, and the listener on which it is to answer, by the socket that was
// handed to this process.
func TakeOver(f *os.File, o ServerOptions) (*Server, net.Listener, error) {
	line, err := lineOf(f)
	if err != nil {
		return nil, nil, err
	}
	s := NewServer(o)
	l, err := s.takeOver(line)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("taking published ports over: %w", err), line.Close(), s.ports.Load().Close())
	}
	return s, l, nil
}

func (s *Server) takeOver(line *net.UnixConn) (net.Listener, error) {
	if err := line.SetDeadline(time.Now().Add(handoverTime)); err != nil {
		return nil, err
	}
	word, files, err := receive(line)
	if err != nil {
		return nil, err
	}
	if string(word) != stateWord || len(files) != 2 {
		closeAll(files)
		return nil, fmt.Errorf("%q with %d files is no state", state.Clip(string(word)), len(files))
	}
	l, err := s.inherit(files[0], files[1])
	if err != nil {
		return nil, err
	}
	if err := s.takeSockets(line); err != nil {
		return nil, errors.Join(err, unixsocket.Leave(l).Close())
	}
	// For a moment both accept. What fails here the daemon's next look finds.
	if err := s.ports.Load().Apply(context.Background(), s.state); err != nil {
		s.log.Warn("serving the published ports that were taken over", "error", err)
	}
	if err := errors.Join(line.SetDeadline(time.Time{}), send(line, []byte(readyWord), nil)); err != nil {
		return nil, errors.Join(err, unixsocket.Leave(l).Close())
	}
	s.elder.attach(line)
	return l, nil
}

func (s *Server) inherit(document, listener *os.File) (net.Listener, error) {
	defer document.Close()
	text, err := io.ReadAll(io.LimitReader(document, maxBody))
	var in inheritance
	if err == nil {
		err = decode(text, &in)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.settings, s.session, s.base, s.state = in.Settings, in.Session, in.Base, in.State
	s.hear(in.Inquire) // nothing of a relay that asked nobody
	if in.Owner {
		s.o.Notify = nil // systemd does not know this one
	}
	s.ports.Store(s.publisher())
	return unixsocket.Adopt(listener, in.Owner)
}

func (s *Server) takeSockets(line *net.UnixConn) error {
	for {
		text, files, err := receive(line)
		if err != nil {
			return err
		}
		var held []publish.Held
		if err := decode(text, &held); err != nil {
			closeAll(files)
			return err
		}
		if len(held) == 0 {
			closeAll(files)
			return nil
		}
		for _, h := range held {
			var f *os.File
			if !h.NoFile && len(files) > 0 {
				f, files = files[0], files[1:]
			}
			// What cannot be taken is closed, and bound by the daemon's next look.
			if err := s.ports.Load().Take(h, f); err != nil {
				s.log.Warn("taking a published port over", "error", err)
			}
		}
		closeAll(files)
	}
}

// lineOf returns the connection of a socket of whole messages, and closes the file.
func lineOf(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	line, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("what was handed over is not a unix socket"), c.Close())
	}
	return line, nil
}

func send(line *net.UnixConn, message []byte, files []*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(rawFD(f)))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err := line.WriteMsgUnix(message, rights, nil)
	return err
}

// rawFD returns the descriptor of a file that the caller keeps open. [os.File.Fd] would make the socket, and all its copies, block.
func rawFD(f *os.File) (out uintptr) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { out = fd })
	}
	return out
}

func receive(line *net.UnixConn) ([]byte, []*os.File, error) {
	message, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*batch))
	n, rn, flags, _, err := line.ReadMsgUnix(message, rights)
	if err != nil {
		return nil, nil, err
	}
	files, err := filesOf(rights[:rn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("a message is too long")
	}
	if err == nil && n == 0 {
		err = io.EOF // no message is empty
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return message[:n], files, nil
}

func filesOf(rights []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	var out []*os.File
	for _, m := range messages {
		fds, failed := unix.ParseUnixRights(&m)
		err = errors.Join(err, failed)
		for _, fd := range fds {
			out = append(out, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return out, err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

var _ http.Handler = (*Server)(nil)
