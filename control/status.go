package control

import (
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// Status is how the daemon is doing.
type Status struct {
	Version string    `json:"version"` // of the program
	Since   time.Time `json:"since"`   // when the daemon started
	Backend string    `json:"backend"` // iptables or nftables; empty while undecided

	// Revision is that of the desired state, Applied the last one that the kernel was
	// made equal to. Changes that the kernel has nothing to do with, such as an address
	// that was given back, leave Applied behind until the next pass.
	Revision uint64 `json:"revision"`
	Applied  uint64 `json:"applied"`

	Networks  int `json:"networks"`
	Endpoints int `json:"endpoints"`
	Ports     int `json:"ports"` // rows of /v1/ports: a port in both families counts twice
	Pools     int `json:"pools"`

	// Relay is the process that holds published ports; it is left out while none is needed.
	Relay *Relay `json:"relay,omitempty"`

	// Notes say what is different here from what is usual, and is no error; empty, not null, if there is nothing to say.
	Notes []string `json:"notes"`

	// Errors of the last pass, one sentence each; empty, not null, if there are none.
	Errors []string `json:"errors"`
}

// Relay is the process that holds published ports and serves them where they are not translated.
type Relay struct {
	PID         int       `json:"pid"`
	Version     string    `json:"version"` // of its program
	Since       time.Time `json:"since"`
	Sockets     int       `json:"sockets"`
	Connections int       `json:"connections"` // of TCP, under way by the proxy
}

// Healthy reports whether the last pass left the kernel as it should be.
func (s Status) Healthy() bool { return len(s.Errors) == 0 }

// Count returns a Status with what the snapshot tells: the revision and the numbers
// of objects.
func Count(s state.Snapshot) Status {
	return Status{
		Revision:  s.Revision,
		Networks:  len(s.Networks),
		Endpoints: len(s.Endpoints),
		Ports:     len(Ports(s, Publishing{})),
		Pools:     len(s.Pools),
		Notes:     []string{},
		Errors:    []string{},
	}
}
