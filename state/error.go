package state

import (
	"errors"
	"slices"
)

// ObjectError is a failure that concerns one network or one endpoint only. A plane
// reports it and goes on with the other objects; whoever waits for another object does
// not see it.
type ObjectError struct {
	Network  NetworkID
	Endpoint EndpointID // empty when the whole network is concerned
	Err      error
}

// Error returns the underlying sentence: ids mean nothing to a user.
func (e *ObjectError) Error() string { return e.Err.Error() }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *ObjectError) Unwrap() error { return e.Err }

// Scope selects the failures that matter to one caller. Its zero value selects all.
type Scope struct {
	Network  NetworkID
	Endpoint EndpointID
}

// Select returns the parts of err that concern the scope: failures of the whole
// plane, of the scope's network, and of the scope's endpoint. err may be a tree
// made by errors.Join and by wrapping.
func (s Scope) Select(err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *ObjectError:
		if !s.concerns(e) {
			return nil
		}
	case interface{ Unwrap() []error }:
		parts := slices.DeleteFunc(slices.Clone(e.Unwrap()), func(e error) bool { return e == nil })
		if len(parts) == 0 {
			return err // it says that it has parts and names none: a failure of its own
		}
		for i, part := range parts {
			parts[i] = s.Select(part)
		}
		return errors.Join(parts...)
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil && s.Select(inner) == nil {
			return nil
		}
	}
	return err
}

func (s Scope) concerns(e *ObjectError) bool {
	if s == (Scope{}) {
		return true
	}
	if e.Network != s.Network {
		return false
	}
	return e.Endpoint == "" || e.Endpoint == s.Endpoint
}
