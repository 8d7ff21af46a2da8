package firewalld

import (
	"context"
	"fmt"
	"slices"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// Names, versions and descriptions are those with which Docker makes the two
// objects (moby, libnetwork/iptables/firewalld.go), so that it does not matter who came
// first.
const (
	zoneName   = "docker"
	policyName = "docker-forwarding"
	accept     = "ACCEPT"
)

// object is a permanent object of firewalld's that we make if it is missing.
type object struct {
	what, name string
	list       string // the runtime method that lists such objects
	add        string // the permanent method that makes one
	settings   any
}

// objects returns the zone and the policy, in the order in which they must be made.
func objects() []object {
	return []object{
		{"zone", zoneName, "zone.getZones", "addZone", newZone()},
		{"policy", policyName, "policy.getPolicies", "addPolicy", newPolicy()},
	}
}

// zoneSettings is the signature (sssbsasa(ss)asba(ssss)asasasasa(ss)b) of config.addZone.
// It is the older of two calls, and the one that every version has.
type zoneSettings struct {
	Version, Short, Description string
	Unused                      bool
	Target                      string
	Services                    []string
	Ports                       []portProtocol
	ICMPBlocks                  []string
	Masquerade                  bool
	ForwardPorts                []forwardPort
	Interfaces, Sources         []string
	RichRules, Protocols        []string
	SourcePorts                 []portProtocol
	ICMPBlockInversion          bool
}

type portProtocol struct{ Port, Protocol string }

type forwardPort struct{ Port, Protocol, ToPort, ToAddr string }

func newZone() zoneSettings {
	return zoneSettings{
		Version:     "1.0",
		Short:       zoneName,
		Description: "zone for docker bridge network interfaces",
		Target:      accept,
	}
}

func newPolicy() map[string]any {
	return map[string]any{
		"version":       "1.0",
		"description":   "allow forwarding to the docker zone",
		"ingress_zones": []string{"ANY"},
		"egress_zones":  []string{zoneName},
		"target":        accept,
	}
}

// ensureObjects makes what is missing, and has firewalld load it.
func (p *Plane) ensureObjects(ctx context.Context, b *bus) error {
	missing, err := missingObjects(ctx, b)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		p.unloadable = false
		return nil
	}
	if p.ensured {
		for _, o := range missing {
			p.found.note(state.Scope{}, "there is no %s %s", o.what, o.name)
		}
	}
	made := false
	for _, o := range missing {
		err := effect.Do("firewalld.object", func() error { return b.config(ctx, o.add, o.name, o.settings) })
		switch {
		case err == nil:
			made = true
		case classify(err) != nameTaken: // taken: it exists, but is not loaded
			return fmt.Errorf("making firewalld's %s %s: %w", o.what, o.name, err)
		}
	}
	if p.unloadable && !made {
		return notLoaded(missing[0])
	}
	return p.reload(ctx, b)
}

// reload puts the permanent configuration into force and looks whether that helped.
func (p *Plane) reload(ctx context.Context, b *bus) error {
	if err := effect.Do("firewalld.reload", func() error { return b.runtime(ctx, "reload", nil) }); err != nil {
		return fmt.Errorf("reloading firewalld after adding the zone %s: %w", zoneName, err)
	}
	missing, err := missingObjects(ctx, b)
	if err != nil {
		return err
	}
	p.unloadable = len(missing) > 0
	if p.unloadable {
		return notLoaded(missing[0])
	}
	return nil
}

func notLoaded(o object) error {
	return fmt.Errorf("firewalld has the %s %s in its permanent configuration but does not load it: look for the reason with `firewall-cmd --check-config`", o.what, o.name)
}

// missingObjects returns what is not in force. A version without policies (before 0.9)
// misses none.
func missingObjects(ctx context.Context, b *bus) ([]object, error) {
	var missing []object
	for _, o := range objects() {
		var have []string
		err := b.runtime(ctx, o.list, nil, &have)
		switch {
		case classify(err) == noMethod:
			continue
		case err != nil:
			return nil, err
		case !slices.Contains(have, o.name):
			missing = append(missing, o)
		}
	}
	return missing, nil
}
