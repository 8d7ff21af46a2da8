//go:build engine

package hostfirewall

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

// publisher is a bed with the plugin and an engine, and a network for each of the modes that obey the host's firewall.
type publisher struct {
	*bed
	docker *lab.Docker
	daemon *lab.Process
}

// program is the program under test.
func program(t *testing.T) string {
	t.Helper()
	return environ.Program(t, "test-engine")
}

func (b *bed) publisher(backend string) *publisher {
	b.t.Helper()
	p := &publisher{bed: b}
	var err error
	p.daemon, err = b.host.Start("drawbridge", []string{program(b.t), "serve", "--firewall-backend", backend}, nil)
	b.must(err)
	p.docker, err = b.host.StartDocker(b.t.Context(), lab.DockerOptions{})
	b.must(err)
	_, err = p.docker.Image(b.t.Context())
	b.must(err)
	for _, mode := range []string{"host", "learned"} {
		_, err := p.docker.Run(b.t.Context(), "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6",
			"-o", "drawbridge.publish="+mode, network(mode))
		b.must(err)
	}
	return p
}

// network is the name of a mode's network. The engine has one named host already.
func network(mode string) string { return "by-" + mode }

// publish starts a container for each protocol that answers on ports of the host, at addresses, and returns what removes them.
// An address is with a colon behind it as docker run takes it, or empty for all.
func (p *publisher) publish(mode string, addresses ...string) (remove func()) {
	p.t.Helper()
	var all sync.WaitGroup
	for _, proto := range []string{"tcp", "udp"} {
		options := []string{"--network", network(mode), "--name", mode + "-" + proto}
		for _, port := range p.ports {
			for _, a := range addresses {
				options = append(options, "-p", fmt.Sprintf("%s%d:80/%s", a, port, proto))
			}
		}
		all.Go(func() {
			if _, err := p.docker.Serve(p.t.Context(), options, proto, ":80"); err != nil {
				p.t.Errorf("%v\n%s", err, p.daemon.Log())
			}
		})
	}
	all.Wait()
	if p.t.Failed() {
		p.t.FailNow()
	}
	return func() {
		_, err := p.docker.Run(p.t.Context(), "rm", "-f", mode+"-tcp", mode+"-udp")
		p.must(err)
	}
}

// TestMatrix: whatever front end made the host's rules, they mean the same for a published port as for an ordinary process on that port: who is
// let in and who is not, for all, by source and by link, tcp and udp, IPv4 and IPv6. Whoever answers sees the client's own address. And a rule that
// is made or taken back while clients come is in force for the next of them.
//
// MATRIX_EVERY=2 has each front end with one of our backends, from a first one that is drawn, or MATRIX_FROM.
func TestMatrix(t *testing.T) {
	backends := []string{"iptables", "nftables"}
	every := environ.Number(t, "MATRIX_EVERY", 1, 1)
	from := environ.Number(t, "MATRIX_FROM", 0, rand.IntN(every))
	t.Logf("MATRIX_EVERY=%d MATRIX_FROM=%d", every, from)
	for i, f := range All() {
		for j, backend := range backends {
			if (i+j+from)%every > 0 {
				continue
			}
			t.Run(f.Name+"/"+backend, func(t *testing.T) {
				t.Parallel()
				b := newBed(t, f.Options, len(Cases("tcp", port, nil)))
				b.must(f.Start(t.Context(), b.host))
				p := b.publisher(backend)
				b.must(f.Reset(t.Context(), b.host)) // the engine has had firewalld forget what is not permanent
				rules := b.makeCases(f)
				end := b.listen(b.everywhere()...)
				process := b.verdicts()
				b.obey("a process", process, rules)
				end()

				remove := p.publish("host", "")
				b.compare("host", b.verdicts(), process)
				maps.Copy(process, p.deny(f, b.ports[1], 0))
				remove()

				p.publish("learned", "")
				b.compare("learned", b.verdicts(), process)
				b.compare("learned, those who came before", b.verdicts(), process)
				p.translated(b.ports[5], backend == "nftables")
				p.deny(f, b.ports[5], heard(f))

				b.must(f.Reset(t.Context(), b.host))
				b.obey("all taken back", b.verdicts(), Rules{})
				again := Rules{Allowed: []Rule{{Proto: "tcp", Port: b.ports[0]}, {Proto: "udp", Port: b.ports[0]}}}
				b.apply(f, again)
				b.obey("allowed again", b.verdicts(), again)
			})
		}
	}
}

