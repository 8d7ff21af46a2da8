//go:build engine

package hostfirewall

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge-net/drawbridge/test/environ"
)

// draws are how the front ends are set up anew with something drawn.
var draws = map[string]func(b *bed, seed int){
	"ufw": func(b *bed, seed int) {
		commands := rapid.Custom(func(r *rapid.T) []string { return DrawUFW(r, b.outside()) }).Example(seed)
		b.t.Logf("draw %d: %q", seed, commands)
		b.must(b.host.StartUFW(b.t.Context(), commands...))
	},
	"firewalld": func(b *bed, seed int) {
		b.must(resetFirewalld(b.t.Context(), b.host))
		for _, args := range rapid.Custom(func(r *rapid.T) [][]string { return DrawFirewalld(r, b.outside()) }).Example(seed) {
			b.t.Logf("draw %d: %q", seed, args)
			b.must(firewallCmd(b.t.Context(), b.host, args...))
		}
	},
}

// TestDraws: whatever is drawn, of zones, rich rules, sources, ranges, orders and defaults, a published port and an ordinary process on the same port
// of another of the host's addresses are one to the firewall.
//
// DRAWS is how many (3), DRAWS_SEED the number of the first: without it each run has others.
func TestDraws(t *testing.T) {
	count := environ.Number(t, "DRAWS", 1, 3)
	first := environ.Number(t, "DRAWS_SEED", 0, int(time.Now().Unix())%1_000_000)
	t.Logf("DRAWS_SEED=%d", first)
	for _, f := range All() {
		draw, drawn := draws[f.Name]
		if !drawn {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, f.Options, 1)
			b.must(f.Start(t.Context(), b.host))
			b.moreAddresses()
			p := b.publisher("nftables")
			p.publish("host", b.published(ofHost)...)
			p.publish("learned", b.published(ofLearned)...)
			b.listen(b.bound(ofProcess)...)
			outcomes := map[verdict]int{}
			for seed := first; seed < first+count; seed++ {
				draw(b, seed)
				verdicts := b.verdictsAt(ofProcess, ofHost, ofLearned)
				process := verdicts[ofProcess]
				for _, v := range process {
					outcomes[v]++
				}
				b.compare(fmt.Sprintf("draw %d, host", seed), verdicts[ofHost], process)
				b.compare(fmt.Sprintf("draw %d, learned", seed), verdicts[ofLearned], process)
				again := b.verdictsAt(ofLearned)
				b.compare(fmt.Sprintf("draw %d, learned, those who came before", seed), again[ofLearned], process)
			}
			t.Logf("of %d draws: %v", count, outcomes)
		})
	}
}

// Whose the host's addresses are: that is how far behind the link's own they are.
const (
	ofHost    = 0 // the container that is published as host
	ofLearned = 8
	ofProcess = 9
)

func behind(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// moreAddresses has the host's links have them.
func (b *bed) moreAddresses() {
	b.t.Helper()
	for _, c := range b.clients[1:] {
		for _, n := range []int{ofLearned, ofProcess} {
			for _, p := range c.Host.Addrs {
				_, err := b.host.Run(b.t.Context(), "ip", "addr", "add", netip.PrefixFrom(behind(p.Addr(), n), p.Bits()).String(), "dev", c.Host.Name, "nodad")
				b.must(err)
			}
		}
	}
}

// bound are the addresses of one kind, with the port.
func (b *bed) bound(n int) (out []string) {
	for _, c := range b.clients[1:] {
		for _, p := range c.Host.Addrs {
			out = append(out, netip.AddrPortFrom(behind(p.Addr(), n), port).String())
		}
	}
	return out
}

// published are they as docker run takes them in front of a port.
func (b *bed) published(n int) (out []string) {
	for _, a := range b.bound(n) {
		out = append(out, a[:len(a)-len(fmt.Sprint(port))])
	}
	return out
}

// verdictsAt are those at the addresses of some kinds, of each as if they were the links' own.
func (b *bed) verdictsAt(kinds ...int) map[int]map[question]verdict {
	type key struct {
		kind int
		own  question
	}
	var questions []question
	of := map[question]key{}
	out := map[int]map[question]verdict{}
	for _, n := range kinds {
		out[n] = map[question]verdict{}
		for _, q := range b.questions() {
			at := q
			at.to = netip.AddrPortFrom(behind(q.to.Addr(), n), q.to.Port())
			questions, of[at] = append(questions, at), key{n, q}
		}
	}
	for q, v := range b.askAll(questions) {
		out[of[q].kind][of[q].own] = v
	}
	return out
}
