package link

import (
	"bytes"
	"net"

	"github.com/drawbridge-net/drawbridge/state"
)

// markBack gives links their alias back that somebody changed. They are known by their name, kind and MAC address, the latter made
// from the id of what they belong to: a link of somebody else has another one, and is left alone. A link without an alias is
// unfinished, unless it is up: that comes after the alias.
func (l *Links) markBack(have inventory, p part) []error {
	var errs []error
	back := func(about state.Scope, name, kind, alias string, mac state.MAC) {
		link, ok := have[name]
		if !ok || link.Type() != kind || doomed(link) || !bytes.Equal(link.Attrs().HardwareAddr, mac[:]) {
			return
		}
		if link.Attrs().Alias == "" && link.Attrs().Flags&net.FlagUp == 0 {
			return
		}
		l.journal.about = about
		if err := l.setAlias(link, alias); err != nil {
			errs = append(errs, &state.ObjectError{Network: about.Network, Endpoint: about.Endpoint, Err: err})
		}
	}
	for _, n := range p.networks {
		if !n.Adopted {
			back(state.Scope{Network: n.ID}, n.Bridge, "bridge", n.Alias(), bridgeMAC(n))
		}
	}
	for _, e := range p.endpoints {
		if link, ok := have[e.HostLink()]; ok && !e.Carries(link.Attrs().Alias) {
			back(state.Scope{Network: e.Network, Endpoint: e.ID}, e.HostLink(), "veth", e.Alias(), hostMAC(e))
		}
	}
	return errs
}
