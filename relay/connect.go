package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/internal/version"
)

var (
	// errAbsent says that no relay runs.
	errAbsent = errors.New("no relay of published ports runs")
	// errGone says that the relay ended, or is not the one that it was: another one has to be asked.
	errGone = errors.New("the relay of published ports ended")
)

// Spawn returns an Options.Start that starts this program's relay for a socket.
func Spawn(socket string) func() (<-chan error, error) {
	return func() (<-chan error, error) {
		child, err := process.Detach("/proc/self/exe", []string{"drawbridge", "relay", "--relay-socket", socket})
		if err != nil {
			return nil, err
		}
		return child.Ended, nil
	}
}

// End ends the relay that answers on a socket, with all that it holds, and returns when its process has ended. It returns false where
// there is none.
func End(ctx context.Context, socket string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	c := New(Options{Socket: socket})
	defer c.Close()
	hello, err := c.hello(ctx)
	switch {
	case errors.Is(err, errAbsent):
		return false, nil
	case err != nil:
		return false, err
	}
	process, err := unix.PidfdOpen(hello.PID, 0) // not to ask again: systemd would start another one for that
	if err != nil {
		return false, fmt.Errorf("the relay of published ports (process %d): %w", hello.PID, os.NewSyscallError("pidfd_open", err))
	}
	defer unix.Close(process)
	if _, err := c.post(ctx, endPath, struct{}{}); err != nil && !errors.Is(err, errGone) {
		return false, err
	}
	for hello.PID != os.Getpid() && ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(callTime.Milliseconds()))
		if n > 0 || err != nil && err != unix.EINTR {
			return true, err
		}
	}
	return true, ctx.Err()
}

// connect makes sure of a session with a relay of this program.
func (c *Client) connect(ctx context.Context, start bool) error {
	if r := c.relay.Load(); r != nil && !r.broken.Load() {
		return nil
	}
	c.drop()
	if !start && c.idle {
		return errAbsent // systemd would start one to be asked
	}
	hello, err := c.hello(ctx)
	if errors.Is(err, errAbsent) {
		c.forgive()
		if !start {
			c.idle = true
			return err
		}
		hello, err = c.start(ctx)
	}
	if err == nil && (hello.Protocol != protocol || hello.Version != version.String()) && !c.kept[hello.Instance] {
		hello, err = c.replace(ctx, hello)
	}
	if err != nil {
		return err
	}
	if _, err := c.post(ctx, sessionPath, sessionCall{c.session, c.o.Settings}); err != nil {
		return err
	}
	return c.watch(ctx, &connection{hello: hello})
}

// start starts a relay and waits until it answers.
func (c *Client) start(ctx context.Context) (Hello, error) {
	if c.o.Start == nil {
		return Hello{}, errAbsent
	}
	ended, err := c.o.Start()
	if err != nil {
		return Hello{}, fmt.Errorf("starting the relay of published ports: %w", err)
	}
	for {
		hello, err := c.hello(ctx)
		if err == nil {
			c.o.Log.Info("started the relay of published ports", "pid", hello.PID)
			return hello, nil
		}
		select {
		case how := <-ended:
			return Hello{}, fmt.Errorf("the relay of published ports ended at its start: `drawbridge relay --relay-socket %s` says why (%w)", c.o.Socket, how)
		case <-ctx.Done():
			return Hello{}, fmt.Errorf("the relay of published ports was started and does not answer: %w", err)
		case <-time.After(startPause):
		}
	}
}

// replace has a relay of another version hand over to one of this program. One that cannot is kept while both understand each other.
func (c *Client) replace(ctx context.Context, old Hello) (Hello, error) {
	_, err := c.post(ctx, upgradePath, struct{}{})
	if err == nil {
		for ctx.Err() == nil {
			hello, err := c.hello(ctx)
			if err == nil && hello.Instance != old.Instance {
				c.o.Log.Info("published ports were handed over to a relay of this version; their connections go on", "from", old.Version, "to", hello.Version, "pid", hello.PID)
				c.kept[hello.Instance] = true
				return hello, nil
			}
			pause(ctx, startPause)
		}
		return Hello{}, fmt.Errorf("the relay of published ports has handed over, and nobody answers: %w", ctx.Err())
	}
	if old.Protocol == protocol && !errors.Is(err, errGone) && ctx.Err() == nil {
		c.o.Log.Warn("the relay of published ports is of another version and stays", "version", old.Version, "pid", old.PID, "error", err)
		c.kept[old.Instance] = true
		return old, nil
	}
	if errors.Is(err, errGone) || ctx.Err() != nil {
		return Hello{}, err
	}
	c.o.Log.Warn("the relay of published ports is of another version and is ended, with its connections", "version", old.Version, "pid", old.PID, "error", err)
	if _, err := End(ctx, c.o.Socket); err != nil {
		return Hello{}, err
	}
	return Hello{}, errGone // and another one is started
}

