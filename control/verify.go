package control

import (
	"fmt"
	"io"

	"github.com/drawbridge-net/drawbridge/state"
)

// Difference is one way in which the host is not as the desired state wants it.
type Difference struct {
	Part string `json:"part"` // links, firewall, firewalld, links up or published ports
	// Network and Endpoint say which object it is about; empty for the host as a whole.
	Network  state.NetworkID  `json:"network,omitempty"`
	Endpoint state.EndpointID `json:"endpoint,omitempty"`
	Text     string           `json:"text"` // a sentence without its end
}

// WriteVerify shows differences, a line each.
func WriteVerify(w io.Writer, found []Difference) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(w, "the host is as the state wants it")
		return err
	}
	return table(w, func(line func(...any)) {
		line("PART", "NETWORK", "ENDPOINT", "DIFFERENCE")
		for _, d := range found {
			line(d.Part, orNone(d.Network.Short()), orNone(d.Endpoint.Short()), oneLine(d.Text))
		}
	})
}
