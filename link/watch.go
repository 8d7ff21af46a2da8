package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed, with a reason for the log, when somebody else changes what a pass keeps as it should be: a link of ours,
// its addresses, its guard, the rules that lead to transparent sockets, or the host's forwarding; and when a bridge of somebody else comes or goes, which the firewall's isolation
// depends on, or a port of a bridge of ours. It does so until ctx ends. Of our own work it says nothing. RoutingChanged is called of each routing rule.
func (l *Links) Watch(ctx context.Context, changed func(reason string)) error {
	for repeated := false; ; repeated = true {
		// A subscription that cannot be had is tried for again: the loop checks
		// the host from time to time anyway.
		_ = l.watch(ctx, repeated, changed)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// groups are what the kernel is asked to tell of.
var groups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_TC,
	unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// eventRoom is what the kernel keeps for us of events that we have not read: some hundred containers that come at once.
const eventRoom = 4 << 20

// lost is told where the kernel had to drop events.
const lost = "events of links were lost"

// watch is one subscription. What happened between the end of another and its begin is one
// change.
func (l *Links) watch(ctx context.Context, repeated bool, changed func(reason string)) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	_ = socket.SetReceiveBufferSize(eventRoom, true) // with less they are lost earlier
	if err := leaveOutRoutes(socket.GetFd()); err != nil {
		return err
	}
	own, err := newScanner()
	if err != nil {
		return err
	}
	defer own.close()
	w := watcher{
		links: l, own: own, seen: seen{bridges: map[int32]bool{}, masters: map[int32]int{}},
		changed: changed, repeat: func(reason string) { later(ctx, reason+" a moment ago", changed) },
	}
	if repeated {
		changed(lost)
		w.routingChanged()
	}
	return w.follow(ctx, socket)
}

// watcher judges what the kernel tells.
type watcher struct {
	links   *Links
	own     scanner // on whose socket no pass waits
	seen    seen
	changed func(reason string)
	repeat  func(reason string)
}

// follow reads events until the subscription ends. Those of a burst are judged together, so that each link is looked at once.
func (w *watcher) follow(ctx context.Context, socket *nl.NetlinkSocket) error {
	events, ended := make(chan []syscall.NetlinkMessage, 256), make(chan error, 1)
	go func() { ended <- hear(socket, events) }()
	touched := map[int]bool{} // links, and whether their addresses are meant
	for {
		clear(touched)
		select {
		case <-ctx.Done():
			go drain(events)
			return nil
		case <-w.links.settled.wake:
		case messages, ok := <-events:
			if !ok {
				return <-ended
			}
			w.note(messages, touched)
		}
		for len(events) > 0 {
			w.note(<-events, touched)
		}
		for _, index := range w.links.settled.news() {
			touched[index] = true
		}
		for index, addresses := range touched {
			if reason := w.look(index, addresses); reason != "" {
				w.changed(reason)
			}
		}
	}
}

// hear hands on what the socket receives until it is closed, and no messages where some were lost.
func hear(socket *nl.NetlinkSocket, events chan<- []syscall.NetlinkMessage) error {
	defer close(events)
	for {
		messages, _, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("watching links: %w", err)
		}
		events <- messages
	}
}

// drain lets the goroutine of hear end, which may be about to send.
func drain(events <-chan []syscall.NetlinkMessage) {
	for range events {
	}
}

// note judges messages, or puts the link of which they are among those to be looked at.
func (w *watcher) note(messages []syscall.NetlinkMessage, touched map[int]bool) {
	if messages == nil {
		w.changed(lost)
		w.routingChanged()
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			w.noteLink(m, touched)
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			if len(m.Data) >= unix.SizeofIfAddrmsg {
				touched[int(nl.DeserializeIfAddrmsg(m.Data).Index)] = true
			}
		case unix.RTM_NEWNETCONF:
			w.noteForwarding(m.Data)
		case unix.RTM_DELQDISC, unix.RTM_DELTFILTER: // what goes with its link is not told
			w.noteFilter(m.Data)
		case unix.RTM_DELROUTE:
			w.noteDiverted(m.Header.Type, m.Data)
		case unix.RTM_DELRULE:
			w.noteDiverted(m.Header.Type, m.Data)
			w.routingChanged()
		case unix.RTM_NEWRULE:
			w.routingChanged()
		}
	}
}

