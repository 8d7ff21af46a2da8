//go:build engine

package engine

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// advertise has the client send router advertisements, by which the host gets a default route for
// three seconds each time, and another uplink which nobody advertises on.
func (b *bed) advertise() {
	b.t.Helper()
	if _, err := b.AddUplink(b.t.Context(), "ext1"); err != nil {
		b.t.Fatal(err)
	}
	router := append(b.within(b.client), b.Probe(), "advertise", "eth0", "2001:db8:77::/64")
	if _, err := b.Start("router", router, nil); err != nil {
		b.t.Fatal(err)
	}
}

// learned reports whether the host has the advertised default route.
func (b *bed) learned() bool {
	b.t.Helper()
	return contains(b.run("ip", "-6", "route", "show", "default", "proto", "ra"), "dev ext0")
}

// renewed checks that the host still listens: the route comes back when it is taken away.
func (b *bed) renewed(t *testing.T) {
	t.Helper()
	if !b.learned() {
		t.Error("the default route is gone")
		return
	}
	b.run("ip", "-6", "route", "del", "default", "proto", "ra")
	b.eventually("the default route is learned again", b.learned)
}

// listening returns accept_ra of the uplinks, and whether the host forwards.
func (b *bed) listening() string {
	b.t.Helper()
	out := b.run("sysctl", "-n", "net.ipv6.conf.ext0.accept_ra", "net.ipv6.conf.ext1.accept_ra", "net.ipv6.conf.all.forwarding")
	return strings.Join(strings.Fields(out), " ")
}

// TestAdvertised: a host that is told its way out by router advertisements keeps it when it begins to forward, and gets its
// own setting back when it forwards no more.
func TestAdvertised(t *testing.T) {
	b := up(t, options{docker: []string{"--ip-forward=false"}, before: func(h *lab.Host) {
		if _, err := h.Run(t.Context(), "sysctl", "-w", "net.ipv6.conf.all.forwarding=0"); err != nil {
			t.Fatal(err)
		}
	}})
	is := func(t *testing.T, want string) {
		t.Helper()
		if got := b.listening(); got != want {
			t.Errorf("accept_ra of both uplinks and forwarding are %s, want %s", got, want)
		}
	}
	b.advertise()
	b.eventually("the default route is learned", b.learned)
	is(t, "1 1 0")
	b.network("four")
	is(t, "1 1 0")
	b.network("web", "--ipv6")
	is(t, "2 1 1")
	b.renewed(t)
	c := b.serveOn("web")
	t.Run("over a restart of the daemon", func(t *testing.T) {
		if err := b.plugin.Kill(); err != nil {
			t.Fatal(err)
		}
		b.startPlugin()
		is(t, "2 1 1")
		b.renewed(t)
	})
	t.Run("the last network goes, forwarding stays", func(t *testing.T) {
		b.do("rm", "-f", c.Name)
		b.do("network", "rm", "web")
		is(t, "2 1 1")
		b.renewed(t)
	})
	t.Run("somebody turns forwarding off", func(t *testing.T) {
		b.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=0")
		b.network("nudge") // any change brings a pass
		is(t, "1 1 0")
		b.renewed(t)
	})
	t.Run("again, and purged", func(t *testing.T) {
		b.network("web", "--ipv6")
		is(t, "2 1 1")
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		if said := b.run(binary(t), "purge", "--force"); !contains(said, "accept_ra stays 2 on ext0") {
			t.Errorf("purge says %q", said)
		}
		is(t, "2 1 1")
		b.renewed(t)
	})
	t.Run("purged where forwarding is off", func(t *testing.T) {
		b.startPlugin()
		b.do("network", "rm", "four", "web", "nudge")
		b.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.ext0.accept_ra=1")
		b.eventually("the default route is learned", b.learned)
		b.network("web", "--ipv6")
		is(t, "2 1 1")
		if err := b.plugin.Stop(); err != nil {
			t.Fatal(err)
		}
		b.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=0")
		if said := b.run(binary(t), "purge", "--force"); contains(said, "accept_ra") {
			t.Errorf("purge says %q", said)
		}
		is(t, "1 1 0")
	})
}

// TestAdvertisedForwarder: where the host forwarded before, it is the administrator's business what it listens to.
func TestAdvertisedForwarder(t *testing.T) {
	b := up(t, options{docker: []string{"--ip-forward=false"}, before: preset(t)})
	b.run("sysctl", "-w", "net.ipv6.conf.ext0.accept_ra=2")
	b.advertise()
	b.eventually("the default route is learned", b.learned)
	b.network("web", "--ipv6")
	b.do("network", "rm", "web")
	if got := b.listening(); got != "2 1 1" {
		t.Errorf("accept_ra of both uplinks and forwarding are %s", got)
	}
	b.renewed(t)
	b.run("sysctl", "-w", "net.ipv6.conf.ext0.accept_ra=1") // the route stays until it expires
	b.network("web", "--ipv6")
	if got := b.listening(); got != "1 1 1" {
		t.Errorf("accept_ra of both uplinks and forwarding are %s", got)
	}
}
