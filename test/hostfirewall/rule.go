package hostfirewall

import (
	"net/netip"
	"strconv"
)

// Rule is about new connections, or datagrams, to a port of the host.
type Rule struct {
	Proto string // tcp or udp
	Port  uint16
	From  netip.Prefix // the clients; all, of both families, if it is not valid
	Link  string       // the link by which they come; any if it is empty
}

// Covers reports whether a rule is about a client that comes by a link.
func (r Rule) Covers(proto string, port uint16, client netip.Addr, link string) bool {
	return r.Proto == proto && r.Port == port && (!r.From.IsValid() || r.From.Contains(client)) && (r.Link == "" || r.Link == link)
}

// Rules are what was allowed and denied since Start.
type Rules struct{ Allowed, Denied []Rule }

// Admits says what they come to: who is denied stays out, and who is not allowed too.
func (r Rules) Admits(proto string, port uint16, client netip.Addr, link string) bool {
	for _, d := range r.Denied {
		if d.Covers(proto, port, client, link) {
			return false
		}
	}
	for _, a := range r.Allowed {
		if a.Covers(proto, port, client, link) {
			return true
		}
	}
	return false
}

// families are those that a rule is about: false for IPv4, true for IPv6.
func (r Rule) families() []bool {
	if !r.From.IsValid() {
		return []bool{false, true}
	}
	return []bool{r.From.Addr().Is6()}
}

func (r Rule) port() string { return strconv.Itoa(int(r.Port)) }
