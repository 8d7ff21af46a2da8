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

	"github.com/drawbridge-net/drawbridge/state"
)

// To delete a link takes the kernel 15 ms, a bridge 30 ms: it waits until nobody uses the link any more, and one after the
// other each wait anew. To delete a whole device group takes no longer. So a link is doomed first: it goes down, loses its
// addresses and moves to a group of its own, each within microseconds, after which it does nothing any more. A little later the group is
// deleted (linux/net/core/rtnetlink.c, rtnl_group_dellink).

// reapDelay is how long doomed links are collected. It ends well within the second in which a user may look.
const reapDelay = 200 * time.Millisecond

// reaper deletes doomed links. It has sockets of its own, on which nobody else waits.
type reaper struct {
	handle  *netlink.Handle
	scanner scanner

	mu    sync.Mutex
	timer *time.Timer // nil while nothing is doomed; guarded by mu
}

// doomed reports whether a link of ours is to be deleted with its group.
func doomed(link netlink.Link) bool {
	return link.Attrs().Group == state.GroupDoomed && state.OurAlias(link.Attrs().Alias)
}

// doom takes a link out of use and has it deleted soon. One that a crash left without its alias is deleted at once: in the group
// nobody would know whose it is.
func (l *Links) doom(link netlink.Link) error {
	remove := l.disable
	if link.Attrs().Alias == "" {
		remove = l.handle.LinkDel
	}
	if !doomed(link) {
		if err := remove(link); err != nil && !gone(err) {
			return fmt.Errorf("removing link %s: %w", link.Attrs().Name, err)
		}
	}
	l.reaper.soon()
	return nil
}

// disable keeps the group, by which the firewall knows a bridge, until nothing passes any more.
func (l *Links) disable(link netlink.Link) error {
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
	return l.handle.LinkSetGroup(link, int(state.GroupDoomed))
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
	var ours []netlink.Link
	others := false
	err := r.scanner.links(context.Background(), "", func(link netlink.Link) {
		switch {
		case doomed(link):
			ours = append(ours, link)
		case link.Attrs().Group == state.GroupDoomed:
			others = true
		}
	})
	if err != nil {
		return fmt.Errorf("listing the host's links: %w", err)
	}
	if !others {
		return r.deleteGroup()
	}
	var errs []error
	for _, link := range ours { // somebody else's is in the group, and stays
		if err := r.handle.LinkDel(link); err != nil && !gone(err) {
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
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !errors.Is(err, unix.ENODEV) {
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
