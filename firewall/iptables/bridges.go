package iptables

import (
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Bridges lists the names of the host's bridges that are not ours.
type Bridges func() ([]string, error)

// dockerBridges returns the bridges of Docker's own driver, by three signs: Docker's chains name them, their
// names are of the kind that only Docker gives, or they were known by their chains
// before and are still there. The first is not enough: dockerd makes a bridge before its
// rules, and a flush takes the rules away and leaves the bridge.
func (b *Backend) dockerBridges(named []string) []string {
	present, err := b.bridges()
	if err != nil {
		present = append(slices.Clone(named), b.known...) // better too many than too few
	}
	var out []string
	for _, name := range present {
		if slices.Contains(named, name) || slices.Contains(b.known, name) || state.DockerBridgeName(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	b.known = slices.Compact(out)
	return slices.Clone(b.known)
}
