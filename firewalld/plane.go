package firewalld

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/drawbridge-net/drawbridge/state"
)

// defaultTimeout of one call. firewalld answers within milliseconds, but it
// does one thing at a time: a call waits for a reload that is under way.
const defaultTimeout = 10 * time.Second

// Options of a [Plane]; the zero value is usable.
type Options struct {
	// Log gets what Watch meets on its way; nil discards it. Apply returns its errors.
	Log *slog.Logger
	// Connect opens a private connection to the bus on which firewalld is. The
	// connection may end when ctx does. Nil opens the system bus.
	Connect func(ctx context.Context) (*dbus.Conn, error)
	// Timeout of each D-Bus call and of connecting, 10 seconds if zero.
	Timeout time.Duration
}

// Plane makes firewalld's zone equal to the desired state. Its methods may be called
// concurrently.
type Plane struct {
	log     *slog.Logger
	connect func(context.Context) (*dbus.Conn, error)
	timeout time.Duration

	strict atomic.Bool // see Strict

	wanted atomic.Pointer[state.Snapshot] // of the last pass, see wants
	anew   atomic.Bool                    // firewalld was reloaded or started since the last pass

	mu sync.Mutex // one pass at a time
	// unloadable is set when a reload did not bring a permanent zone or policy to life,
	// and guarded by mu. Without it each pass would reload, and each reload
	// would trigger a pass.
	unloadable bool
	// ensured says that the zone and the policy were there before, and found what the last Apply met; both guarded by mu.
	ensured bool
	found   found
}

// New returns a Plane. It does not connect yet.
func New(o Options) *Plane {
	p := &Plane{log: o.Log, connect: o.Connect, timeout: o.Timeout}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.connect == nil {
		p.connect = systemBus
	}
	if p.timeout == 0 {
		p.timeout = defaultTimeout
	}
	return p
}

// Apply brings firewalld in line with s: the zone and the policy exist, each network's
// bridge is in the zone, and no retired bridge is. It writes nothing if that is so
// already. Making the zone or the policy takes a reload, which costs whatever others
// configured at runtime only; so it is done by the first pass, not by the first network, once in
// the life of a host. A failure that concerns one bridge is a
// [state.ObjectError] of its network and does not keep the others from being done.
func (p *Plane) Apply(ctx context.Context, s state.Snapshot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = found{paced: p.anew.Swap(false)}
	p.wanted.Store(&s)
	return p.with(ctx, func(b *bus) error {
		if err := p.ensureObjects(ctx, b); err != nil {
			return err
		}
		p.ensured = true
		bound := bind(ctx, b, s, &p.found)
		if endsPass(bound) {
			return bound
		}
		return errors.Join(bound, unbind(ctx, b, s, &p.found))
	})
}

// wants reports whether the link is the bridge of a network that is to be in the zone.
func (p *Plane) wants(link string) bool {
	s := p.wanted.Load()
	return s != nil && slices.ContainsFunc(s.Networks, func(n state.Network) bool { return n.Bridge == link })
}

// Unbind takes bridges out of the zone, and makes nothing.
func (p *Plane) Unbind(ctx context.Context, bridges []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.with(ctx, func(b *bus) error {
		return unbind(ctx, b, state.Snapshot{Retired: bridges}, &found{})
	})
}

// with calls do on a connection if there is a firewalld to talk to. A firewalld that goes away
// meanwhile is as good as none: it takes its zones with it, and its return
// triggers a pass.
func (p *Plane) with(ctx context.Context, do func(*bus) error) error {
	b, err := p.open(ctx)
	if b == nil {
		return err // nil where there is no bus
	}
	defer b.close()
	switch here, err := b.hasFirewalld(ctx); {
	case err != nil:
		return err
	case !here:
		return nil
	}
	err = do(b)
	if classify(err) == gone {
		if here, again := b.hasFirewalld(ctx); again == nil && !here {
			return nil
		}
	}
	return err
}
