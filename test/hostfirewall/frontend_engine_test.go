//go:build engine

package hostfirewall

import (
	"context"
	"net/netip"
	"runtime"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/vishvananda/netns"

	"github.com/drawbridge-net/drawbridge/firewalld"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestFrontends: each front end is found while it is on, and forgets what it is told to forget. What its rules mean is part of TestMatrix.
func TestFrontends(t *testing.T) {
	why := map[string]string{
		"ufw": "ufw is active", "firewalld": "firewalld runs", "iptables-nft": "INPUT of iptables has policy DROP",
		"iptables-legacy": "iptables-legacy: INPUT has policy DROP", "nftables": "chain input of table inet filter (nftables) drops",
	}
	for _, f := range All() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, f.Options, 1)
			b.listen(b.everywhere()...)
			b.finds("before it is on", true, "", "")
			b.must(f.Start(t.Context(), b.host))
			b.finds("while it is on", true, why[f.Name], "")
			if f.Name == "firewalld" {
				b.finds("by its rules", false, "chain filter_INPUT of table inet firewalld (nftables) has a rule that refuses", "")
			}
			for _, c := range Cases("tcp", port, []netip.Addr{b.clients[0].Addr4(), b.clients[0].Addr6()}) {
				b.apply(f, c.Rules)
			}
			b.finds("with all kinds of rules", true, why[f.Name], "")
			if limits[f.Name] != nil {
				b.must(limits[f.Name](t.Context(), b.host))
				b.finds("with a rule that counts", true, why[f.Name], beyond[f.Name])
			}
			b.must(f.Reset(t.Context(), b.host))
			b.finds("after a reset", true, why[f.Name], "")
			b.obey("after a reset", b.verdicts(), Rules{})
			b.must(f.Stop(t.Context(), b.host))
			b.finds("after its end", true, "", "")
			b.finds("after its end, by its rules", false, "", "")
		})
	}
}

// limits are what an administrator types to have a front end count who comes, and beyond is by what it does so.
var (
	limits = map[string]func(ctx context.Context, h *lab.Host) error{
		"ufw": func(ctx context.Context, h *lab.Host) error { return h.UFW(ctx, "limit 22/tcp") },
		"firewalld": func(ctx context.Context, h *lab.Host) error {
			return firewallCmd(ctx, h, "--zone=public", "--add-rich-rule=rule service name=ssh accept limit value=3/m")
		},
	}
	beyond = map[string]string{"ufw": "recent", "firewalld": "limit"}
)

// finds checks what is known of the host's firewall, with the bus or by rules alone.
func (b *bed) finds(when string, bus bool, why, beyond string) {
	b.t.Helper()
	o := hostfw.Options{Run: process.Run}
	if bus {
		o.Firewalld = firewalld.New(firewalld.Options{Connect: func(ctx context.Context) (*dbus.Conn, error) {
			return dbus.Connect("unix:path="+b.host.Path("/run/dbus/system_bus_socket"), dbus.WithContext(ctx))
		}})
	}
	var found hostfw.Finding
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread stays in the lab, and ends
		var ns netns.NsHandle
		if ns, err = netns.GetFromPath(b.host.NetNS()); err != nil {
			return
		}
		defer ns.Close()
		if err = netns.Set(ns); err != nil {
			return
		}
		l := hostfw.New(o)
		defer l.Close()
		found, err = l.Look(b.t.Context())
	}()
	<-done
	if want := (hostfw.Finding{Active: why != "", Why: why, Beyond: beyond}); err != nil || found != want {
		b.t.Errorf("%s: found %+v, %v, want %+v", when, found, err, want)
	}
}
