package link

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/drawbridge-net/drawbridge/state"
)

// LeadsLoopback reports whether the host's connections to its loopback addresses may be translated on their way to the
// network's containers: packets of these addresses are then routed to the bridge and taken from it (route_localnet), and
// every port of the bridge is guarded.
func (l *Links) LeadsLoopback(n state.Network) bool {
	return l.wantsLocalnet(n) && l.unguarded.why(n.ID) == ""
}

// wantsLocalnet leaves out adopted bridges, whose other ports are their owner's, where no guard of ours belongs, and bridges
// without an address, which leave it to others how the host gets there.
func (l *Links) wantsLocalnet(n state.Network) bool {
	if !l.RouteLocalnet || n.Internal || n.Adopted || n.V4.IsZero() {
		return false
	}
	_, ok := n.V4.BridgeAddr()
	return ok
}

// guardPorts makes sure of the guards of the part's ports, and closes the bridges that have a port without one.
func (l *Links) guardPorts(have inventory, p part, s state.Snapshot) []error {
	if p.whole && !l.journal.looking {
		l.unguarded.reset(l.foreignPorts(have, s))
	}
	for _, e := range p.endpoints {
		n, _ := s.Network(e.Network)
		port, ok := have[e.HostLink()]
		if !ok || !e.Carries(port.Attrs().Alias) || !l.wantsLocalnet(n) || l.journal.looking && l.unguarded.why(n.ID) != "" {
			continue
		}
		l.journal.about = state.Scope{Network: n.ID, Endpoint: e.ID}
		if err := l.guard(port); err != nil {
			l.unguarded.add(n.ID, err.Error())
		}
	}
	for _, reason := range l.unguarded.news() {
		if l.Report != nil {
			l.Report(reason)
		}
	}
	var errs []error
	for _, n := range p.networks {
		bridge, ok := have[n.Bridge]
		if !ok || !carries(bridge, n) || n.Adopted || l.LeadsLoopback(n) {
			continue
		}
		l.journal.about = state.Scope{Network: n.ID}
		if err := l.set(n.Bridge, routeLocalnet(n.Bridge), "0"); err != nil {
			errs = append(errs, &state.ObjectError{Network: n.ID, Err: err})
		}
	}
	return errs
}

// foreignPorts says which bridges have a port of somebody else, where no guard of ours belongs.
func (l *Links) foreignPorts(have inventory, s state.Snapshot) map[state.NetworkID]string {
	bridges := map[int]state.Network{}
	for _, n := range s.Networks {
		if link, ok := have[n.Bridge]; ok && l.wantsLocalnet(n) {
			bridges[link.Attrs().Index] = n
		}
	}
	out := map[state.NetworkID]string{}
	for name, link := range have {
		if n, ok := bridges[link.Attrs().MasterIndex]; ok && !ours(link) {
			out[n.ID] = fmt.Sprintf("%s, a port of bridge %s, is not drawbridge's to guard", name, n.Bridge)
		}
	}
	return out
}

// openLoopback lets packets of the host's loopback addresses to and from the bridge, whose ports are guarded.
func (l *Links) openLoopback(n state.Network) error {
	if !l.LeadsLoopback(n) {
		return nil
	}
	return l.set(n.Bridge, routeLocalnet(n.Bridge), "1")
}

// CloseLoopback keeps packets of the host's loopback addresses off the bridges again, which somebody is about to leave
// without rules.
func (l *Links) CloseLoopback() error {
	have, err := l.inventory()
	if err != nil {
		return err
	}
	var errs []error
	for name, link := range have {
		if link.Type() == "bridge" && ours(link) {
			errs = append(errs, l.set(name, routeLocalnet(name), "0"))
		}
	}
	return errors.Join(errs...)
}

func routeLocalnet(bridge string) string { return "net/ipv4/conf/" + bridge + "/route_localnet" }

// unguarded says of networks why a port of their bridges has no guard.
type unguarded struct {
	mu      sync.Mutex
	reasons map[state.NetworkID]string // guarded by mu
	told    map[string]bool            // reasons that were told before; guarded by mu
}

func (u *unguarded) why(id state.NetworkID) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reasons[id]
}

func (u *unguarded) reset(reasons map[state.NetworkID]string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reasons = reasons
}

func (u *unguarded) add(id state.NetworkID, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reasons == nil {
		u.reasons = map[state.NetworkID]string{}
	}
	u.reasons[id] = reason
}

// news returns the reasons that it has not returned before.
func (u *unguarded) news() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.told == nil {
		u.told = map[string]bool{}
	}
	var out []string
	for _, reason := range u.reasons {
		if !u.told[reason] {
			u.told[reason] = true
			out = append(out, reason)
		}
	}
	slices.Sort(out)
	return out
}

// Unguarded returns, of the networks whose loopback connections are left to the proxy because a port has no guard, why.
func (l *Links) Unguarded() map[state.NetworkID]string {
	l.unguarded.mu.Lock()
	defer l.unguarded.mu.Unlock()
	return maps.Clone(l.unguarded.reasons)
}
