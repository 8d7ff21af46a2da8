package state

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// NetworkID is Docker's id of a network: 64 hexadecimal digits from a single
// engine, 25 characters of base 36 from a swarm manager.
type NetworkID string

// EndpointID is Docker's id of an endpoint, of the same form as a NetworkID.
type EndpointID string

// PoolID names an address pool. It is made by the IPAM driver and is a function
// of the pool's prefixes, so that it stays the same when a pool is asked for again.
type PoolID string

const (
	minID   = 12 // link names are made of the first characters
	maxID   = 64
	shortID = 12
)

// ParseNetworkID checks that s can be an id of Docker's, so that names of links
// and log lines made from it are harmless.
func ParseNetworkID(s string) (NetworkID, error) {
	if err := checkID(s); err != nil {
		return "", fmt.Errorf("network id %w", err)
	}
	return NetworkID(s), nil
}

// ParseEndpointID is ParseNetworkID for endpoints.
func ParseEndpointID(s string) (EndpointID, error) {
	if err := checkID(s); err != nil {
		return "", fmt.Errorf("endpoint id %w", err)
	}
	return EndpointID(s), nil
}

// Short returns the first twelve characters, the form in which docker shows ids.
func (id NetworkID) Short() string { return short(string(id)) }

// Short returns the first twelve characters.
func (id EndpointID) Short() string { return short(string(id)) }

func short(s string) string {
	if len(s) > shortID {
		return s[:shortID]
	}
	return s
}

func checkID(s string) error {
	if len(s) < minID || len(s) > maxID {
		return fmt.Errorf("%q must have %d to %d characters", Clip(s), minID, maxID)
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("%q must consist of lower-case letters and digits", Clip(s))
		}
	}
	return nil
}

// Clip shortens a value that came from outside, so that it cannot fill an error message, and shows what is not to be printed,
// such as the end of a line, as �.
func Clip(s string) string {
	const most = 80
	var b strings.Builder
	for _, r := range s { // of bytes that are no text, RuneError
		if !strconv.IsPrint(r) {
			r = utf8.RuneError
		}
		if b.Len()+utf8.RuneLen(r) > most {
			return b.String() + "…"
		}
		b.WriteRune(r)
	}
	return b.String()
}