func (w *watcher) routingChanged() {
	if w.links.RoutingChanged != nil {
		w.links.RoutingChanged()
	}
}

func (w *watcher) noteLink(m syscall.NetlinkMessage, touched map[int]bool) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return
	}
	head := nl.DeserializeIfInfomsg(m.Data)
	index := int(head.Index)
	if !touched[index] {
		touched[index] = false
	}
	if head.Family == unix.AF_BRIDGE {
		return // tells of a port, not of a link
	}
	if m.Header.Type == unix.RTM_DELLINK {
		defer w.links.settled.take(index)
	}
	header := unix.NlMsghdr(m.Header)
	link, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		return
	}
	if reason := w.seen.judge(m.Header.Type == unix.RTM_DELLINK, link); reason != "" {
		w.changed(reason)
		w.repeat(reason)
	}
}

// noteFilter judges that a link lost a filter, which may be its guard.
func (w *watcher) noteFilter(data []byte) {
	if len(data) < nl.SizeofTcMsg {
		return
	}
	link, err := netlink.LinkByIndex(int(nl.DeserializeTcMsg(data).Ifindex))
	if err == nil && ours(link) && !doomed(link) {
		w.changed("link " + link.Attrs().Name + " lost a filter")
	}
}

// Attributes and indexes of linux/netconf.h, which the library lacks.
const (
	sizeofNetconfmsg  = 4 // with its padding
	netconfIfindex    = 1
	netconfForwarding = 2
	netconfAll        = 1<<32 - 1 // -1, for the switch of the whole host
)

// noteForwarding judges that forwarding was switched off, where it is ours to keep on. That we switch it on is no news.
func (w *watcher) noteForwarding(data []byte) {
	if len(data) < sizeofNetconfmsg {
		return
	}
	settings := data[sizeofNetconfmsg:]
	on := first(settings, netconfForwarding)
	if number(first(settings, netconfIfindex)) != netconfAll || len(on) < 4 || number(on) != 0 {
		return
	}
	key, family := forwardV4, "IPv4"
	if data[0] == unix.AF_INET6 {
		key, family = forwardV6, "IPv6"
	}
	if w.links.switches.holds(key) {
		w.changed(family + " forwarding was switched off")
	}
}

// look compares a link with how it was left. One that we are at work on meanwhile is left alone, and one that is gone has been told of.
func (w *watcher) look(index int, addresses bool) string {
	left := w.links.settled.of(index)
	if left == nil {
		return ""
	}
	now, ok := w.shape(index)
	if !ok {
		return ""
	}
	reason := left.differs(now)
	if reason == "" && addresses && left.bridge == 0 {
		if have, err := w.addresses(index); err == nil {
			reason = left.strays(have)
		}
	}
	if w.links.settled.of(index) != left {
		return ""
	}
	return reason
}

// shape asks the kernel for a link. Where it cannot say it now, there will be an event for the reason.
func (w *watcher) shape(index int) (shape, bool) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.Sockets = w.own.sockets
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filterSkipStats)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(messages) == 0 || len(messages[0]) < unix.SizeofIfInfomsg {
		return shape{}, false
	}
	return readShape(messages[0]), true
}

func readShape(message []byte) shape {
	s := shape{down: nl.DeserializeIfInfomsg(message).Flags&uint32(net.FlagUp) == 0}
	for kind, value := range attributes(message, unix.SizeofIfInfomsg) {
		switch kind {
		case unix.IFLA_IFNAME:
			s.name = text(value)
		case unix.IFLA_IFALIAS:
			s.alias = text(value)
		case unix.IFLA_GROUP:
			s.group = number(value)
		case unix.IFLA_MTU:
			s.mtu = int(number(value))
		case unix.IFLA_MASTER:
			s.bridge = int(number(value))
		case unix.IFLA_LINKINFO:
			s.port = portOf(first(value, nl.IFLA_INFO_SLAVE_DATA))
		}
	}
	return s
}

func (w *watcher) addresses(index int) (have []netip.Prefix, err error) {
	err = w.own.addresses(context.Background(), unix.AF_UNSPEC, index, func(a hostAddr) {
		have = append(have, netip.PrefixFrom(a.local, a.to.Bits()))
	})
	return have, err
}
