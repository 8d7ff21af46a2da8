package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// What containers answer to a transparent socket of the host bears the address of somebody else, and is marked (state.MarkDivert). A
// rule for each bridge leads what is marked and comes by it to a table whose one route says that every address is the host's:
//
//	1427: from all fwmark 0x4000000/0x4000000 iif br-… lookup 1427 proto 142
//	local default dev lo table 1427 proto 142
//
// Each rule names its bridge. One for all would hold for the reverse path filters of other links as well, where they heed marks
// (src_valid_mark), and the host would take its neighbours for itself.

// diverted is what of this a pass left.
type diverted struct {
	mu      sync.Mutex
	bridges map[bool]map[string]bool // by whether it is IPv6, the bridges that have a rule; guarded by mu
	lacks   string                   // of the kernel; guarded by mu
}

// Undiverted names what the kernel lacks to lead containers' answers to transparent sockets, "" for nothing as far as is known.
func (l *Links) Undiverted() string {
	l.diverted.mu.Lock()
	defer l.diverted.mu.Unlock()
	return l.diverted.lacks
}

// divert makes the rules and routes those that s needs. A part of a pass looks at the host only where that is not what it was.
func (l *Links) divert(p part, s state.Snapshot) error {
	l.journal.about = state.Scope{}
	wanted := map[bool]map[string]bool{false: {}, true: {}}
	if l.Mode != nil {
		for _, n := range s.ByHost(l.Mode) {
			for v6 := range wanted {
				if !n.Family(v6).IsZero() {
					wanted[v6][n.Bridge] = true
				}
			}
		}
	}
	if !p.whole && l.diverted.same(wanted) {
		return nil
	}
	was := l.diverted.left()
	if !l.journal.looking {
		l.diverted.leave(nil) // what goes from now on goes by us
	}
	var lacks string
	for _, v6 := range []bool{false, true} {
		err := l.divertFamily(v6, was[v6], wanted[v6])
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			if len(wanted[v6]) > 0 {
				lacks = "routing rules in its kernel (IP_MULTIPLE_TABLES, IPV6_MULTIPLE_TABLES)"
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	l.diverted.mu.Lock()
	l.diverted.lacks = lacks
	l.diverted.mu.Unlock()
	if !l.journal.looking {
		l.diverted.leave(wanted)
	}
	return nil
}

func (d *diverted) same(wanted map[bool]map[string]bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bridges != nil && maps.Equal(d.bridges[false], wanted[false]) && maps.Equal(d.bridges[true], wanted[true])
}

func (d *diverted) left() map[bool]map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bridges
}

func (d *diverted) leave(bridges map[bool]map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bridges = bridges
}

// holds reports whether a pass left a rule for the bridge, or for any where that is "".
func (d *diverted) holds(v6 bool, bridge string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bridges[v6][bridge] || bridge == "" && len(d.bridges[v6]) > 0
}

func familyIn(v6 bool) (number int, name string) {
	if v6 {
		return unix.AF_INET6, "IPv6"
	}
	return unix.AF_INET, "IPv4"
}

// divertFamily makes the route before the first rule, and takes it away after the last. was are the bridges that had a rule: what is
// no more than a change of these is not worth a word.
func (l *Links) divertFamily(v6 bool, was, bridges map[string]bool) error {
	if len(bridges) > 0 {
		if err := l.divertRoute(v6, len(was) > 0, true); err != nil {
			return err
		}
	}
	family, name := familyIn(v6)
	rules, err := dumped(func() ([]netlink.Rule, error) { return l.handle.RuleList(family) })
	if err != nil {
		return fmt.Errorf("listing the host's %s routing rules: %w", name, err)
	}
	missing := maps.Clone(bridges)
	for _, r := range rules {
		if r.Protocol != state.ProtoDivert || r.Table != state.TableDivert {
			continue
		}
		if missing[r.IifName] && sameRule(r, divertRule(family, r.IifName)) {
			delete(missing, r.IifName)
			continue
		}
		if l.journal.looking || !was[r.IifName] || bridges[r.IifName] {
			l.journal.note("", "the %s routing rule for %s is left over, or not as it was made", name, r.IifName)
		}
		if err := l.handle.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing a routing rule for %s: %w", r.IifName, err)
		}
	}
	for _, bridge := range slices.Sorted(maps.Keys(missing)) {
		if l.journal.looking || was[bridge] {
			l.journal.note(bridge, "the %s routing rule that leads from %s to the host's sockets is missing", name, bridge)
		}
		if err := l.handle.RuleAdd(divertRule(family, bridge)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding a routing rule for %s: %w", bridge, err)
		}
	}
	if len(bridges) == 0 {
		return l.divertRoute(v6, len(was) > 0, false)
	}
	return nil
}

func divertRule(family int, bridge string) *netlink.Rule {
	r, mask := netlink.NewRule(), state.MarkDivert
	r.Family, r.Priority, r.Table, r.Protocol = family, state.TableDivert, state.TableDivert, state.ProtoDivert
	r.Mark, r.Mask, r.IifName = state.MarkDivert, &mask, bridge
	return r
}

