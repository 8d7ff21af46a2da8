package firewalld

import (
	"context"
	"errors"
	"fmt"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// bind puts the bridge of each network into the zone.
func bind(ctx context.Context, b *bus, s state.Snapshot, f *found) error {
	var failed []error
	for _, n := range s.Networks {
		err := bindOne(ctx, b, n, f)
		if endsPass(err) {
			// Not of this network alone: those behind it would look done.
			return errors.Join(append(failed, err)...)
		}
		if err != nil {
			failed = append(failed, &state.ObjectError{Network: n.ID, Err: err})
		}
	}
	return errors.Join(failed...)
}

func bindOne(ctx context.Context, b *bus, n state.Network, f *found) error {
	bridge := n.Bridge
	zone, err := b.zoneOf(ctx, bridge)
	if err != nil {
		return fmt.Errorf("asking for the firewalld zone of bridge %s: %w", bridge, err)
	}
	if zone != "" {
		return checkZone(bridge, zone)
	}
	f.note(state.Scope{Network: n.ID}, "bridge %s is not in zone %s", bridge, zoneName)
	if f.looking {
		return nil
	}
	var bound string
	err = effect.Do("firewalld.bind", func() error { return b.runtime(ctx, "zone.addInterface", []any{zoneName, bridge}, &bound) })
	if classify(err) == alreadyBound {
		// Someone was faster. Which zone it is, is in no reliable place of the message.
		if zone, again := b.zoneOf(ctx, bridge); again == nil && zone != "" {
			return checkZone(bridge, zone)
		}
	}
	if err != nil {
		return fmt.Errorf("putting bridge %s into firewalld's zone %s: %w", bridge, zoneName, err)
	}
	return nil
}

// checkZone says how to free a bridge that the admin, or another program, put into a zone
// other than ours. Taking it out ourselves would overrule a decision.
func checkZone(bridge, zone string) error {
	if zone == zoneName {
		return nil
	}
	return fmt.Errorf("bridge %[1]s is in firewalld's zone %[2]s and must be in zone %[3]s: free it with "+
		"`firewall-cmd --zone=%[2]s --remove-interface=%[1]s; firewall-cmd --permanent --zone=%[2]s --remove-interface=%[1]s` and try again",
		bridge, zone, zoneName)
}

// unbind takes bridges of removed networks out of the zone. A failure is an
// ObjectError of no network, so that it is reported and nobody's container fails for it.
func unbind(ctx context.Context, b *bus, s state.Snapshot, f *found) error {
	used := make(map[string]bool, len(s.Networks))
	for _, n := range s.Networks {
		used[n.Bridge] = true
	}
	var failed []error
	for _, bridge := range s.Retired {
		if used[bridge] {
			continue
		}
		err := unbindOne(ctx, b, bridge, f)
		if endsPass(err) {
			return errors.Join(append(failed, err)...)
		}
		if err != nil {
			failed = append(failed, &state.ObjectError{Err: fmt.Errorf("taking bridge %s out of firewalld's zone %s: %w", bridge, zoneName, err)})
		}
	}
	return errors.Join(failed...)
}

func unbindOne(ctx context.Context, b *bus, bridge string, f *found) error {
	zone, err := b.zoneOf(ctx, bridge)
	if err != nil || zone != zoneName {
		return err
	}
	if f.looking {
		f.note(state.Scope{}, "bridge %s, whose network was removed, is in zone %s", bridge, zoneName)
		return nil
	}
	var left string
	err = effect.Do("firewalld.unbind", func() error { return b.runtime(ctx, "zone.removeInterface", []any{zoneName, bridge}, &left) })
	switch classify(err) {
	case notBound, alreadyBound: // it left in between, or moved to another zone
		return nil
	}
	return err
}
