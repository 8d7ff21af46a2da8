package state

import (
	"maps"
	"slices"
)

// Change is from one state to another, with the ids of the objects that they do not share: there is one in just one of them, or
// with another value.
type Change struct {
	From, To  Snapshot
	Networks  map[NetworkID]bool
	Endpoints map[EndpointID]bool
	// Forwarding says that this differs.
	Forwarding bool
	// homes are the networks of endpoints that may be in neither state, see Join.
	homes map[NetworkID]bool
}

// Compare returns what differs between two states, in time that grows with the two together.
func Compare(from, to Snapshot) Change {
	c := Change{
		From: from, To: to,
		Networks:   map[NetworkID]bool{},
		Endpoints:  map[EndpointID]bool{},
		Forwarding: from.Forwarding != to.Forwarding,
	}
	compareSorted(from.Networks, to.Networks, func(n Network) NetworkID { return n.ID }, sameForHost, c.Networks)
	compareSorted(from.Endpoints, to.Endpoints, func(e Endpoint) EndpointID { return e.ID }, Endpoint.Equal, c.Endpoints)
	return c
}

// sameForHost leaves out what means nothing to the host.
func sameForHost(a, b Network) bool {
	a.Seen, a.Made = b.Seen, b.Made
	return a == b
}

// Join adds the objects that differ in another change.
func (c *Change) Join(o Change) {
	if c.Networks == nil {
		c.Networks, c.Endpoints = map[NetworkID]bool{}, map[EndpointID]bool{}
	}
	if c.homes == nil {
		c.homes = map[NetworkID]bool{}
	}
	maps.Copy(c.homes, o.homes)
	maps.Copy(c.Networks, o.Networks)
	maps.Copy(c.Endpoints, o.Endpoints)
	for id := range o.Endpoints {
		for _, s := range []Snapshot{o.From, o.To} {
			if e, ok := s.Endpoint(id); ok {
				c.homes[e.Network] = true
			}
		}
	}
	c.Forwarding = c.Forwarding || o.Forwarding
}

// Equal reports whether both endpoints are the same in everything.
func (e Endpoint) Equal(o Endpoint) bool {
	return e.ID == o.ID && e.Network == o.Network && e.Addr4 == o.Addr4 && e.Addr6 == o.Addr6 && e.MAC == o.MAC &&
		e.LinkPrefix == o.LinkPrefix && e.Name == o.Name && e.Sandbox == o.Sandbox && e.WantsPorts == o.WantsPorts &&
		e.Exposure == o.Exposure &&
		slices.Equal(e.Links, o.Links) && slices.Equal(e.Exposed, o.Exposed) && equalPorts(e.Ports, o.Ports) && slices.Equal(e.Closed, o.Closed)
}

// equalPorts looks first whether both are the same slice, as those of an endpoint are that nobody changed.
func equalPorts(a, b []Port) bool {
	if len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] {
		return true
	}
	return slices.Equal(a, b)
}

// compareSorted walks both lists, which are sorted by key, at once.
func compareSorted[K ~string, V any](from, to []V, key func(V) K, same func(a, b V) bool, differ map[K]bool) {
	for len(from) > 0 && len(to) > 0 {
		a, b := key(from[0]), key(to[0])
		switch {
		case a < b:
			differ[a] = true
			from = from[1:]
		case b < a:
			differ[b] = true
			to = to[1:]
		default:
			if !same(from[0], to[0]) {
				differ[a] = true
			}
			from, to = from[1:], to[1:]
		}
	}
	for _, v := range from {
		differ[key(v)] = true
	}
	for _, v := range to {
		differ[key(v)] = true
	}
}
