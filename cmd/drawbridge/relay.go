package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/drawbridge-net/drawbridge/internal/periodic"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/relay"
)

// newRelay is started by the daemon, by systemd and by a relay of another version, not by people.
func newRelay() *cobra.Command {
	var socket string
	var takeOver bool
	cmd := &cobra.Command{
		Use:    "relay",
		Short:  "Hold the sockets of published ports for the daemon",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd); err != nil {
				return err
			}
			return holdPorts(cmd.Context(), socket, takeOver)
		},
	}
	cmd.Flags().StringVar(&socket, "relay-socket", defaultRelaySocket, "unix socket on which the daemon asks, unless systemd has opened it")
	cmd.Flags().BoolVar(&takeOver, "take-over", false, "take over what another relay holds, which has opened a socket for that")
	return cmd
}

// inherited is the first file that a process is given beside its three usual ones.
const inherited = 3

// holdPorts runs a relay until it is ended or holds nothing any more.
func holdPorts(ctx context.Context, socket string, takeOver bool) error {
	// It may have been started by a path that says nothing; who looks for the owner of a port reads this.
	_ = os.WriteFile("/proc/self/comm", []byte("drawbridge"), 0)
	server, listener, err := newHolder(socket, takeOver, slog.NewTextHandler(os.Stderr, nil))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = periodic.Do(ctx, sweepInterval, func(time.Time) { trimMemory() }) })
	return server.Serve(ctx, listener)
}

// newHolder returns a relay, and the listener on which it is asked: that of the relay before, systemd's, or one of its own.
func newHolder(socket string, takeOver bool, log slog.Handler) (*relay.Server, net.Listener, error) {
	o := relay.ServerOptions{Log: log, Notify: func(what string) { notify(slog.New(log), what) }}
	if takeOver {
		return relay.TakeOver(os.NewFile(inherited, "elder"), o)
	}
	listener, err := activated()
	if err != nil || listener != nil {
		o.Notify(daemon.SdNotifyReady)
		return relay.NewServer(o), listener, err
	}
	o.Notify = nil // the daemon that started it is whom systemd knows
	listener, err = unixsocket.Listen(socket)
	return relay.NewServer(o), listener, err
}
