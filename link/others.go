package link

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
)

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

// seen is what has been reported of links of others.
type seen struct {
	bridges map[int32]bool // their indexes
	masters map[int32]int  // the bridge of each port
}

// judge returns why it matters that a link changed or was removed, "" if it does not.
func (s seen) judge(removed bool, link netlink.Link) string {
	name, index := link.Attrs().Name, int32(link.Attrs().Index)
	switch {
	case doomed(link): // by ourselves
	case ours(link), adopted(link):
		if removed && link.Attrs().Alias != "" { // without, it was not finished, and was given up by us
			return "link " + name + " was removed"
		}
	case link.Type() == "bridge" && removed:
		delete(s.bridges, index)
		return "bridge " + name + " was removed"
	case link.Type() == "bridge" && !s.bridges[index]:
		s.bridges[index] = true
		return "bridge " + name + " appeared"
	case removed:
		delete(s.masters, index)
	case s.masters[index] != link.Attrs().MasterIndex:
		return s.moved(index, link.Attrs().MasterIndex)
	}
	return ""
}

// moved says of a link of somebody else that it came to or left a bridge of ours.
func (s seen) moved(index int32, to int) string {
	was := s.masters[index]
	s.masters[index] = to
	for _, index := range []int{was, to} {
		if index == 0 {
			continue
		}
		if bridge, err := netlink.LinkByIndex(index); err == nil && ours(bridge) {
			return "the ports of " + bridge.Attrs().Name + " changed"
		}
	}
	return ""
}
