package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
	"github.com/drawbridge-net/drawbridge/store"
)

// Host answers what the state cannot know.
type Host interface {
	// FitNetwork says whether the host has room for a new network, and returns it with what depends
	// on the host (Network.Asked) filled in.
	FitNetwork(ctx context.Context, n state.Network) (state.Network, error)
	// Forwarding reports whether the host forwards IPv4 and IPv6, and, where v6 is to be turned on, which
	// links' router advertisements it listens to.
	Forwarding(v6 bool) (state.Forwarding, error)
	// Boot identifies the current boot of the host.
	Boot() (string, error)
	// Lost returns those of the endpoints whose veth pair is in no container.
	Lost(ctx context.Context, endpoints []state.Endpoint) ([]state.Endpoint, error)
	// Running reports of a lost endpoint whether its container runs all the same.
	Running(e state.Endpoint) bool
}

// Ports holds host ports for endpoints.
type Ports interface {
	// Reserve takes all ports that want asks for, or none.
	Reserve(ctx context.Context, e state.Endpoint, want []state.PortRequest) ([]state.Port, error)
	// Release gives back what the endpoint reserved and is not in keep.
	Release(id state.EndpointID, keep []state.Port)
}

// Loop makes the host equal to the state.
type Loop interface {
	// Wait returns when the host is equal to the given or a later revision, or with the
	// failures that concern the scope.
	Wait(ctx context.Context, revision uint64, scope state.Scope) error
}

// Flows forgets connections that the kernel tracks, soon after it is told.
type Flows interface {
	// Forget ends all flows from and to the addresses, which may get another owner.
	Forget(addrs []netip.Addr)
	// ForgetPublished ends the flows that came to the endpoint by ports that are gone.
	ForgetPublished(e state.Endpoint, gone []state.Port)
	// ForgetPorts ends the flows that missed ports which were not there yet.
	ForgetPorts(ports []state.Port)
	// Settle waits until what was told before is done.
	Settle(ctx context.Context) error
}

// Options are the daemon's settings that the driver needs. They have dockerd's meaning.
type Options struct {
	// IPForward turns the host's forwarding on when a network needs it.
	IPForward bool
	// HostIP is the host address of ports published without one (--ip); the zero Addr and
	// 0.0.0.0 mean every address, :: every IPv6 address.
	HostIP netip.Addr
	// MTU of networks that do not say, in bytes; 0 takes that of the link with the default route.
	MTU int
	// NoICC and NoMasquerade are for networks that do not say (--icc=false, --ip-masq=false).
	NoICC, NoMasquerade bool
	// NoRules says that there is no firewall of ours (--iptables=false): what needs one is refused.
	NoRules bool
	// NoRules6 says the same of IPv6 (--ip6tables=false).
	NoRules6 bool
}

// Driver is Docker's NetworkDriver. Its methods may be called concurrently.
type Driver struct {
	store    *store.Store
	loop     Loop
	ports    Ports
	host     Host
	flows    Flows
	options  Options
	locks    locks
	suspects suspects

	// retirements counts the bridges' names that were retired, for settle.
	retirements atomic.Uint64
}

// New returns a driver that keeps its state in s.
func New(s *store.Store, loop Loop, ports Ports, host Host, flows Flows, o Options) *Driver {
	return &Driver{store: s, loop: loop, ports: ports, host: host, flows: flows, options: o}
}

// Restore fits the state to the current boot; it is called once, before the first pass.
// After a reboot no container of before runs any more, nothing of a retired bridge is left,
// and the forwarding switches are back to the host's own setting. As dockerd does at its
// start, it claims forwarding for the networks there are.
func (d *Driver) Restore(ctx context.Context) error {
	boot, err := d.host.Boot()
	if err != nil {
		return err
	}
	_, err = d.store.Update(ctx, func(tx *store.Tx) error {
		before := tx.Forwarding()
		if before.Boot != boot {
			if before.Boot != "" {
				dropEphemeral(tx)
			}
			tx.SetForwarding(state.Forwarding{Boot: boot})
		}
		if err := d.claimForwarding(tx, tx.Networks()...); err != nil {
			return err
		}
		rememberAdvertised(tx, before.RA)
		if d.options.NoRules {
			dropLinks(tx)
		}
		return nil
	})
	return err
}

// rememberAdvertised keeps the links by whose router advertisements the host found its way in earlier boots, where forwarding is
// ours again: the daemon starts before the first advertisement of this one.
func rememberAdvertised(tx *store.Tx, links state.LinkNames) {
	if f := tx.Forwarding(); f.V6 {
		f.RA = state.JoinLinkNames(append(f.RA.All(), links.All()...))
		tx.SetForwarding(f)
	}
}

// dropEphemeral removes what does not outlive a boot.
func dropEphemeral(tx *store.Tx) {
	for _, e := range tx.Endpoints() {
		tx.DeleteEndpoint(e.ID)
	}
	for _, bridge := range tx.Retired() {
		tx.Unretire(bridge)
	}
}

// dropLinks forgets links between containers, for which the host would route without a rule that
// says what may pass.
func dropLinks(tx *store.Tx) {
	for _, e := range tx.Endpoints() {
		e.Links = nil
		tx.PutEndpoint(e)
	}
}

// undoTimeout bounds the way back after a failure: the call's own deadline may have passed.
const undoTimeout = 10 * time.Second

// change carries out do, waits for the host, and carries out undo if the host could not be
// made equal to the result.
func (d *Driver) change(ctx context.Context, scope state.Scope, do, undo func(*store.Tx) error) error {
	revision, err := d.store.Update(ctx, do)
	if err != nil {
		return err
	}
	if err := d.await(ctx, revision, scope); err != nil {
		return d.takeBack(ctx, undo, err)
	}
	return nil
}

// await waits for the host, and leaves a tenth of the call's time for the way back, so that the caller is told what did not answer.
func (d *Driver) await(ctx context.Context, revision uint64, scope state.Scope) error {
	if end, bounded := ctx.Deadline(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-time.Until(end)/10))
		defer cancel()
	}
	return d.loop.Wait(ctx, revision, scope)
}

// takeBack undoes a change because of cause, which it returns.
func (d *Driver) takeBack(ctx context.Context, undo func(*store.Tx) error, cause error) error {
	patience := undoTimeout
	if end, bounded := ctx.Deadline(); bounded && ctx.Err() == nil {
		patience = min(patience, time.Until(end)*9/10) // where something hangs it does so on the way back, too
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if _, err := d.store.Update(ctx, undo); err != nil {
		return errors.Join(cause, fmt.Errorf("undoing the change: %w", err))
	}
	// What still fails now is retried by the loop; the caller wants the first cause.
	ctx, cancel = context.WithTimeout(ctx, patience)
	defer cancel()
	_ = d.settle(ctx, state.Scope{})
	return cause
}
