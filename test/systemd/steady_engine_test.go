//go:build engine

package systemd

import (
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
	"github.com/drawbridge-net/drawbridge/test/outage"
)

// steady are clients that never pause: some have connections and sessions that last, others come anew all the time.
type steady struct {
	b     *bed
	held  map[string]*outage.Stream // by protocol and address
	fresh map[string]*outage.Knocks // by protocol
	began time.Time                 // of what is looked at: all that lasts was there
}

// pause is that between two new clients of an address. There are many addresses, and the machine may be slow.
const pause = 50 * time.Millisecond

// steady begins with clients of all addresses, by their protocol.
func (b *bed) steady(addrs map[string][]string) *steady {
	b.t.Helper()
	s := &steady{b: b, held: map[string]*outage.Stream{}, fresh: map[string]*outage.Knocks{}}
	for network, addrs := range addrs {
		for _, addr := range addrs {
			s.hold(network, b.client, addr)
		}
		k, err := outage.Knock(b.t.Context(), b.client, pause, network, addrs...)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(k.Close)
		s.fresh[network] = k
	}
	s.goOn("before anything")
	return s
}

// hold opens a connection, or a session of UDP, that lasts.
func (s *steady) hold(network string, from lab.Place, addr string) {
	s.b.t.Helper()
	open := outage.Open
	if network == "udp" {
		open = outage.OpenUDP
	}
	held, err := open(s.b.t.Context(), from, addr)
	if err != nil {
		s.b.t.Fatal(err)
	}
	s.b.t.Cleanup(held.Close)
	s.held[network+" "+addr] = held
	s.began = time.Now()
}

// goOn checks that all that lasts is answered now, by the server and seen from the address that it was always, and waits for new clients.
func (s *steady) goOn(when string) {
	s.b.t.Helper()
	since := time.Now()
	for name, held := range s.held {
		if err := held.GoesOn(30 * time.Second); err != nil {
			s.b.t.Errorf("%s, %s: %v", when, name, err)
		}
		if said := held.Said(); len(said) != 1 {
			s.b.t.Errorf("%s, %s: another server, or another source address: %q", when, name, said)
		}
	}
	for network, k := range s.fresh {
		if err := k.Await(since, len(s.held), 20*time.Second); err != nil {
			s.b.t.Errorf("%s, new clients by %s: %v", when, network, err)
		}
	}
}

// lapse is within what time links may stop, one after the other.
const lapse = 500 * time.Millisecond

// unnoticed checks that all that lasts goes on, and that nobody who came anew since the beginning, or since the last call, was turned away.
// Where links may stop once, what was sent within that lapse may be lost; it is not refused.
func (s *steady) unnoticed(t *testing.T, what string, mayStop bool) {
	t.Helper()
	s.goOn(what)
	began, ended := s.began, time.Now()
	time.Sleep(outage.Patience) // for the answers to what was asked until then
	var stopped time.Time
	for network, k := range s.fresh {
		t.Logf("%s, in %v by %s: %v", what, ended.Sub(began).Round(time.Millisecond), network, k.Sum(began, ended))
		for _, r := range k.Between(began, ended) {
			if r.Outcome == "ok" {
				continue
			}
			if stopped.IsZero() {
				stopped = r.Began
			}
			if !mayStop || r.Outcome != "timeout" || r.Began.Sub(stopped).Abs() > lapse {
				t.Errorf("%s: a new client: %s by %s to %s after %v, in %v", what, r.Outcome, network, r.Addr, r.Began.Sub(began).Round(time.Millisecond), r.Took.Round(time.Millisecond))
			}
		}
	}
	for name, held := range s.held {
		t.Logf("%s: longest wait of the old %s: %v", what, name, held.Longest(began, ended).Round(time.Millisecond))
	}
	s.began = ended
}
