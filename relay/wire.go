package relay

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// protocol is raised with each change by which one side would misunderstand the other. The paths without it, and what is sent there,
// never change: by them a relay of any version is replaced or ended.
const protocol = 2

// Paths. The first four are the same in every protocol.
const (
	helloPath   = "/hello"
	upgradePath = "/upgrade"
	endPath     = "/end"
	letGoPath   = "/letgo"

	sessionPath = "/v1/session"
	reservePath = "/v1/reserve"
	releasePath = "/v1/release"
	statePath   = "/v1/state"
	inspectPath = "/v1/inspect"
	watchPath   = "/v1/watch"
	keepPath    = "/v1/keep"
)

// maxBody bounds a request. The state of 10,000 ports is a tenth of it.
const maxBody = 32 << 20

// Hello is what a relay says of itself.
type Hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"` // of the program
	// Instance is another one for each process.
	Instance    string    `json:"instance"`
	PID         int       `json:"pid"`
	Since       time.Time `json:"since"`
	Sockets     int       `json:"sockets"`
	Connections int       `json:"connections"` // of TCP, under way by the proxy
}

// Settings are those of the daemon that matter to sockets; see publish.Options.
type Settings struct {
	ServeAll   bool `json:"serveAll"`
	ServeAllV6 bool `json:"serveAllV6"`
	NoProxy    bool `json:"noProxy"`
	// Proc is where the host's proc file system is mounted; empty means /proc, as with relays and daemons that do not say it.
	Proc string `json:"proc,omitempty"`
}

// equal reports whether sockets are the same by both.
func (s Settings) equal(o Settings) bool {
	s.Proc, o.Proc = cmp.Or(s.Proc, "/proc"), cmp.Or(o.Proc, "/proc")
	return s == o
}

// Inquire says in which families rules for forwarded packets are asked about clients that a socket serves.
type Inquire struct {
	V4 bool `json:"v4"`
	V6 bool `json:"v6"`
}

// of returns what it says of a family. While nobody has said anything they are asked in both.
func (i *Inquire) of(v6 bool) bool {
	switch {
	case i == nil:
		return true
	case v6:
		return i.V6
	}
	return i.V4
}

// A daemon begins a session before it asks for anything else. What the one before reserved, and did not commit, is then given up.
type sessionCall struct {
	Session  string   `json:"session"`
	Settings Settings `json:"settings"`
}

type reserveCall struct {
	Session  string              `json:"session"`
	Endpoint state.Endpoint      `json:"endpoint"`
	Want     []state.PortRequest `json:"want"`
}

type releaseCall struct {
	Session  string           `json:"session"`
	Endpoint state.EndpointID `json:"endpoint"`
	Keep     []state.Port     `json:"keep"`
}

// stateCall has the sockets made equal to a state, all of them or those of what differs from the last one.
type stateCall struct {
	Session string `json:"session"`
	Whole   bool   `json:"whole"`
	// Name is by which the state is known from then on.
	Name string `json:"name"`
	// Undiverted is what publish.Options.Undiverted comes to.
	Undiverted string `json:"undiverted,omitempty"`
	// Inquire is of which families DOCKER-USER has to be asked about clients from outside; nil says that this is not known, and leaves it as
	// it was.
	Inquire *Inquire `json:"inquire,omitempty"`
	update
}

type inspectCall struct {
	Session string `json:"session"`
	update
}

// update is a state, or how it differs from one that the relay has.
type update struct {
	// Base is the name of that state; empty for none.
	Base          string             `json:"base,omitempty"`
	Revision      uint64             `json:"revision"`
	Networks      []state.Network    `json:"networks,omitempty"`
	Endpoints     []state.Endpoint   `json:"endpoints,omitempty"`
	GoneNetworks  []state.NetworkID  `json:"goneNetworks,omitempty"`
	GoneEndpoints []state.EndpointID `json:"goneEndpoints,omitempty"`
}

// all is the update that needs no other state.
func all(s state.Snapshot) update {
	return update{Revision: s.Revision, Networks: s.Networks, Endpoints: s.Endpoints}
}

