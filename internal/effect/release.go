//go:build !faults

package effect

// Do carries out an effect of the kind name, and returns its error.
func Do(_ string, act func() error) error { return act() }
