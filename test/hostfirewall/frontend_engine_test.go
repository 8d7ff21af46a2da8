//go:build engine

package hostfirewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/vishvananda/netns"
	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/firewalld"
	"github.com/drawbridge-net/drawbridge/hostfw"
	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// port is that of the first case, and of draws.
const port = 8080

// bed is a host with ordinary processes on ports, and clients of it: one and two come by ext0, three by ext1.
type bed struct {
	t       *testing.T
	host    *lab.Host
	clients []*lab.Client
	ports   []uint16
}

func newBed(t *testing.T, f Frontend, ports int) *bed {
	t.Helper()
	b := &bed{t: t, host: lab.Up(t, f.Options)}
	for _, c := range []struct{ name, uplink string }{{"one", "ext0"}, {"two", "ext0"}, {"three", "ext1"}} {
		client, err := b.host.AddClient(t.Context(), c.name, lab.ClientOptions{Uplink: c.uplink})
		b.must(err)
		b.clients = append(b.clients, client)
	}
	var addrs []string
	for i := range uint16(ports) {
		b.ports = append(b.ports, port+10*i)
		addrs = append(addrs, fmt.Sprintf(":%d", port+10*i))
	}
	for _, proto := range []string{"tcp", "udp"} {
		_, err := b.host.Serve(t.Context(), proto, addrs...)
		b.must(err)
	}
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// question is one that a client asks of the host.
type question struct {
	client *lab.Client
	proto  string
	from   netip.Addr
	to     netip.AddrPort
}

func (q question) String() string {
	return fmt.Sprintf("%s, %s from %v to %v", q.client.Name, q.proto, q.from, q.to)
}

// questions are from every client to every port, in both families and protocols.
func (b *bed) questions() []question {
	var out []question
	for _, proto := range []string{"tcp", "udp"} {
		for _, c := range b.clients {
			for _, p := range b.ports {
				out = append(out,
					question{c, proto, c.Addr4(), netip.AddrPortFrom(c.Host.Addr4(), p)},
					question{c, proto, c.Addr6(), netip.AddrPortFrom(c.Host.Addr6(), p)})
			}
		}
	}
	return out
}

// verdicts asks everything at once, and returns what was answered.
func (b *bed) verdicts() map[question]bool {
	b.t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	served := map[question]bool{}
	for _, q := range b.questions() {
		all.Go(func() {
			_, err := lab.Get(b.t.Context(), q.client, lab.Request{Network: q.proto, Addr: q.to.String(), Timeout: patience})
			known := errors.Is(err, lab.ErrRefused) || errors.Is(err, lab.ErrUnreachable) || errors.Is(err, lab.ErrTimeout)
			if err != nil && !known {
				b.t.Errorf("%v: %v", q, err)
			}
			mu.Lock()
			defer mu.Unlock()
			served[q] = err == nil
		})
	}
	all.Wait()
	return served
}

// patience is how long an answer may take, while dozens of clients ask at once.
const patience = 3 * time.Second

// check compares who is served with what rules say.
func (b *bed) check(when string, rules Rules) {
	b.t.Helper()
	for q, got := range b.verdicts() {
		if want := rules.Admits(q.proto, q.to.Port(), q.from, q.client.Host.Name); got != want {
			b.t.Errorf("%s: %v: served is %v, want %v", when, q, got, want)
		}
	}
}

// TestFrontends: each front end lets in to an ordinary process what its rules say, and nobody else. And it is found, while it is on.
func TestFrontends(t *testing.T) {
	why := map[string]string{
		"ufw": "ufw is active", "firewalld": "firewalld runs", "iptables-nft": "INPUT of iptables has policy DROP",
		"iptables-legacy": "iptables-legacy: INPUT has policy DROP", "nftables": "chain input of table inet filter (nftables) drops",
	}
	for _, f := range All() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, f, len(Cases("tcp", port, nil)))
			b.finds("before it is on", true, "")
			b.must(f.Start(t.Context(), b.host))
			b.finds("while it is on", true, why[f.Name])
			if f.Name == "firewalld" {
				b.finds("by its rules", false, "chain filter_INPUT of table inet firewalld (nftables) has a rule that refuses")
			}
			b.check("all cases", b.makeCases(f))
			b.must(f.Reset(t.Context(), b.host))
			b.check("after a reset", Rules{})
			b.must(f.Stop(t.Context(), b.host))
			b.finds("after its end", true, "")
			b.finds("after its end, by its rules", false, "")
		})
	}
}

// finds checks what is known of the host's firewall, with the bus or by rules alone.
func (b *bed) finds(when string, bus bool, why string) {
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
	if want := (hostfw.Finding{Active: why != "", Why: why}); err != nil || found != want {
		b.t.Errorf("%s: found %+v, %v, want %+v", when, found, err, want)
	}
}

// makeCases has a port for each case. A port's case is another one for UDP than for TCP: what is said of one is not meant for the other.
func (b *bed) makeCases(f Frontend) Rules {
	b.t.Helper()
	one := []netip.Addr{b.clients[0].Addr4(), b.clients[0].Addr6()}
	var all Rules
	for i, p := range b.ports {
		next := (i + 1) % len(b.ports)
		for _, c := range []Case{Cases("tcp", p, one)[i], Cases("udp", p, one)[next]} {
			b.t.Logf("port %d: %s: %v", p, c.Name, c.Rules)
			for _, r := range c.Allowed {
				b.must(f.Allow(b.t.Context(), b.host, r))
			}
			for _, r := range c.Denied {
				b.must(f.Deny(b.t.Context(), b.host, r))
			}
			all.Allowed, all.Denied = append(all.Allowed, c.Allowed...), append(all.Denied, c.Denied...)
		}
	}
	return all
}

// TestDraws: firewalls take what is drawn, and some of it lets in and some keeps out.
func TestDraws(t *testing.T) {
	draws := map[string]func(b *bed, seed int) error{
		"ufw": func(b *bed, seed int) error {
			commands := rapid.Custom(func(r *rapid.T) []string { return DrawUFW(r, b.outside()) }).Example(seed)
			b.t.Log(commands)
			return b.host.StartUFW(b.t.Context(), commands...)
		},
		"firewalld": func(b *bed, seed int) error {
			if err := resetFirewalld(b.t.Context(), b.host); err != nil {
				return err
			}
			for _, args := range rapid.Custom(func(r *rapid.T) [][]string { return DrawFirewalld(r, b.outside()) }).Example(seed) {
				b.t.Log(args)
				if err := firewallCmd(b.t.Context(), b.host, args...); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, f := range All() {
		draw, drawn := draws[f.Name]
		if !drawn {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, f, 1)
			b.must(f.Start(t.Context(), b.host))
			count := map[bool]int{}
			for seed := range 3 {
				b.must(draw(b, seed))
				for _, served := range b.verdicts() {
					count[served]++
				}
			}
			t.Logf("served %d times, not served %d times", count[true], count[false])
			if count[true] == 0 || count[false] == 0 {
				t.Error("all draws come to the same")
			}
		})
	}
}

// outside is the bed's clients, as draws know them.
func (b *bed) outside() Outside {
	o := Outside{Links: []string{"ext0", "ext1"}, Ports: []uint16{port}}
	for _, c := range b.clients {
		for _, p := range c.Addrs {
			o.Sources = append(o.Sources, p.Addr().String(), p.Masked().String())
		}
	}
	return o
}
