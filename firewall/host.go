package firewall

import (
	"os"
	"slices"

	"github.com/drawbridge-net/drawbridge/state"
)

// Bridges lists the names of the host's bridges that are not ours.
type Bridges func() ([]string, error)

// Others is what the rules of others tell of the host.
type Others struct {
	// Bridges are those that Docker's own rules name.
	Bridges []string
	// BarsLoopback says that the host refuses what is for its loopback addresses and did not come by lo. The answers to translated
	// connections are such packets, when they are with the host again.
	BarsLoopback bool
	// UserRules says in which families DOCKER-USER has rules that decide about something.
	UserRules Both
}

// HostReader finds what Render must know of the host, for a backend. It remembers bridges.
type HostReader struct {
	Bridges Bridges
	// BridgeSysctls is a directory that exists where br_netfilter does.
	BridgeSysctls string
	// known are the bridges of Docker that the last Read found.
	known []string
}

// NewHostReader returns a reader of the host that the process runs on.
func NewHostReader(bridges Bridges) HostReader {
	return HostReader{Bridges: bridges, BridgeSysctls: "/proc/sys/net/bridge"}
}

// Read returns the host as it is.
func (h *HostReader) Read(o Others) Host {
	_, err := os.Stat(h.BridgeSysctls)
	return Host{DockerBridges: h.dockerBridges(o.Bridges), BridgeNetfilter: err == nil, BarsLoopback: o.BarsLoopback, UserRules: o.UserRules}
}

// dockerBridges returns the bridges of Docker's own driver, by three signs: Docker's chains name them, their
// names are of the kind that only Docker gives, or they were known by their chains
// before and are still there. The first is not enough: dockerd makes a bridge before its
// rules, and a flush takes the rules and leaves the bridge.
func (h *HostReader) dockerBridges(named []string) []string {
	present, err := h.Bridges()
	if err != nil {
		present = append(slices.Clone(named), h.known...) // better too many than too few
	}
	var out []string
	for _, name := range present {
		if state.CheckLinkName(name) != nil {
			continue // nobody calls a bridge so, and in a rule it could mean others
		}
		if slices.Contains(named, name) || slices.Contains(h.known, name) || state.DockerBridgeName(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	h.known = slices.Compact(out)
	return slices.Clone(h.known)
}