// drop forgets the relay, if there is one.
func (c *Client) drop() {
	if r := c.relay.Swap(nil); r != nil {
		r.close()
	}
	c.base = ""
	c.http.CloseIdleConnections()
}

// watch begins to hear what the relay logs, and when it ends, for longer than the call that begins it.
func (c *Client) watch(call context.Context, r *connection) error {
	ctx, cancel := context.WithCancel(context.Background())
	r.close = cancel
	answered := context.AfterFunc(call, cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://relay"+watchPath+"?level="+c.o.Level.String(), nil)
	if err != nil {
		cancel()
		return err
	}
	answer, err := c.http.Do(req)
	if !answered() && err == nil {
		answer.Body.Close()
		err = call.Err()
	}
	if err != nil {
		cancel()
		if call.Err() != nil {
			return call.Err()
		}
		return fmt.Errorf("%w: %w", errGone, err)
	}
	c.relay.Store(r)
	if c.file.Load() != nil {
		c.handOn()
	}
	c.watching.Go(func() {
		defer answer.Body.Close()
		defer cancel()
		for lines := json.NewDecoder(answer.Body); ; {
			var line map[string]any
			if lines.Decode(&line) != nil {
				break
			}
			c.relog(line)
		}
		if ctx.Err() == nil { // or it was let go
			c.lost(r)
		}
	})
	return nil
}

// lost notes, once, that a relay ended.
func (c *Client) lost(r *connection) {
	r.broken.Store(true)
	r.mourn.Do(func() {
		if c.file.Load() != nil && r.settled.Load() {
			c.handOn()
		}
		if !c.published.Load() {
			return
		}
		c.o.Log.Warn("the relay of published ports ended: another one is started", "pid", r.hello.PID)
		if !r.settled.Load() {
			return // the next one may do no better: the loop has its pauses
		}
		signal(c.gone)
	})
}

// relog writes a line of the relay into the daemon's log.
func (c *Client) relog(line map[string]any) {
	var level slog.Level
	text, _ := line[slog.LevelKey].(string)
	if level.UnmarshalText([]byte(text)) != nil {
		level = slog.LevelWarn
	}
	message, _ := line[slog.MessageKey].(string)
	var attrs []slog.Attr
	for _, key := range slices.Sorted(maps.Keys(line)) {
		if key != slog.LevelKey && key != slog.MessageKey && key != slog.TimeKey {
			attrs = append(attrs, slog.Any(key, line[key]))
		}
	}
	c.o.Log.LogAttrs(context.Background(), level, message, attrs...)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hello asks who is there. Its error is errAbsent where nobody is.
func (c *Client) hello(ctx context.Context) (Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, briefTime)
	defer cancel()
	var hello Hello
	status, err := c.do(ctx, http.MethodGet, helloPath, nil, &hello)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return hello, errAbsent
	case err != nil && ctx.Err() != nil:
		return hello, fmt.Errorf("it does not say at %s who it is: %w", c.o.Socket, err)
	case err != nil:
		return hello, fmt.Errorf("%w: %w", errGone, err)
	case status != http.StatusOK || hello.Instance == "":
		return hello, fmt.Errorf("who answers at %s is no relay of published ports: choose another --relay-socket", c.o.Socket)
	}
	return hello, nil
}

// post asks for something. The error is errGone if the relay was not there to the end, and else what it answered.
func (c *Client) post(ctx context.Context, path string, call any) (reply, error) {
	var out reply
	status, err := c.do(ctx, http.MethodPost, path, call, &out)
	switch {
	case err != nil && ctx.Err() != nil:
		return reply{}, err
	case err != nil:
		return reply{}, fmt.Errorf("%w: %w", errGone, err)
	case status == http.StatusServiceUnavailable, status == http.StatusConflict:
		return reply{}, errGone
	case status != http.StatusOK:
		if err := join(out.Failures); err != nil {
			return reply{}, err
		}
		return reply{}, fmt.Errorf("the relay of published ports answers %d", status)
	}
	return out, nil
}

func (c *Client) do(ctx context.Context, method, path string, call, into any) (status int, err error) {
	body, err := json.Marshal(call)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://relay"+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, decode(text, into)
}
