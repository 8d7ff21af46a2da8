//go:build engine

package hostfirewall

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// port is that of the first case, and of draws.
const port = 8080

// patience is how long an answer may take, while dozens of clients ask at once, on a machine that other tests keep busy too.
const patience = 4 * time.Second

// bed is a host with clients: one and two come by ext0, three by ext1.
type bed struct {
	t       *testing.T
	host    *lab.Host
	clients []*lab.Client
	ports   []uint16
}

func newBed(t *testing.T, o lab.Options, ports int) *bed {
	t.Helper()
	b := &bed{t: t, host: lab.Up(t, o)}
	for _, c := range []struct{ name, uplink string }{{"one", "ext0"}, {"two", "ext0"}, {"three", "ext1"}} {
		client, err := b.host.AddClient(t.Context(), c.name, lab.ClientOptions{Uplink: c.uplink})
		b.must(err)
		b.clients = append(b.clients, client)
	}
	// A refusal by ICMP is for each who asks; the kernel would leave out those of a burst.
	_, err := b.host.Run(t.Context(), "sysctl", "-q", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_msgs_per_sec=1000000",
		"net.ipv4.icmp_msgs_burst=1000000", "net.ipv6.icmp.ratelimit=0")
	b.must(err)
	for i := range uint16(ports) {
		b.ports = append(b.ports, port+10*i)
	}
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// listen starts ordinary processes, one for each protocol, and returns what ends them.
func (b *bed) listen(addrs ...string) (end func()) {
	b.t.Helper()
	var all []*lab.Process
	for _, proto := range []string{"tcp", "udp"} {
		p, err := b.host.Serve(b.t.Context(), proto, addrs...)
		b.must(err)
		all = append(all, p)
	}
	return func() {
		for _, p := range all {
			b.must(p.Kill())
		}
	}
}

// everywhere are addresses to listen on for all of the bed's ports.
func (b *bed) everywhere() (addrs []string) {
	for _, p := range b.ports {
		addrs = append(addrs, fmt.Sprintf(":%d", p))
	}
	return addrs
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
func (b *bed) questions() (out []question) {
	for _, proto := range []string{"tcp", "udp"} {
		for _, c := range b.clients {
			for _, p := range b.ports {
				out = append(out, b.questionsOf(c, proto, p)...)
			}
		}
	}
	return out
}

// questionsOf are those of a client to a port in both families.
func (b *bed) questionsOf(c *lab.Client, proto string, port uint16) []question {
	return []question{
		{c, proto, c.Addr4(), netip.AddrPortFrom(c.Host.Addr4(), port)},
		{c, proto, c.Addr6(), netip.AddrPortFrom(c.Host.Addr6(), port)},
	}
}

// A verdict is what became of a question.
type verdict string

const (
	served      verdict = "served"
	refused     verdict = "refused"
	unreachable verdict = "unreachable"
	silence     verdict = "silence"
)

// ask asks one question, and checks that whoever answers saw the client's own address.
func (b *bed) ask(q question) verdict {
	reply, err := lab.Get(b.t.Context(), q.client, lab.Request{Network: q.proto, Addr: q.to.String(), Timeout: patience})
	switch {
	case err == nil:
		if reply.Peer.Addr().Unmap() != q.from {
			b.t.Errorf("%v: %s saw %v", q, reply.Server, reply.Peer)
		}
		return served
	case errors.Is(err, lab.ErrRefused):
		return refused
	case errors.Is(err, lab.ErrUnreachable):
		return unreachable
	case !errors.Is(err, lab.ErrTimeout):
		b.t.Errorf("%v: %v", q, err)
	}
	return silence
}

// askAll asks everything at once.
func (b *bed) askAll(questions []question) map[question]verdict {
	var all sync.WaitGroup
	var mu sync.Mutex
	out := map[question]verdict{}
	for _, q := range questions {
		all.Go(func() {
			v := b.ask(q)
			mu.Lock()
			defer mu.Unlock()
			out[q] = v
		})
	}
	all.Wait()
	return out
}

// verdicts are on all questions about the bed's ports.
func (b *bed) verdicts() map[question]verdict { return b.askAll(b.questions()) }

// compare reports each difference.
func (b *bed) compare(what string, got, want map[question]verdict) {
	b.t.Helper()
	for q, w := range want {
		if got[q] != w {
			b.t.Errorf("%s: %v: %s, want %s", what, q, got[q], w)
		}
	}
}

// obey reports who is served and should not be by the rules, and who should be and is not.
func (b *bed) obey(what string, got map[question]verdict, rules Rules) {
	b.t.Helper()
	for q, v := range got {
		if want := rules.Admits(q.proto, q.to.Port(), q.from, q.client.Host.Name); want != (v == served) {
			b.t.Errorf("%s: %v: %s, let in is %v", what, q, v, want)
		}
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
			b.apply(f, c.Rules)
			all.Allowed, all.Denied = append(all.Allowed, c.Allowed...), append(all.Denied, c.Denied...)
		}
	}
	return all
}

func (b *bed) apply(f Frontend, rules Rules) {
	b.t.Helper()
	for _, r := range rules.Allowed {
		b.must(f.Allow(b.t.Context(), b.host, r))
	}
	for _, r := range rules.Denied {
		b.must(f.Deny(b.t.Context(), b.host, r))
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
