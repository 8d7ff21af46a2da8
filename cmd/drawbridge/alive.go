package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/drawbridge-net/drawbridge/internal/periodic"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/plugin"
	"github.com/drawbridge-net/drawbridge/reconcile"
)

const (
	// hangTime is after what time one piece of work counts as hanging. All that we wait for is given up long before.
	hangTime = time.Minute
	// beats is how often in the time after which systemd takes us for dead it is told otherwise.
	beats = 3
)

// pulse tells systemd's watchdog that the daemon lives, for as long as it does its work.
type pulse struct {
	sockets []string
	log     *slog.Logger
	parts   atomic.Pointer[daemonParts] // nil while there is no state: then only the sockets count
}

// keep does so until ctx ends. Where systemd did not ask for it, it does nothing.
func (p *pulse) keep(ctx context.Context) {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		p.log.Warn("there is no watchdog: systemd's variables for it cannot be read", "error", err)
	}
	if err != nil || within == 0 {
		return
	}
	said := ""
	_ = periodic.Do(ctx, within/beats, func(time.Time) {
		err := p.check(ctx, within/beats)
		switch {
		case err == nil:
			notify(p.log, daemon.SdNotifyWatchdog)
			said = ""
		case ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			p.log.Error("the daemon hangs: unless that ends, systemd starts it again; traffic goes on meanwhile", "error", err)
		}
	})
}

// check finds what hangs. It takes no longer than within, whatever that is.
func (p *pulse) check(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	asking, stop := context.WithTimeout(ctx, within*3/4) // so that what does not answer is named
	defer stop()
	found := make(chan error, 1)
	go func() { found <- p.look(asking) }() // on a goroutine of its own: what it looks at may be locked for good
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return fmt.Errorf("it does not answer itself within %s", within)
	}
}

func (p *pulse) look(ctx context.Context) error {
	for _, path := range p.sockets {
		if err := answers(ctx, path); err != nil {
			return err
		}
	}
	d := p.parts.Load()
	if d == nil {
		return nil
	}
	return errors.Join(slow(d.plugin.Oldest(), time.Now()), stuck(d.loop.Status(), time.Now()))
}

// answers asks on a socket for what takes no work. What the answer says, 404 on the control socket, does not matter.
func answers(ctx context.Context, path string) error {
	t := unixsocket.Transport(path)
	t.DisableKeepAlives = true
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://drawbridge"+plugin.AlivePath, nil)
	if err != nil {
		return err
	}
	res, err := t.RoundTrip(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil // somebody took the file away, or we end: neither is a hang
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// slow complains of a call whose handler has long overstayed its deadline.
func slow(c plugin.Call, now time.Time) error {
	if took := now.Sub(c.Began); c.Name != "" && took > hangTime {
		return fmt.Errorf("the call %s has run for %s", c.Name, took.Round(time.Second))
	}
	return nil
}

// stuck complains of a loop that does not come to an end.
func stuck(s reconcile.Status, now time.Time) error {
	if took := now.Sub(s.Busy); !s.Busy.IsZero() && took > hangTime {
		what := "a look at the host"
		if s.Step != "" {
			what = "the " + s.Step + " step"
		}
		return fmt.Errorf("%s has run for %s", what, took.Round(time.Second))
	}
	return nil
}
