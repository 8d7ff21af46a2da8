package firewalld

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// Names of firewalld on the bus (firewalld.dbus(5)).
const (
	service    = "org.fedoraproject.FirewallD1"
	path       = dbus.ObjectPath("/org/fedoraproject/FirewallD1")
	configPath = dbus.ObjectPath("/org/fedoraproject/FirewallD1/config")
)

// zoneInterface has the methods and signals of zones that are in force.
const zoneInterface = service + ".zone"

// busService is the bus's own name and interface.
const busService = "org.freedesktop.DBus"

// systemBus opens a private connection to the system bus. The address is given, not found by the
// library, whose error for a host without a bus cannot be told from others.
func systemBus(ctx context.Context) (*dbus.Conn, error) {
	address := "unix:path=/run/dbus/system_bus_socket"
	if a := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); a != "" {
		address = a
	}
	return dbus.Connect(address, dbus.WithContext(ctx))
}

// bus is one private connection: the shared one of the library cannot be closed.
type bus struct {
	conn    *dbus.Conn
	cancel  context.CancelFunc
	timeout time.Duration
}

// open connects within the timeout. It returns nil and no error where there is no bus.
func (p *Plane) open(ctx context.Context) (*bus, error) {
	life, cancel := context.WithCancel(ctx)
	// Connecting has no timeout of its own; a context with one would end the
	// finished connection as well.
	timer := time.AfterFunc(p.timeout, cancel)
	conn, err := p.connect(life)
	late := !timer.Stop()
	if err == nil && !late {
		return &bus{conn, cancel, p.timeout}, nil
	}
	if err == nil {
		_ = conn.Close()
	}
	cancel()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connecting to the D-Bus system bus: %w", ctx.Err())
	case late:
		return nil, fmt.Errorf("the D-Bus system bus did not answer within %s: is dbus-daemon or dbus-broker stuck?", p.timeout)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	}
	return nil, fmt.Errorf("connecting to the D-Bus system bus, to look for firewalld: %w", err)
}

func (b *bus) close() {
	_ = b.conn.Close() // nothing is buffered
	b.cancel()
}

// send makes one method call and stores what comes back.
func (b *bus) send(ctx context.Context, to dbus.BusObject, method string, args []any, reply []any) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	// NoAutoStart: a firewalld that the admin stopped must stay stopped.
	return to.CallWithContext(ctx, method, dbus.FlagNoAutoStart, args...).Store(reply...)
}

// runtime calls a method of what firewalld has in force: "zone.addInterface", "reload".
func (b *bus) runtime(ctx context.Context, method string, args []any, reply ...any) error {
	return b.firewalld(ctx, path, method, args, reply)
}

// config calls a method of firewalld's permanent configuration that makes an object.
func (b *bus) config(ctx context.Context, method string, args ...any) error {
	var made dbus.ObjectPath
	return b.firewalld(ctx, configPath, "config."+method, args, []any{&made})
}

func (b *bus) firewalld(ctx context.Context, at dbus.ObjectPath, method string, args []any, reply []any) error {
	began := time.Now()
	err := b.send(ctx, b.conn.Object(service, at), service+"."+method, args, reply)
	if err == nil {
		return nil
	}
	return &callError{Method: method, Took: time.Since(began), Err: err}
}

func (b *bus) hasFirewalld(ctx context.Context) (bool, error) {
	var here bool
	err := b.send(ctx, b.conn.BusObject(), busService+".NameHasOwner", []any{service}, []any{&here})
	if err != nil {
		return false, fmt.Errorf("asking the D-Bus system bus whether firewalld is there: %w", err)
	}
	return here, nil
}

// zoneOf returns the zone to which the interface is bound, empty for none.
func (b *bus) zoneOf(ctx context.Context, link string) (string, error) {
	var zone string
	err := b.runtime(ctx, "zone.getZoneOfInterface", []any{link}, &zone)
	return zone, err
}
