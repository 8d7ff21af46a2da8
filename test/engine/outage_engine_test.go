//go:build engine

package engine

import (
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// traffic is what a steady client of a published port does, and what a prober tries at the same time.
type traffic struct {
	b       *bed
	held    map[string]*outage.Stream
	fresh   map[string]*outage.Knocks
	forbade *outage.Knocks // what must be closed at all times
}

// traffic begins: held connections to one port, new ones to another, both of the host and in both families.
func (b *bed) traffic(held, fresh uint16, closed ...string) *traffic {
	b.t.Helper()
	tr := &traffic{b: b, held: map[string]*outage.Stream{}, fresh: map[string]*outage.Knocks{}}
	host := b.client.Host
	var err error
	for family, addr := range map[string]string{"IPv4": at(host.Addr4(), held), "IPv6": at(host.Addr6(), held)} {
		if tr.held[family], err = outage.Open(b.t.Context(), b.client, addr); err != nil {
			b.t.Fatal(err)
		}
	}
	for family, addr := range map[string]string{"IPv4": at(host.Addr4(), fresh), "IPv6": at(host.Addr6(), fresh)} {
		if tr.fresh[family], err = outage.Knock(b.t.Context(), b.client, 10*time.Millisecond, "tcp", addr); err != nil {
			b.t.Fatal(err)
		}
	}
	if tr.forbade, err = outage.Try(b.t.Context(), b.client, 20*time.Millisecond, "tcp", closed...); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(tr.close)
	tr.knocks(b.t, "before anything", time.Now())
	return tr
}

// knocks waits until everybody has tried something that began since a moment, and it came to its end.
func (tr *traffic) knocks(t *testing.T, what string, since time.Time) {
	t.Helper()
	for name, k := range map[string]*outage.Knocks{"IPv4": tr.fresh["IPv4"], "IPv6": tr.fresh["IPv6"], "what is closed": tr.forbade} {
		if err := k.Await(since, 1, 20*time.Second); err != nil {
			t.Errorf("%s: new connections, %s: %v", what, name, err)
		}
	}
}

func (tr *traffic) close() {
	for _, s := range tr.held {
		s.Close()
	}
	for _, k := range tr.fresh {
		k.Close()
	}
	tr.forbade.Close()
}

// during does something that goes wrong and comes right again, and prints what the client noticed. No connection may be
// cut, and what is closed stays so. It returns how many new connections were not let in.
func (tr *traffic) during(t *testing.T, what string, event func()) (lost int) {
	t.Helper()
	began := time.Now()
	event()
	happened := time.Since(began)
	for family, s := range tr.held {
		if err := s.GoesOn(20 * time.Second); err != nil {
			t.Errorf("%s: %s: %v", what, family, err)
		}
	}
	tr.knocks(t, what, began)
	to := time.Now()
	time.Sleep(outage.Patience) // until the last new connection is answered, or is not
	for _, family := range []string{"IPv4", "IPv6"} {
		sum := tr.fresh[family].Sum(began, to)
		lost += sum.Lost()
		t.Logf("%s (%v), %s: established silent for %v; %v", what, happened.Round(time.Millisecond), family,
			tr.held[family].Longest(began, to).Round(time.Millisecond), sum)
	}
	for _, r := range tr.forbade.Between(began, to) {
		if r.Outcome == "ok" {
			t.Fatalf("%s: %s was open %v later: %s answered", what, r.Addr, r.Began.Sub(began), r.Server)
		}
	}
	return lost
}

// TestOutage: what a client notices of restarts and reloads. Established connections lose nothing, whatever happens, and what is
// closed stays closed, also while the plugin is away, and while somebody has flushed all rules.
func TestOutage(t *testing.T) {
	b := up(t, options{alone: true, serve: translated, before: func(h *lab.Host) { startFirewalld(t, h) }, docker: []string{"--live-restore"}})
	b.network("web", "--ipv6")
	server := b.serveOn("web", "-p", "8080:80", "-p", "8081:81")
	closed := []string{at(b.addr(server, "web"), 80), at(b.addr6(server, "web"), 80), at(b.client.Host.Addr4(), 81), at(b.client.Host.Addr6(), 81)}
	tr := b.traffic(8080, 8081, closed...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	// Nobody but firewalld, which lets nobody in while it reloads, costs even one new connection.
	costsNobody := func(what string, event func()) {
		t.Helper()
		if lost := tr.during(t, what, event); lost > 0 {
			t.Errorf("%s: %d new connections failed", what, lost)
		}
	}
	for what, end := range map[string]func(*lab.Process) error{"SIGTERM": (*lab.Process).Stop, "SIGKILL": (*lab.Process).Kill} {
		costsNobody("the plugin is ended by "+what+" and started", func() {
			must(end(b.plugin))
			time.Sleep(time.Second) // the unit's RestartSec
			b.startPlugin()
		})
	}
	for _, reload := range []string{"--reload", "--complete-reload"} {
		tr.during(t, "firewall-cmd "+reload, func() { b.run("firewall-cmd", reload) })
	}
	tr.during(t, "nft flush ruleset", func() { b.run("nft", "flush", "ruleset") })
	tr.during(t, "nft flush ruleset while the plugin is away", func() {
		must(b.plugin.Kill())
		b.run("nft", "flush", "ruleset")
		time.Sleep(time.Second) // the unit's RestartSec
		b.startPlugin()
	})
	b.run(binary(t), "verify")
	costsNobody("dockerd is stopped and started", func() { must(b.docker.Restart(t.Context())) })
	costsNobody("dockerd is killed and started", func() {
		must(b.docker.Kill())
		must(b.docker.Start(t.Context()))
	})
}
