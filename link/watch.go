package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Watch calls changed when a bridge of somebody else appears or disappears, which the
// firewall's isolation depends on, when a link of ours is removed, and when somebody else's becomes a port of
// a bridge of ours, until ctx ends.
func Watch(ctx context.Context, changed func(reason string)) error {
	return repeat(ctx, watchLinks, changed)
}

// WatchGuards calls changed when a link of ours loses a filter, which may be its guard, until ctx ends.
func WatchGuards(ctx context.Context, changed func(reason string)) error {
	return repeat(ctx, watchTraffic, changed)
}

// repeat subscribes until ctx ends, and again if the kernel drops events because too many came at once.
func repeat(ctx context.Context, watch func(context.Context, bool, func(string)) error, changed func(string)) error {
	for repeated := false; ; repeated = true {
		// A subscription that cannot be had is tried for again: the loop checks
		// the host from time to time anyway.
		_ = watch(ctx, repeated, changed)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// watchLinks is one subscription. What happened between the end of another and its begin is one
// change.
func watchLinks(ctx context.Context, repeated bool, changed func(reason string)) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	defer close(done)
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, // the closed channel says enough
	})
	if err != nil {
		return fmt.Errorf("watching links: %w", err)
	}
	if repeated {
		changed("link events lost")
	}
	seen := seen{bridges: map[int32]bool{}, masters: map[int32]int{}}
	for {
		select {
		case <-ctx.Done():
			go drain(updates)
			return nil
		case u, ok := <-updates:
			if !ok {
				return errors.New("watching links: the subscription ended")
			}
			if reason := seen.judge(u); reason != "" {
				changed(reason)
				later(ctx, reason, changed)
			}
		}
	}
}

// watchTraffic is one subscription to what is taken away in the kernel's traffic control. What goes with its link is not told.
func watchTraffic(ctx context.Context, repeated bool, changed func(reason string)) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_TC)
	if err != nil {
		return fmt.Errorf("watching filters: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close)
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	if repeated {
		changed("events of filters lost")
	}
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("watching filters: %w", err)
		}
		for _, m := range messages {
			removed := m.Header.Type == unix.RTM_DELQDISC || m.Header.Type == unix.RTM_DELTFILTER
			if !removed || len(m.Data) < nl.SizeofTcMsg {
				continue
			}
			link, err := netlink.LinkByIndex(int(nl.DeserializeTcMsg(m.Data).Ifindex))
			if err == nil && ours(link) && !doomed(link) {
				changed("link " + link.Attrs().Name + " lost a filter")
			}
		}
	}
}

// dockerd makes a bridge first and the rules that tell it from others a moment later, and says
// nothing of them. So each change is looked at again.
var again = []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second}

func later(ctx context.Context, reason string, changed func(string)) {
	for _, d := range again {
		time.AfterFunc(d, func() {
			if ctx.Err() == nil {
				changed(reason)
			}
		})
	}
}

// drain lets the library's goroutine end, which may be about to send.
func drain(updates <-chan netlink.LinkUpdate) {
	for range updates {
	}
}

// seen is what has been reported of links of others.
type seen struct {
	bridges map[int32]bool // their indexes
	masters map[int32]int  // the bridge of each port
}

// judge returns why an event matters, "" if it does not.
func (s seen) judge(u netlink.LinkUpdate) string {
	removed := u.Header.Type == unix.RTM_DELLINK
	name := u.Link.Attrs().Name
	switch {
	case u.IfInfomsg.Family == unix.AF_BRIDGE: // tells of a port, not of a link
	case doomed(u.Link): // by ourselves
	case ours(u.Link), adopted(u.Link):
		if removed {
			return "link " + name + " was removed"
		}
		if a := u.Link.Attrs(); adopted(u.Link) && (a.Group&state.GroupAdoptedBit == 0 || !state.OurAlias(a.Alias)) {
			return "bridge " + name + " lost our mark"
		}
	case u.Link.Type() == "bridge" && removed:
		delete(s.bridges, u.Index)
		return "bridge " + name + " was removed"
	case u.Link.Type() == "bridge" && !s.bridges[u.Index]:
		s.bridges[u.Index] = true
		return "bridge " + name + " appeared"
	case removed:
		delete(s.masters, u.Index)
	case s.masters[u.Index] != u.Link.Attrs().MasterIndex:
		return s.moved(u)
	}
	return ""
}

// moved says of a link of somebody else that it came to or left a bridge of ours.
func (s seen) moved(u netlink.LinkUpdate) string {
	was, is := s.masters[u.Index], u.Link.Attrs().MasterIndex
	s.masters[u.Index] = is
	for _, index := range []int{was, is} {
		if index == 0 {
			continue
		}
		if bridge, err := netlink.LinkByIndex(index); err == nil && ours(bridge) {
			return "the ports of " + bridge.Attrs().Name + " changed"
		}
	}
	return ""
}
