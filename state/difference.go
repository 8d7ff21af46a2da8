package state

// Difference is one way in which the host is not as the state wants it, in words: "bridge br-web is down".
type Difference struct {
	// Scope is the network or endpoint that it is about; the zero value is for what belongs to the host as a whole.
	Scope Scope
	Text  string
	// Paced says that the plane itself sees to it that this is not mended too often.
	Paced bool
	// Opens says that it leaves something open which is to be closed: no repair of it waits for long.
	Opens bool
}

// TouchedBy reports whether the object that the difference is about differs between two states itself, so that nobody else
// need have changed the host.
func (d Difference) TouchedBy(c Change) bool {
	switch {
	case d.Scope.Endpoint != "":
		return c.Endpoints[d.Scope.Endpoint] || c.Networks[d.Scope.Network]
	case d.Scope.Network != "":
		return c.touches(d.Scope.Network)
	}
	return c.Forwarding
}

// touches reports whether the network or an endpoint on it differs.
func (c Change) touches(id NetworkID) bool {
	if c.Networks[id] || c.homes[id] {
		return true
	}
	for e := range c.Endpoints {
		for _, s := range []Snapshot{c.From, c.To} {
			if found, ok := s.Endpoint(e); ok && found.Network == id {
				return true
			}
		}
	}
	return false
}
