package firewalld

import (
	"context"
	"errors"

	"github.com/godbus/dbus/v5"
)

// Strict reports whether firewalld refuses whatever was redirected by others than itself (StrictForwardPorts=yes in firewalld.conf, from
// 2.3 on), the host's own connections among it. It is as Watch found it when it last saw firewalld start, reload or answer for the
// first time, and false before.
func (p *Plane) Strict() bool { return p.strict.Load() }

// lookStrict asks firewalld. One that is not there, or is older, is not strict.
func (p *Plane) lookStrict(ctx context.Context, b *bus) {
	var value dbus.Variant
	err := b.send(ctx, b.conn.Object(service, configPath), "org.freedesktop.DBus.Properties.Get",
		[]any{service + ".config", "StrictForwardPorts"}, []any{&value})
	var refused dbus.Error
	if err != nil && !errors.As(err, &refused) {
		return // it did not answer in time, and is as it was
	}
	said, _ := value.Value().(string)
	p.strict.Store(err == nil && said == "yes")
}

// Running reports whether firewalld is on the bus. A host without a bus has none. It does not start one.
func (p *Plane) Running(ctx context.Context) (bool, error) {
	b, err := p.open(ctx)
	if b == nil {
		return false, err // nil where there is no bus
	}
	defer b.close()
	return b.hasFirewalld(ctx)
}