// sameRule compares what divertRule sets, and that nothing else narrows the rule.
func sameRule(a netlink.Rule, b *netlink.Rule) bool {
	return a.Priority == b.Priority && a.Mark == b.Mark && a.Mask != nil && *a.Mask == *b.Mask && a.IifName == b.IifName &&
		!a.Invert && a.Src == nil && a.Dst == nil && a.OifName == "" && a.Tos == 0 && a.IPProto == 0 && a.Goto < 0 &&
		a.Sport == nil && a.Dport == nil && a.UIDRange == nil
}

// divertRoute has our table say that every address is the host's, or nothing. was says that it did before.
func (l *Links) divertRoute(v6, was, wanted bool) error {
	family, name := familyIn(v6)
	everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if v6 {
		everywhere = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	want := netlink.Route{
		Family: family, LinkIndex: loopbackIndex, Dst: everywhere, Table: state.TableDivert, Protocol: state.ProtoDivert,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	var surplus []route
	there := false
	err := l.scanner.routes(context.Background(), family, state.TableDivert, func(r route) {
		switch {
		case r.protocol != state.ProtoDivert:
		case wanted && !there && r.to.Bits() == 0 && r.kind == unix.RTN_LOCAL && r.link == loopbackIndex:
			there = true
		default:
			surplus = append(surplus, r)
		}
	})
	if err != nil {
		return fmt.Errorf("listing the host's %s routes: %w", name, err)
	}
	for _, r := range surplus {
		if l.journal.looking || wanted || !was {
			l.journal.note("", "table %d has an %s route of ours that is left over: %s", state.TableDivert, name, r.to)
		}
		gone := netlink.Route{
			Family: family, LinkIndex: r.link, Dst: ipNet(r.to), Table: state.TableDivert, Protocol: state.ProtoDivert,
			Type: int(r.kind), Scope: netlink.SCOPE_NOWHERE, Priority: int(r.priority),
		}
		if err := l.handle.RouteDel(&gone); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing an %s route from table %d: %w", name, state.TableDivert, err)
		}
	}
	if !wanted || there {
		return nil
	}
	if l.journal.looking || was {
		l.journal.note("", "table %d lacks the %s route to the host's sockets", state.TableDivert, name)
	}
	if err := l.handle.RouteAdd(&want); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding the %s route to table %d: %w", name, state.TableDivert, err)
	}
	return nil
}

// loopbackIndex is that of lo in every network namespace (LOOPBACK_IFINDEX in the kernel's net/core/dev.c).
const loopbackIndex = 1

// noteDiverted judges that a rule or route of ours was removed: by somebody else, if a pass left it and it is not there.
func (w *watcher) noteDiverted(kind uint16, data []byte) {
	if len(data) < unix.SizeofRtMsg { // a rule's header is of the same size
		return
	}
	v6 := data[0] == unix.AF_INET6
	_, name := familyIn(v6)
	if kind == unix.RTM_DELROUTE {
		if w.links.diverted.holds(v6, "") && !w.hasRoute(v6) {
			w.changed(fmt.Sprintf("an %s route was removed from table %d", name, state.TableDivert))
		}
		return
	}
	bridge, ours := diverting(data)
	if ours && bridge != "" && w.links.diverted.holds(v6, bridge) && !w.hasRule(v6, bridge) {
		w.changed(fmt.Sprintf("the %s routing rule for %s was removed", name, bridge))
	}
}

// diverting reads a message about a rule: whether it is ours, and its bridge.
func diverting(message []byte) (bridge string, ours bool) {
	for kind, value := range attributes(message, unix.SizeofRtMsg) {
		switch kind {
		case nl.FRA_PROTOCOL:
			ours = len(value) == 1 && value[0] == state.ProtoDivert
		case nl.FRA_IIFNAME:
			bridge = text(value)
		}
	}
	return bridge, ours
}

func (w *watcher) hasRule(v6 bool, bridge string) (has bool) {
	family, _ := familyIn(v6)
	header := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}}
	err := w.own.scan(context.Background(), unix.RTM_GETRULE, unix.RTM_NEWRULE, header, func(m []byte) {
		name, ours := diverting(m)
		has = has || ours && name == bridge
	})
	return has || err != nil
}

func (w *watcher) hasRoute(v6 bool) (has bool) {
	family, _ := familyIn(v6)
	err := w.own.routes(context.Background(), family, state.TableDivert, func(r route) {
		has = has || r.protocol == state.ProtoDivert && r.kind == unix.RTN_LOCAL
	})
	return has || err != nil
}

// leaveOutRoutes keeps the events of routes that are not ours from a socket: on a router there may be thousands a second.
func leaveOutRoutes(socket int) error {
	kind := uint32(4) // the low byte of the message's type
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		kind++
	}
	const protocol = unix.SizeofNlMsghdr + 5 // of struct rtmsg
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: kind, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTM_NEWROUTE, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.RTM_DELROUTE, SkipTrue: 3},
		bpf.LoadAbsolute{Off: protocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: state.ProtoDivert, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1<<32 - 1},
	})
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	return nil
}