// since is the update from a state with the name.
func since(name string, from, to state.Snapshot) update {
	c := state.Compare(from, to)
	u := update{Base: name, Revision: to.Revision}
	for id := range c.Networks {
		if n, ok := to.Network(id); ok {
			u.Networks = append(u.Networks, n)
		} else {
			u.GoneNetworks = append(u.GoneNetworks, id)
		}
	}
	for id := range c.Endpoints {
		if e, ok := to.Endpoint(id); ok {
			u.Endpoints = append(u.Endpoints, e)
		} else {
			u.GoneEndpoints = append(u.GoneEndpoints, id)
		}
	}
	return u
}

// on returns the state that the update makes of s.
func (u update) on(s state.Snapshot) (state.Snapshot, error) {
	networks, endpoints := map[state.NetworkID]bool{}, map[state.EndpointID]bool{}
	for _, id := range u.GoneNetworks {
		networks[id] = true
	}
	for _, id := range u.GoneEndpoints {
		endpoints[id] = true
	}
	for _, n := range u.Networks {
		if _, err := state.ParseNetworkID(string(n.ID)); err != nil {
			return s, err
		}
		if networks[n.ID] {
			return s, fmt.Errorf("network %s is named twice", n.ID.Short())
		}
		networks[n.ID] = true
	}
	for _, e := range u.Endpoints {
		if _, err := state.ParseEndpointID(string(e.ID)); err != nil {
			return s, err
		}
		if endpoints[e.ID] {
			return s, fmt.Errorf("endpoint %s is named twice", e.ID.Short())
		}
		endpoints[e.ID] = true
	}
	out := state.Snapshot{
		Revision:  u.Revision,
		Networks:  slices.DeleteFunc(slices.Clone(s.Networks), func(n state.Network) bool { return networks[n.ID] }),
		Endpoints: slices.DeleteFunc(slices.Clone(s.Endpoints), func(e state.Endpoint) bool { return endpoints[e.ID] }),
	}
	out.Networks = append(out.Networks, u.Networks...)
	out.Endpoints = append(out.Endpoints, u.Endpoints...)
	out.Sort()
	return out, nil
}

// failure is an error on its way: its words, what errors.Is finds in it, and, of a state, the object that it concerns.
type failure struct {
	Text     string           `json:"text"`
	Errno    int              `json:"errno,omitempty"`
	Network  state.NetworkID  `json:"network,omitempty"`
	Endpoint state.EndpointID `json:"endpoint,omitempty"`
}

// failures takes an error apart into those of single objects and others.
func failures(err error) []failure {
	if err == nil {
		return nil
	}
	if parts, ok := err.(interface{ Unwrap() []error }); ok {
		var out []failure
		for _, part := range parts.Unwrap() {
			out = append(out, failures(part)...)
		}
		return out
	}
	f := failure{Text: err.Error()}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		f.Errno = int(errno)
	}
	if of, ok := errors.AsType[*state.ObjectError](err); ok {
		f.Network, f.Endpoint = of.Network, of.Endpoint
	}
	return []failure{f}
}

// err is the error that was sent.
func (f failure) err() error {
	var err error = distant{f.Text, syscall.Errno(f.Errno)}
	if f.Network != "" {
		return &state.ObjectError{Network: f.Network, Endpoint: f.Endpoint, Err: err}
	}
	return err
}

func join(fs []failure) error {
	errs := make([]error, 0, len(fs))
	for _, f := range fs {
		errs = append(errs, f.err())
	}
	return errors.Join(errs...)
}

// distant is an error of the other process.
type distant struct {
	text  string
	errno syscall.Errno
}

func (d distant) Error() string { return d.text }

func (d distant) Unwrap() error {
	if d.errno == 0 {
		return nil
	}
	return d.errno
}

// reply is what comes back: of each kind of call what belongs to it.
type reply struct {
	Ports []state.Port `json:"ports,omitempty"`
	// Unasked is what keeps the relay from asking DOCKER-USER, in words; empty for nothing.
	Unasked     string             `json:"unasked,omitempty"`
	Differences []state.Difference `json:"differences,omitempty"`
	// Failures are what befell the call, or single objects of a state.
	Failures []failure `json:"failures,omitempty"`
}

// decode reads a message strictly: one value, and nothing behind it.
func decode(b []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(b)))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the message is malformed: %w", err)
	}
	if d.More() {
		return errors.New("the message is malformed: there is something behind it")
	}
	return nil
}
