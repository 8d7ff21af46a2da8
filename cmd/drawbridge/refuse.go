package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/driver"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/internal/version"
	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/plugin"
	"github.com/drawbridge-net/drawbridge/store"
)

// reopenInterval is how often it is tried again to use a state file that could not be used.
const reopenInterval = time.Second

// refusal answers on both sockets in the daemon's place while its state file cannot be used. An absent daemon would cost dockerd 15
// seconds per call, and per network at its start. Links and rules stay as they are.
type refusal struct {
	fault atomic.Pointer[store.Fault]
	log   *slog.Logger
	since time.Time
}

// refuse serves until begin succeeds, whose parts it returns, or fails for another reason than the state file, or ctx ends. Both
// listeners then accept for the next server.
func refuse(ctx context.Context, engine, commands net.Listener, log *slog.Logger, fault *store.Fault, begin func() (*daemonParts, error)) (*daemonParts, error) {
	r := &refusal{log: log, since: time.Now()}
	r.note(fault)
	r.notify(daemon.SdNotifyReady) // or docker.service would wait
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- r.parts().answer(serving, unixsocket.Lend(engine), unixsocket.Lend(commands)) }()
	d, err := r.retry(serving, ended, begin)
	stop()
	err = errors.Join(err, <-ended, unixsocket.Reclaim(engine), unixsocket.Reclaim(commands))
	if err != nil && d != nil {
		d.close()
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// retry calls begin until it succeeds or fails for another reason, or the servers end; no parts and no error mean that ctx ended.
func (r *refusal) retry(ctx context.Context, ended chan error, begin func() (*daemonParts, error)) (*daemonParts, error) {
	ticker := time.NewTicker(reopenInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case err := <-ended:
			ended <- nil // for refuse
			return nil, err
		case <-ticker.C:
		}
		d, err := begin()
		fault, is := errors.AsType[*store.Fault](err)
		if !is {
			if err == nil {
				r.log.Info("the state file can be used again")
			}
			return d, err
		}
		if fault.Error() != r.fault.Load().Error() {
			r.note(fault)
			r.notify("")
		}
	}
}

func (r *refusal) note(f *store.Fault) {
	r.fault.Store(f)
	r.log.Error("refusing all calls until the state file can be used; links and rules stay as they are", "error", f)
}

// notify has systemctl status show the fault.
func (r *refusal) notify(more string) {
	notify(r.log, "STATUS=refusing all calls: "+r.fault.Load().Error()+"\n"+more)
}

// parts answer without a state: whatever needs none as always, everything else with the fault.
func (r *refusal) parts() *daemonParts {
	fault := func() error { return r.fault.Load() }
	return &daemonParts{
		plugin: plugin.NewServer(plugin.Routes(new(driver.Driver), new(ipam.Driver)), plugin.Options{
			Log: r.log, Brief: true,
			Ready: func(context.Context) error { return fault() },
		}),
		control: control.NewServer(control.Sources{
			Refused: fault,
			Status: func(context.Context) (control.Status, error) {
				return control.Status{Version: version.String(), Since: r.since, Backend: "none", Errors: []string{fault().Error()}}, nil
			},
		}),
	}
}
