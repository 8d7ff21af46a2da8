//go:build kernel

package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/drawbridge-net/drawbridge/state"
)

// listener hears what watches of the lab tell.
type listener struct {
	*lab
	reasons chan string
	fences  int
	known   map[string]bool // what expect and news heard
}

// listening starts watches and returns when the kernel's events are heard.
func (l *lab) listening(watches ...func(context.Context, func(string)) error) *listener {
	l.Helper()
	h := &listener{lab: l, reasons: make(chan string, 1000), known: map[string]bool{}}
	for _, watch := range append(watches, l.links.Watch) {
		reasons, stop := l.watching(watch)
		go func() {
			for r := range reasons {
				h.reasons <- strings.TrimSuffix(r, " a moment ago") // told before
			}
		}()
		l.Cleanup(stop)
	}
	for seen := false; !seen; {
		l.foreign(bridgeNamed("fence"))
		l.remove("fence")
		select {
		case <-h.reasons:
			seen = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	return h
}

// hearing is how soon a change is told: in part of a second on a machine that has nothing else to do, and long before the next look at
// everything in any case.
const hearing = 5 * time.Second

// expect returns the reason with the words and how long it took until it was heard.
func (h *listener) expect(words string) (took time.Duration, reason string) {
	h.Helper()
	began, timeout := time.Now(), time.After(hearing)
	var others []string
	for {
		select {
		case r := <-h.reasons:
			h.known[r] = true
			if strings.Contains(r, words) {
				return time.Since(began), r
			}
			others = append(others, r)
		case <-timeout:
			h.Fatalf("%q was not heard within %v, but %q", words, hearing, others)
		}
	}
}

// heard returns what was told of all that happened before. A link of somebody's is the fence: of what comes first is told first. Two of
// them, since it is told of a link before links that we have just left are looked at.
func (h *listener) heard() (told []string) {
	h.Helper()
	for range 2 {
		h.fences++
		name := fmt.Sprint("fence", h.fences)
		h.foreign(bridgeNamed(name))
		for r := ""; r != "bridge "+name+" appeared"; {
			select {
			case r = <-h.reasons:
			case <-time.After(10 * time.Second):
				h.Fatalf("nothing is heard any more")
			}
			if !strings.Contains(r, "fence") {
				told = append(told, r)
			}
		}
		h.remove(name)
	}
	return told
}

// news is what was told for the first time: of bridges it is told several times.
func (h *listener) news() (told []string) {
	h.Helper()
	for _, r := range h.heard() {
		if !h.known[r] {
			told = append(told, r)
		}
		h.known[r] = true
	}
	return told
}

// TestForeignChangesAreHeard: whatever somebody does to a link of ours is told soon, and mended by the next whole pass, of
// which nothing is told once it is over.
func TestForeignChangesAreHeard(t *testing.T) {
	l := newLab(t)
	l.links.RouteLocalnet = true
	n, apart, e, alone := network(1), network(2), endpoint(1, 1), endpoint(2, 2)
	apart.NoICC = true
	s := snapshot(n, apart, e, alone, state.Forwarding{V4: true, V6: true})
	l.apply(s)
	h := l.listening(l.links.WatchSettings)
	bridge, port := n.Bridge, e.HostLink()
	for _, tt := range []struct {
		name, words string
		harm        func()
	}{
		{"a bridge set down", bridge + " was set down", func() { must(t, netlink.LinkSetDown(l.link(bridge))) }},
		{"a port set down", port + " was set down", func() { must(t, netlink.LinkSetDown(l.link(port))) }},
		{"nomaster", port + " was taken out of its bridge", func() { must(t, netlink.LinkSetNoMaster(l.link(port))) }},
		{"nomaster, apart", alone.HostLink() + " was taken out of its bridge", func() { must(t, netlink.LinkSetNoMaster(l.link(alone.HostLink()))) }},
		{"another master", port + " was put into another bridge", func() { must(t, netlink.LinkSetMaster(l.link(port), l.link(apart.Bridge))) }},
		{"a bridge renamed", bridge + " was renamed to elsewhere", func() { l.rename(bridge, "elsewhere") }},
		{"a port renamed", port + " was renamed to elsewhere", func() { l.rename(port, "elsewhere") }},
		{"another group", bridge + " was moved to group 7", func() { must(t, netlink.LinkSetGroup(l.link(bridge), 7)) }},
		{"another group of a port", port + " was moved to group 0", func() { must(t, netlink.LinkSetGroup(l.link(port), 0)) }},
		{"another MTU", "MTU of link " + bridge, func() { must(t, netlink.LinkSetMTU(l.link(bridge), 1300)) }},
		{"another MTU of a port", "MTU of link " + port, func() { must(t, netlink.LinkSetMTU(l.link(port), 1300)) }},
		{"no alias", bridge + " has another alias", func() { must(t, netlink.LinkSetAlias(l.link(bridge), "")) }},
		{"isolated", "bridge port " + port, func() { must(t, netlink.LinkSetIsolated(l.link(port), true)) }},
		{"not isolated", "bridge port " + alone.HostLink(), func() { must(t, netlink.LinkSetIsolated(l.link(alone.HostLink()), false)) }},
		{"unlocked", "bridge port " + alone.HostLink(), func() { l.bridgePort(alone.HostLink(), "locked", "off") }},
		{"hairpin", "bridge port " + port, func() { must(t, netlink.LinkSetHairpin(l.link(port), true)) }},
		{"a port removed", port + " was removed", func() { l.remove(port) }},
		{"a bridge removed", bridge + " was removed", func() { l.remove(bridge) }},
		{"an address removed", bridge + " lost its address 10.1.0.1/16", func() { l.address(netlink.AddrDel, bridge, "10.1.0.1/16") }},
		{"an IPv6 address removed", bridge + " lost its address fd00:1::1/64", func() { l.address(netlink.AddrDel, bridge, "fd00:1::1/64") }},
		{"a foreign address", bridge + " got another address, 192.0.2.1/24", func() { l.address(netlink.AddrAdd, bridge, "192.0.2.1/24") }},
		{"a foreign IPv6 address", bridge + " got another address, fd0f::1/64", func() { l.address(netlink.AddrAdd, bridge, "fd0f::1/64") }},
		{"IPv4 forwarding", "IPv4 forwarding was switched off", func() { l.setSysctl(forwardV4, "0") }},
		{"IPv6 forwarding", "IPv6 forwarding was switched off", func() { l.setSysctl(forwardV6, "0") }},
		{"route_localnet", "br1.route_localnet was changed", func() { l.setSysctl(routeLocalnet(bridge), "0") }},
		{"source routes", "br1.accept_source_route was changed", func() { l.setSysctl("net/ipv4/conf/br1/accept_source_route", "1") }},
		{"IPv6 of a port", port + ".disable_ipv6 was changed", func() { l.setSysctl(disableIPv6(port), "0") }},
		{"IPv6 of a bridge", "br1.disable_ipv6 was changed", func() { l.setSysctl(disableIPv6(bridge), "1") }},
		{"router advertisements", "br1.accept_ra was changed", func() { l.setSysctl(acceptRA(bridge), "1") }},
	} {
		before := l.everything()
		tt.harm()
		took, reason := h.expect(tt.words)
		t.Logf("%s: heard after %v: %s", tt.name, took.Round(time.Millisecond), reason)
		h.heard() // what else the harm told
		l.apply(s)
		down := strings.Contains(tt.words, "set down") || strings.Contains(tt.words, "renamed")
		if told := h.heard(); !down && slices.ContainsFunc(told, func(r string) bool { return strings.Contains(r, "set down") }) {
			t.Errorf("%s: that a pass took a link down was told: %q", tt.name, told)
		}
		if d := cmp.Diff(before, l.everything()); d != "" {
			t.Errorf("%s (-before +after):\n%s", tt.name, d)
		}
		l.apply(s)
		if told := h.news(); len(told) > 0 {
			t.Errorf("%s: a pass that finds nothing to do told %q", tt.name, told)
		}
	}
}

func (l *lab) rename(name, to string) {
	l.Helper()
	must(l, netlink.LinkSetDown(l.link(name)))
	must(l, netlink.LinkSetName(l.link(name), to))
}

func (l *lab) address(do func(netlink.Link, *netlink.Addr) error, name, address string) {
	l.Helper()
	a, err := netlink.ParseAddr(address)
	must(l, err)
	must(l, do(l.link(name), a))
}

func (l *lab) bridgePort(name string, args ...string) {
	l.Helper()
	if out, err := exec.Command("bridge", append([]string{"link", "set", "dev", name}, args...)...).CombinedOutput(); err != nil {
		l.Fatalf("bridge link set dev %s %v: %v: %s", name, args, err, out)
	}
}

// TestOwnWorkIsSilent: networks and containers come, change and go, the containers' ends move into them and back, whole passes run between,
// and the machine is busy; and nothing of it is told. Otherwise each docker run would cost a look at the whole host.
func TestOwnWorkIsSilent(t *testing.T) {
	l := newLab(t)
	l.links.RouteLocalnet = true
	l.setSysctl("net/bridge/bridge-nf-call-iptables", "1") // so that ports that publish let frames back
	settings := func(ctx context.Context, changed func(string)) error {
		for ctx.Err() == nil {
			for _, key := range l.links.changedSettings(switchShare) {
				changed(key)
			}
		}
		return nil
	}
	h := l.listening(settings)
	for range 3 {
		go func() {
			for t.Context().Err() == nil { // keeps a processor from the watches
			}
		}()
	}
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	container := l.namespace()
	random := rand.New(rand.NewPCG(3, 4))
	var now state.Snapshot
	made := 0
	for step := range 80 {
		next := randomState(random, now)
		for _, e := range now.Endpoints {
			if to, there := next.Endpoint(e.ID); e.Joined() && (!there || !to.Joined()) {
				l.inside(container, func() {
					if l.has(e.ContainerLink()) {
						must(l, netlink.LinkSetNsFd(l.link(e.ContainerLink()), int(home)))
					}
				})
			}
		}
		l.follow(now, next)
		for _, e := range next.Endpoints {
			from, there := now.Endpoint(e.ID)
			if e.Joined() && !(there && from.Joined()) && l.has(e.ContainerLink()) {
				must(l, netlink.LinkSetNsFd(l.link(e.ContainerLink()), int(container)))
				l.inside(container, func() { l.up(e.ContainerLink()) })
			}
			if !there {
				made++
			}
		}
		if step%10 == 9 {
			l.apply(next)
		}
		now = next
	}
	l.follow(now, state.Snapshot{})
	must(t, l.links.reaper.reap())
	if told := h.heard(); len(told) > 0 {
		t.Errorf("%d endpoints came and went, and it was told: %q", made, told)
	}
	t.Logf("%d endpoints came and went", made)
}

// TestNetworkGoesWithItsContainers: a network and its endpoints that go together are no news, even where the bridge is deleted while its
// ports are still there.
func TestNetworkGoesWithItsContainers(t *testing.T) {
	l := newLab(t)
	h := l.listening(l.links.WatchSettings)
	parts := []any{network(1)}
	for i := range 8 {
		parts = append(parts, endpoint(1, i+1))
	}
	whole := snapshot(parts...)
	ctx, cancel := context.WithCancel(t.Context())
	var reaping sync.WaitGroup
	reaping.Go(func() { // as soon as something is doomed
		for ctx.Err() == nil {
			_ = l.links.reaper.reap()
		}
	})
	for range 20 {
		l.follow(state.Snapshot{}, whole)
		l.follow(whole, state.Snapshot{})
	}
	cancel()
	reaping.Wait()
	if told := h.heard(); len(told) > 0 {
		t.Errorf("it was told: %q", told)
	}
}
