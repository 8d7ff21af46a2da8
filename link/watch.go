package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Watch calls changed when a bridge of somebody else appears or disappears, which the
// firewall's isolation depends on, and when a link of ours is removed, until ctx ends. It
// subscribes again if the kernel drops events because too many came at once.
func Watch(ctx context.Context, changed func(reason string)) error {
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

// watch is one subscription. What happened between the end of another and its begin is one
// change.
func watch(ctx context.Context, repeated bool, changed func(reason string)) error {
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
	seen := map[int32]bool{}
	for {
		select {
		case <-ctx.Done():
			go drain(updates)
			return nil
		case u, ok := <-updates:
			if !ok {
				return errors.New("watching links: the subscription ended")
			}
			if reason := judge(u, seen); reason != "" {
				changed(reason)
				later(ctx, reason, changed)
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

// judge returns why an event matters, "" if it does not. seen holds the indexes of foreign
// bridges that have been reported.
func judge(u netlink.LinkUpdate, seen map[int32]bool) string {
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
	case u.Link.Type() != "bridge":
	case removed:
		delete(seen, u.Index)
		return "bridge " + name + " was removed"
	case !seen[u.Index]:
		seen[u.Index] = true
		return "bridge " + name + " appeared"
	}
	return ""
}
