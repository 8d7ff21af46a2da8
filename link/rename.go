package link

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/state"
)

// renameBack gives links of ours that somebody renamed their names back: a link made anew in their place would be in no container.
// They go down for it, as kernels before 6.2 want, and Activate brings them up. An adopted bridge has the name that its owner gives it.
func (l *Links) renameBack(have inventory, s state.Snapshot) []error {
	names := map[string]string{} // by alias
	for _, n := range s.Networks {
		if !n.Adopted {
			names[n.Alias()] = n.Bridge
		}
	}
	for _, e := range s.Endpoints {
		names[e.Alias()] = e.HostLink()
	}
	var errs []error
	for name, link := range have {
		wanted, known := names[link.Attrs().Alias]
		if _, taken := have[wanted]; !known || taken || !ours(link) || doomed(link) {
			continue
		}
		l.journal.about = state.OwnerOf(link.Attrs().Alias)
		if err := l.rename(link, wanted); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(have, name)
		have[wanted] = link
	}
	return errs
}

func (l *Links) rename(link netlink.Link, name string) error {
	l.take(link)
	if err := l.handle.LinkSetDown(link); err != nil {
		return fmt.Errorf("taking %s down: %w", link.Attrs().Name, err)
	}
	if err := l.handle.LinkSetName(link, name); err != nil {
		return fmt.Errorf("renaming link %s back to %s: %w", link.Attrs().Name, name, err)
	}
	link.Attrs().Name = name
	return nil
}
