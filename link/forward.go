package link

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/state"
)

// Forwarding reports whether the host forwards IPv4 and IPv6, and, if IPv6 is wanted and off, the links from whose router
// advertisements it has routes and which would stop to listen to them with forwarding.
func (l *Links) Forwarding(v6 bool) (state.Forwarding, error) {
	on4, on6, err := l.sysctl.forwarding()
	f := state.Forwarding{V4: on4, V6: on6}
	if err != nil || on6 || !v6 {
		return f, err
	}
	f.RA, err = l.advertised()
	return f, err
}

// acceptRA is the key of a link's switch: 0 for never, 1 for unless the host forwards, 2 for always (kernel,
// Documentation/networking/ip-sysctl.rst).
func acceptRA(link string) string { return "net/ipv6/conf/" + link + "/accept_ra" }

// advertised returns the links that got routes by router advertisements.
func (l *Links) advertised() (state.LinkNames, error) {
	learned := map[int]bool{}
	err := l.scanner.routes(context.Background(), unix.AF_INET6, unix.RT_TABLE_UNSPEC, func(r route) {
		if r.protocol == unix.RTPROT_RA {
			learned[r.link] = true
		}
	})
	if err != nil {
		return "", fmt.Errorf("listing the host's IPv6 routes: %w", err)
	}
	if len(learned) == 0 {
		return "", nil
	}
	have, err := l.inventory()
	if err != nil {
		return "", err
	}
	var names []string
	for name, link := range have {
		if !learned[link.Attrs().Index] || ours(link) || state.CheckLinkName(name) != nil {
			continue
		}
		if value, err := l.sysctl.get(acceptRA(name)); err == nil && value == "1" {
			names = append(names, name)
		}
	}
	return state.JoinLinkNames(names), nil
}

// forward turns on the switches that the state records as ours, while a network needs them, and those that were on already and that
// somebody has turned off since then. Others are left as they are, and none is turned off: others may rely on it by now.
//
// What was on before is not ours by that: where the host was a router it stays one (see state.Forwarding).
func (l *Links) forward(s state.Snapshot) error {
	need4, need6 := state.NeedForwarding(s.Networks)
	on4, on6, err := l.sysctl.forwarding()
	if err != nil {
		return err
	}
	l.wasOn4, l.wasOn6 = need4 && (l.wasOn4 || on4), need6 && (l.wasOn6 || on6)
	var errs []error
	if need4 && (s.Forwarding.V4 || l.KeepForwarding && l.wasOn4) {
		errs = append(errs, l.set("", forwardV4, "1"))
	}
	if need6 && (s.Forwarding.V6 || l.KeepForwarding && l.wasOn6) {
		// First, since the kernel drops the routes of those that do not listen.
		errs = append(errs, l.setRA(s.Forwarding.RA, "1", "2", l.set), l.set("", forwardV6, "1"))
	}
	if !need6 && s.Forwarding.RA != "" {
		_, err := l.RestoreRA(s.Forwarding.RA)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// RestoreRA gives links their own setting for router advertisements back, once the host does not forward IPv6 any
// more, and says whether it did. While the host forwards, that setting would cost it its routes.
func (l *Links) RestoreRA(links state.LinkNames) (bool, error) {
	if _, v6, err := l.sysctl.forwarding(); err != nil || v6 {
		return false, err
	}
	return true, l.setRA(links, "2", "1", l.giveBack)
}

// setRA changes the setting of those links that have the one before.
func (l *Links) setRA(links state.LinkNames, before, after string, set func(link, key, value string) error) error {
	var errs []error
	for _, name := range links.All() {
		if value, err := l.sysctl.get(acceptRA(name)); err == nil && value == before {
			errs = append(errs, set(name, acceptRA(name), after))
		}
	}
	return errors.Join(errs...)
}
