package link

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// RoutedBySource describes a routing rule of somebody's that picks packets by their source, "" if there is none. Such a rule is how hosts with
// more than one uplink answer by the one that they were asked by. The answers of containers are routed before their source is the host's again: it
// does not count for them.
func (l *Links) RoutedBySource() (rule string, err error) {
	for _, v6 := range []bool{false, true} {
		family, name := familyIn(v6)
		rules, err := dumped(func() ([]netlink.Rule, error) { return l.handle.RuleList(family) })
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("listing the host's %s routing rules: %w", name, err)
		}
		for _, r := range rules {
			if text := bySource(r); text != "" {
				return text, nil
			}
		}
	}
	return "", nil
}

// bySource says by which source a rule of others picks packets, as ip rule writes it, "" if by none.
func bySource(r netlink.Rule) string {
	switch {
	case r.Protocol == state.ProtoDivert && r.Table == state.TableDivert:
	case r.Src != nil:
		return fmt.Sprintf("%d: from %s", r.Priority, sourceText(r.Src))
	case r.Sport != nil:
		return fmt.Sprintf("%d: from all sport %d-%d", r.Priority, r.Sport.Start, r.Sport.End)
	}
	return ""
}

// sourceText leaves out the length of a whole address.
func sourceText(n *net.IPNet) string {
	if ones, bits := n.Mask.Size(); ones == bits {
		return n.IP.String()
	}
	return n.String()
}