// heard bounds how long those are still served who came before a rule that denies it. The kernel tells nobody of rules of iptables-legacy: then it is as
// long as the firewall's word about a client is good for. Otherwise it is a moment, which may be longer on a machine that other tests keep busy.
func heard(f Frontend) time.Duration {
	if f.Name == "iptables-legacy" {
		return 10 * time.Second
	}
	return 5 * time.Second
}

// translated checks that client two comes to a port by DNAT when he comes again, or that he never does. He is known for ten seconds, which on
// a busy machine may be over before he does: so he comes twice in a row, and again.
func (p *publisher) translated(port uint16, want bool) {
	p.t.Helper()
	var wrong []string
	for range 5 {
		for range 2 {
			for _, q := range p.questionsOf(p.clients[1], "tcp", port) {
				if v := p.ask(q); v != served {
					p.t.Errorf("%v: %s", q, v)
				}
			}
		}
		if wrong = p.otherwise(port, want); len(wrong) == 0 {
			return
		}
	}
	for _, w := range wrong {
		p.t.Error(w)
	}
}

// otherwise says of each family in which client two, who has come before, comes to a port in the other way.
func (p *publisher) otherwise(port uint16, translated bool) (out []string) {
	p.t.Helper()
	for _, q := range p.questionsOf(p.clients[1], "tcp", port) {
		entries, err := p.host.Run(p.t.Context(), "conntrack", "-L", "-f", family(q.from), "-p", "tcp",
			"--orig-src", q.from.String(), "--orig-dst", q.to.Addr().String(), "--orig-port-dst", fmt.Sprint(q.to.Port()))
		p.must(err)
		// What is translated is answered by the container's port.
		if got := strings.Contains(entries, "sport=80 dport="); got != translated {
			out = append(out, fmt.Sprintf("%v: a connection of those was translated: %v, want %v:\n%s", q, got, translated, entries))
		}
	}
	return out
}

func family(a netip.Addr) string {
	if a.Is6() {
		return "ipv6"
	}
	return "ipv4"
}

// deny keeps everybody out of a port at which client two was served, over TCP. It returns the verdicts on it, after the time that the rule may take.
func (p *publisher) deny(f Frontend, port uint16, within time.Duration) map[question]verdict {
	p.t.Helper()
	p.must(f.Deny(p.t.Context(), p.host, Rule{Proto: "tcp", Port: port}))
	for _, q := range p.questionsOf(p.clients[1], "tcp", port) {
		p.closes(q, within)
	}
	var about []question
	for _, c := range p.clients {
		about = append(about, p.questionsOf(c, "tcp", port)...)
	}
	verdicts := p.askAll(about)
	p.obey("denied", verdicts, Rules{})
	return verdicts
}

// closes waits until a question is not answered any more.
func (p *publisher) closes(q question, within time.Duration) {
	p.t.Helper()
	for began := time.Now(); ; {
		asked := time.Since(began)
		// Long enough for an answer on a busy machine: one that is only late would pass for a refusal.
		_, err := lab.Get(p.t.Context(), q.client, lab.Request{Network: q.proto, Addr: q.to.String(), Timeout: 1500 * time.Millisecond})
		if err != nil {
			return
		}
		if asked >= within {
			p.t.Errorf("%v: served %v after a rule that denies it", q, asked)
			return
		}
	}
}
