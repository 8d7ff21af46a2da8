package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/internal/effect"
	"github.com/drawbridge-net/drawbridge/state"
)

// To delete a link takes the kernel 15 ms, a bridge 40 ms: it waits until nobody uses the link any more, and one after the
// other each wait anew. So a link is doomed first: it goes down, loses its addresses and moves to a group of its own, each within
// microseconds, after which it does nothing any more, and it is deleted a little later.
//
// To delete a whole device group takes no longer than one link (linux/net/core/rtnetlink.c, rtnl_group_dellink), unless there are
// bridges in it: for each of them the kernel waits 15 ms (linux/net/bridge/br_vlan.c, br_vlan_flush), and for all of that time
// nobody else on the machine makes or changes a link. Therefore bridges go one by one, and others get in between.

// reapDelay is how long doomed links are collected. It ends well within the second in which a user may look.
const reapDelay = 200 * time.Millisecond

// reaper deletes doomed links. It has sockets of its own, on which nobody else waits.
type reaper struct {
	handle  *netlink.Handle
	scanner scanner

	one sync.Mutex // one at a time deletes bridges

	mu    sync.Mutex
	timer *time.Timer // nil while nothing is doomed; guarded by mu
}

// doomed reports whether a link of ours is to be deleted.
func doomed(link netlink.Link) bool {
	a := link.Attrs()
	return (a.Group == state.GroupDoomed || a.Group == state.GroupDoomedBridge) && state.OurAlias(a.Alias)
}

// doom takes a link out of use and has it deleted soon. One that a crash left without its alias is deleted at once: in the group
// nobody would know whose it is.
func (l *Links) doom(link netlink.Link) error {
	remove := l.disable
	if link.Attrs().Alias == "" {
		remove = l.handle.LinkDel
	}
	if !doomed(link) {
		l.journal.note(link.Attrs().Name, "link %s is left over", link.Attrs().Name)
		if err := remove(link); err != nil && !gone(err) {
			return fmt.Errorf("removing link %s: %w", link.Attrs().Name, err)
		}
	}
	if !l.journal.looking {
		l.reaper.soon()
	}
	return nil
}

// disable keeps the group, by which the firewall knows a bridge, until nothing passes any more.
func (l *Links) disable(link netlink.Link) error {
	if l.journal.looking {
		return nil
	}
	if err := l.handle.LinkSetDown(link); err != nil {
		return err
	}
	if link.Type() == "bridge" {
		var addrs []hostAddr
		err := l.scanner.addresses(context.Background(), unix.AF_UNSPEC, link.Attrs().Index, func(a hostAddr) { addrs = append(addrs, a) })
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if err := l.handle.AddrDel(link, a.netlink()); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
		}
	}
	group := state.GroupDoomed
	if link.Type() == "bridge" {
		group = state.GroupDoomedBridge
	}
	return l.journal.change("link.doom", func() error { return l.handle.Handle.LinkSetGroup(link, int(group)) })
}

// deleteBridge deletes a bridge at once, because another one is to have its name.
func (l *Links) deleteBridge(link netlink.Link) error {
	l.journal.note(link.Attrs().Name, "link %s is left over", link.Attrs().Name)
	err := l.disable(link)
	if err == nil {
		err = l.handle.LinkDel(link)
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("removing link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// soon deletes what is doomed a little later.
func (r *reaper) soon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		r.timer = time.AfterFunc(reapDelay, func() { _ = r.reap() }) // what is left, each whole pass finds again
	}
}

// reap deletes what is doomed, and returns when it is gone.
func (r *reaper) reap() error {
	r.mu.Lock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.mu.Unlock()
	err := r.reapGroup()
	r.one.Lock()
	defer r.one.Unlock()
	bridges, _, failed := r.inGroup(state.GroupDoomedBridge)
	return errors.Join(err, failed, r.deleteEach(bridges))
}

// reapGroup deletes what is doomed and no bridge.
func (r *reaper) reapGroup() error {
	ours, others, err := r.inGroup(state.GroupDoomed)
	switch {
	case err != nil:
		return err
	case others: // which stay
		return r.deleteEach(ours)
	case len(ours) > 0:
		return r.deleteGroup()
	}
	return nil
}

// inGroup lists what is doomed in a group, and reports whether there are links of others too.
func (r *reaper) inGroup(group uint32) (ours []netlink.Link, others bool, err error) {
	err = r.scanner.links(context.Background(), "", func(link netlink.Link) {
		switch {
		case link.Attrs().Group != group:
		case doomed(link):
			ours = append(ours, link)
		default:
			others = true
		}
	})
	if err != nil {
		return nil, false, fmt.Errorf("listing the host's links: %w", err)
	}
	return ours, others, nil
}

func (r *reaper) deleteEach(links []netlink.Link) error {
	var errs []error
	for _, link := range links {
		if err := effect.Do("link.delete", func() error { return r.handle.LinkDel(link) }); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("removing link %s: %w", link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *reaper) deleteGroup() error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.Sockets = r.scanner.sockets
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(state.GroupDoomed)))
	err := effect.Do("link.delete", func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing links: %w", err)
	}
	return nil
}

func newReaper() (*reaper, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	s, err := newScanner()
	if err != nil {
		h.Close()
		return nil, err
	}
	return &reaper{handle: h, scanner: s}, nil
}

// close deletes what is doomed and gives the sockets back.
func (r *reaper) close() {
	_ = r.reap() // the next process finds what is left
	r.handle.Close()
	r.scanner.close()
}
