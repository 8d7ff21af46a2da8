//go:build engine

package hostfirewall

import (
	"strings"
	"testing"
	"time"
)

// TestAutoSeesEach: where nobody says how clients come to ports, those who come again are translated, until what INPUT decides depends on more than who
// they are, or answers are routed by their source. Then the host is asked about each, for as long as that is so.
func TestAutoSeesEach(t *testing.T) {
	changes := map[string][]struct {
		name    string
		on, off string
	}{
		"ufw": {{"ufw limit", "ufw limit 22/tcp", "ufw delete limit 22/tcp"}},
		"iptables-nft": {
			{"content", "iptables -I INPUT -p tcp -m string --string forbidden --algo bm -j DROP", "iptables -D INPUT 1"},
			{"routing by source", "ip rule add pref 100 from 203.0.113.1 lookup main", "ip rule del pref 100"},
		},
		"nftables": {{"limit", "nft insert rule inet filter input tcp dport 22 limit rate over 9/second drop", "nft delete rule inet filter input handle %"}},
	}
	for _, f := range All() {
		if changes[f.Name] == nil {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, f.Options, 1)
			b.must(f.Start(t.Context(), b.host))
			p := b.publisher("nftables")
			_, err := p.docker.Run(t.Context(), "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--ipv6", network("auto"))
			b.must(err)
			p.publish("auto", "")
			b.must(f.Allow(t.Context(), b.host, Rule{Proto: "tcp", Port: port}))
			// comes has client two come twice, and says where that was in another way than it should.
			comes := func(mode string) []string {
				t.Helper()
				_, err := b.host.Run(t.Context(), "conntrack", "-F")
				b.must(err)
				for range 2 {
					for _, q := range p.questionsOf(p.clients[1], "tcp", port) {
						if v := p.ask(q); v != served {
							t.Errorf("%v: %s", q, v)
						}
					}
				}
				return p.otherwise(port, mode == "learned")
			}
			means := func(mode string) {
				t.Helper()
				for began := time.Now(); !strings.HasSuffix(p.meaning(), mode); time.Sleep(50 * time.Millisecond) {
					if time.Since(began) > 30*time.Second {
						t.Fatalf("auto does not mean %s:\n%s", mode, p.daemon.Log())
					}
				}
				// The rules are so a moment after it was said, and who is served is learned of a moment after that.
				for began := time.Now(); len(comes(mode)) > 0 && time.Since(began) < 10*time.Second; time.Sleep(200 * time.Millisecond) {
				}
				for _, wrong := range comes(mode) { // and from then on always
					t.Error(wrong)
				}
			}
			means("learned")
			for _, c := range changes[f.Name] {
				t.Log(c.name)
				b.run(c.on)
				means("host")
				b.run(b.withHandle(c.off))
				means("learned")
			}
		})
	}
}

// meaning ends with what the daemon said last that auto means.
func (p *publisher) meaning() string {
	log := p.daemon.Log()
	mode, _, _ := strings.Cut(log[max(0, strings.LastIndex(log, "what the way auto to published ports means")):], " reason=")
	return mode
}

func (b *bed) run(line string) string {
	b.t.Helper()
	words := strings.Fields(line)
	out, err := b.host.Run(b.t.Context(), words[0], words[1:]...)
	b.must(err)
	return out
}

// withHandle puts the number of the first rule that limits in place of %.
func (b *bed) withHandle(line string) string {
	if !strings.Contains(line, "%") {
		return line
	}
	for rule := range strings.Lines(b.run("nft -a list chain inet filter input")) {
		if _, handle, ok := strings.Cut(rule, "# handle "); ok && strings.Contains(rule, "limit") {
			return strings.Replace(line, "%", strings.TrimSpace(handle), 1)
		}
	}
	b.t.Fatal("no rule limits")
	return ""
}
