package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/store"
)

func newServe() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon that dockerd talks to",
		Long: `Run the daemon that dockerd talks to. It needs root.

Every flag can be given as an environment variable: --log-level as DRAWBRIDGE_LOG_LEVEL, and so on; the
flag wins. Flags that dockerd has too have dockerd's meaning.

On SIGTERM calls under way are finished and the sockets removed. Containers keep their
networks: rules and links stay until "drawbridge purge" or until their networks are removed.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := time.Now()
			err := serveAsSet(cmd, &s)
			if err != nil && s.inContainer() {
				linger(cmd.Context(), err, began)
			}
			return err
		},
	}
	s.register(cmd.Flags())
	return cmd
}

func serveAsSet(cmd *cobra.Command, s *settings) error {
	if err := fromEnvironment(cmd); err != nil {
		return err
	}
	p, err := s.parse()
	if err != nil {
		return err
	}
	return serve(cmd.Context(), *s, p)
}

// enableTime is longer than an engine waits for a managed plugin that it starts (12.5 s).
const enableTime = 15 * time.Second

// linger puts the end off of a managed plugin that cannot start, until its engine has given up: one that ends earlier is started again at
// once, and again, and Docker 20.10 then cannot start it any more.
func linger(ctx context.Context, err error, began time.Time) {
	newLog(slog.LevelError, true).Error("the daemon cannot start", "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(began.Add(enableTime))):
	}
}

// serve listens before anything that could take its time, so that dockerd's calls wait instead of failing, and opens the state,
// whose lock keeps a second daemon of another host's namespace out. It answers until ctx ends; while the state file cannot be
// used it answers that. The parts end in the opposite order: no new calls, calls under way finished, then the loop that they wait
// for, then the sockets of published ports.
func serve(ctx context.Context, s settings, p parsed) error {
	log := newLog(p.level, s.inContainer())
	// A fault, or systemd's watchdog, ends us by a signal and not with exit code 2, which says that starting us again is of no use.
	debug.SetTraceback("crash")
	for _, complaint := range strayVariables(os.Environ()) {
		log.Warn(complaint)
	}
	alone, err := claimHost(s.controlSocket, func(err error) {
		log.Warn("another user's process has the name by which daemons keep each other off: one with another --control-socket would not notice us", "error", err)
	})
	if err != nil {
		return err
	}
	defer alone.Close()
	listener, err := listenForEngine(s.pluginSocket)
	if err != nil {
		return err
	}
	defer listener.Close()
	commands, err := control.Listen(s.controlSocket)
	if err != nil {
		return err
	}
	defer commands.Close()

	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	alive := &pulse{sockets: []string{s.pluginSocket, s.controlSocket}, log: log}
	running.Go(func() { alive.keep(background) })

	begin := func() (*daemonParts, error) { return newDaemon(ctx, s, p, log) }
	d, err := begin()
	if fault, is := errors.AsType[*store.Fault](err); is {
		d, err = refuse(ctx, listener, commands, log, fault, begin)
	}
	if err != nil || d == nil {
		stop()
		running.Wait()
		return err
	}
	defer d.close()
	alive.parts.Store(d)
	for name, task := range d.tasks {
		running.Go(func() {
			if err := task(background); err != nil && background.Err() == nil {
				log.Error("a part of the daemon ended", "part", name, "error", err)
			}
		})
	}
	log.Info("serving", "version", version.String(), "socket", s.pluginSocket)
	running.Go(func() {
		// Whoever is ordered behind us, as dockerd is, finds bridges and rules in place.
		if d.ready(background) == nil {
			notify(log, "STATUS=serving\n"+daemon.SdNotifyReady)
		}
	})
	err = d.answer(ctx, listener, commands)
	notify(log, daemon.SdNotifyStopping)
	stop()
	running.Wait()
	if d.plugin.Drained() {
		d.settle(context.WithoutCancel(ctx), log)
	}
	return err
}

// settle writes down that what was made in the last moments too was answered for.
func (d *daemonParts) settle(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if err := d.answered(ctx); err != nil {
		log.Warn("writing down that Docker was answered: what was made in the last half minute may be removed as forgotten while it has no container", "error", err)
	}
}

// claimTime is how long a daemon waits for another one to be gone.
const claimTime = time.Second

// claims are what keeps a second daemon off, and are given up together.
type claims []io.Closer

// Close implements io.Closer.
func (c claims) Close() error {
	var errs []error
	for _, claim := range c {
		errs = append(errs, claim.Close())
	}
	return errors.Join(errs...)
}

// claimHost keeps a second daemon, and purge, off the host: each would remove the links and rules of the other. It claims a file beside the
// control socket, and a name, which says it for the whole network namespace, whatever the paths are. The name does not count where it is
// with another user: anybody may take it, and could keep the daemon from its host.
func claimHost(controlSocket string, foreign func(error)) (io.Closer, error) {
	var held claims
	for _, claim := range []func() (io.Closer, error){
		func() (io.Closer, error) { return unixsocket.ClaimFile(controlSocket + ".lock") },
		func() (io.Closer, error) { return unixsocket.Claim("drawbridge-host") },
	} {
		c, err := patiently(claim)
		switch {
		case err == nil:
			held = append(held, c)
			continue
		case errors.Is(err, unixsocket.ErrForeign):
			foreign(err)
			continue
		case errors.Is(err, unixsocket.ErrClaimed):
			err = errors.New("another drawbridge daemon serves this host: stop it first")
		}
		_ = held.Close()
		return nil, err
	}
	return held, nil
}

// patiently claims again for a while: a program that a killed daemon was about to start has its claim for a moment more, and who
// claims in the same instant does not say yet who it is.
func patiently(claim func() (io.Closer, error)) (io.Closer, error) {
	taken := func(err error) bool {
		return errors.Is(err, unixsocket.ErrClaimed) || errors.Is(err, unixsocket.ErrForeign)
	}
	held, err := claim()
	for began := time.Now(); taken(err) && time.Since(began) < claimTime; held, err = claim() {
		<-time.After(claimTime / 20) // the kernel tells nobody when a claim ends
	}
	return held, err
}

// answer serves both sockets until ctx ends. If one of them fails the other is ended too.
func (d *daemonParts) answer(ctx context.Context, engine, commands net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 2)
	go func() { failed <- d.plugin.Serve(ctx, engine) }()
	go func() { failed <- d.control.Serve(ctx, commands) }()
	first := <-failed
	cancel()
	return errors.Join(first, <-failed)
}

// notify tells systemd; without systemd it does nothing.
func notify(log *slog.Logger, what string) {
	if _, err := daemon.SdNotify(false, what); err != nil {
		log.Warn("telling systemd", "error", err)
	}
}

const (
	// checkInterval is how often the host is compared with the state when nothing happens.
	checkInterval = 30 * time.Second
	// askOn is how long DOCKER-USER is asked after its last rule went: who replaces rules is done by then, and has been heard of.
	askOn = 10 * time.Second
	// sweepInterval is how often endpoints are looked for whose container is gone.
	sweepInterval = 10 * time.Second
	// leftoverTimeout bounds the look for rules of an earlier run.
	leftoverTimeout = 10 * time.Second
	// settleTime bounds the last entry in the state.
	settleTime = 5 * time.Second
	// zoneTimeout bounds a call of firewalld. It is well below a call's own deadline, so that the
	// answer says who is to blame.
	zoneTimeout = 5 * time.Second
	// startPatience is how long dockerd's start, which is ordered behind ours, and calls wait for the first comparison.
	startPatience = 5 * time.Second
	// debounce lets events that come in a burst, our own changes' included, share a pass. It
	// delays no call: those do not wait for events.
	debounce = 100 * time.Millisecond
)
