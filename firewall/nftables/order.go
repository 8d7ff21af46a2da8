package nftables

import "slices"

// inOrder returns the transactions that make the edits. It is one, unless it changes who may come to a port. To us a transaction is all
// or nothing, to packets it is not: elements of hashes and rules change at one moment, and sets of intervals each at one of its own, some
// milliseconds later. What lets in is in the former and what limits in the latter, so that a port that comes or goes with its limit in one
// transaction would be everybody's for that time. So first the ways in that go, then all else with the limits, and then the ways in that
// come: in between a port is closed.
func inOrder(edits []edit) [][]edit {
	if !slices.ContainsFunc(edits, func(e edit) bool { return roles[setOf(e)] == limits }) {
		return transactions(edits)
	}
	var going, between, coming []edit
	for _, e := range edits {
		_, goes := e.(deleteElements)
		_, comes := e.(addElements)
		switch wayIn := roles[setOf(e)] == letsIn; {
		case wayIn && goes:
			going = append(going, e)
		case wayIn && comes:
			coming = append(coming, e)
		default:
			between = append(between, e)
		}
	}
	return transactions(going, between, coming)
}

// transactions leaves out those in which nothing is.
func transactions(all ...[]edit) [][]edit {
	return slices.DeleteFunc(all, func(edits []edit) bool { return len(edits) == 0 })
}

// role is what a set has to do with who comes to a port.
type role int

const (
	letsIn role = iota + 1 // who is translated comes to a container by one of its elements, or who comes to the container's own address
	limits                 // it says to which ports not everybody comes, or who does
)

// roles are those of sets, by name.
var roles = func() map[string]role {
	out := map[string]role{}
	for _, v6 := range []bool{false, true} {
		n := namesOf(v6)
		for _, name := range []string{n.ports, n.portRanges, n.open, n.unprotected} {
			out[name] = letsIn
		}
		for _, s := range append(mapSets(n.leads, n), mapSets(n.guards, n)...) {
			out[s.Name] = letsIn
		}
		for _, s := range limitSets(n) {
			out[s.Name] = limits
		}
	}
	return out
}()

// setOf returns the name of the set that an edit makes, changes or removes, "" for none.
func setOf(e edit) string {
	switch e := e.(type) {
	case addSet:
		return e.Name
	case addElements:
		return e.Name
	case deleteElements:
		return e.Name
	case deleteSet:
		return e.name
	}
	return ""
}
