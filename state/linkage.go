package state

import (
	"cmp"
	"fmt"
	"slices"
)

// ContainerPort is a port inside a container.
type ContainerPort struct {
	Proto Proto  `json:"proto"`
	Port  uint16 `json:"port"`
}

// SortContainerPorts sorts and removes doubles.
func SortContainerPorts(ports []ContainerPort) []ContainerPort {
	slices.SortFunc(ports, func(a, b ContainerPort) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(ports)
}

// Linkage is a pair of containers of one network of which the first may reach the exposed ports of
// the second although the network keeps containers apart.
type Linkage struct{ From, To Endpoint }

// Linkages returns the pairs of a network's endpoints that are linked. A name that no endpoint
// has yet links to nothing, so that the order of their start does not matter; one that
// several have links to all of them.
func (n Network) Linkages(endpoints []Endpoint) []Linkage {
	if !n.NoICC {
		return nil
	}
	named := map[string][]Endpoint{}
	for _, e := range endpoints {
		if e.Network == n.ID && e.Name != "" {
			named[e.Name] = append(named[e.Name], e)
		}
	}
	var out []Linkage
	for _, from := range endpoints {
		if from.Network != n.ID {
			continue
		}
		for _, name := range from.Links {
			for _, to := range named[name] {
				if to.ID != from.ID {
					out = append(out, Linkage{from, to})
				}
			}
		}
	}
	return out
}

// maxName is the length of a DNS label, the longest name that compose or a user would give.
const maxName = 63

// CheckName says whether name can be what a container is called in links: the characters of
// Docker's own container names.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name %q must have 1 to %d characters", Clip(name), maxName)
	}
	for i := range len(name) {
		c := name[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && (c == '_' || c == '-' || c == '.')
		if !ok {
			return fmt.Errorf("name %q may contain letters, digits, '_', '-' and '.', and must begin with a letter or a digit", Clip(name))
		}
	}
	return nil
}
