//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestUserRulesOfSockets: the recipes of Docker's documentation decide also about ports that sockets of the host serve, in the modes host
// and learned: rules that are added count for the next connection, a moment later, and so do those that go.
func TestUserRulesOfSockets(t *testing.T) {
	b := up(t, options{})
	friend, err := b.AddClient(t.Context(), "friend", lab.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{"host": "8080", "learned": "8081"}
	for mode, port := range ports {
		b.network("by-"+mode, "--ipv6", "-o", "drawbridge.publish="+mode)
		b.serveOn("by-"+mode, "-p", port+":80")
	}
	for _, f := range []struct{ tables, friend, host string }{
		{"iptables", friend.Addr4().String(), b.client.Host.Addr4().String()},
		{"ip6tables", friend.Addr6().String(), "[" + b.client.Host.Addr6().String() + "]"},
	} {
		for name, recipe := range map[string]string{
			"only one address": "-i ext0 ! -s " + f.friend + " -j DROP",
			"only a range":     "-i ext0 -m iprange ! --src-range " + f.friend + "-" + f.friend + " -j DROP",
			"by its own port":  "-i ext0 -p tcp --dport 80 ! -s " + f.friend + " -j DROP",
			"only new ones":    "-i ext0 ! -s " + f.friend + " -m conntrack --ctstate NEW -j REJECT",
		} {
			t.Run(f.tables+" "+name, func(t *testing.T) {
				for _, port := range ports {
					lab.Reaches(t, b.client, "tcp", f.host+":"+port)
				}
				rule := append([]string{"-I", "DOCKER-USER"}, strings.Fields(recipe)...)
				b.run(f.tables, rule...)
				for mode, port := range ports {
					b.unserved(t, b.client, f.host+":"+port, mode)
					for range 3 { // and the way of who was let in before
						if reply := lab.Reaches(t, friend, "tcp", f.host+":"+port); reply.Peer.Addr().Unmap().String() != f.friend {
							t.Errorf("%s: the container sees %s, the client is %s", mode, reply.Peer, f.friend)
						}
					}
				}
				b.replaced(t, f.tables, rule, f.host, ports)
				b.run(f.tables, deleted(rule)...)
				for _, port := range ports {
					lab.Eventually(t, b.client, "tcp", f.host+":"+port)
				}
			})
		}
	}
	t.Run("while the daemon is away", func(t *testing.T) {
		rule := strings.Fields("-I DOCKER-USER -i ext0 ! -s " + friend.Addr4().String() + " -j DROP")
		b.run("iptables", rule...)
		for _, port := range ports {
			b.unserved(t, b.client, b.client.Host.Addr4().String()+":"+port, "heard of")
		}
		if err := b.plugin.Kill(); err != nil {
			t.Fatal(err)
		}
		for mode, port := range ports {
			b.unserved(t, b.client, b.client.Host.Addr4().String()+":"+port, mode)
			lab.Reaches(t, friend, "tcp", b.client.Host.Addr4().String()+":"+port)
		}
		b.startPlugin()
		b.run("iptables", deleted(rule)...)
		for _, port := range ports {
			lab.Eventually(t, b.client, "tcp", b.client.Host.Addr4().String()+":"+port)
		}
	})
}

// replaced takes the only rule away and puts it back, as a program does that writes all of its rules anew. Nobody has to hear of the new one:
// it counts at once.
func (b *bed) replaced(t *testing.T, tables string, rule []string, host string, ports map[string]string) {
	t.Helper()
	b.run(tables, deleted(rule)...)
	time.Sleep(time.Second) // in which the daemon hears that there is none
	b.run(tables, rule...)
	for mode, port := range ports {
		if _, err := lab.Get(t.Context(), b.client, lab.Request{Network: "tcp", Addr: host + ":" + port, Timeout: lab.PassTimeout}); err == nil {
			t.Errorf("%s: %s:%s is served right after DOCKER-USER's rule was replaced", mode, host, port)
		}
	}
}

// unserved waits until a client is not served any more, for as long as it may take the daemon to hear of a rule, and wants it to stay so.
func (b *bed) unserved(t *testing.T, from lab.Place, addr, what string) {
	t.Helper()
	const heard, looks = 10 * time.Second, 3 // on a machine that other tests keep busy; the comparison comes every 30 seconds
	began := time.Now()
	for since := 0; since < looks; {
		// Who is not served is told at once. An answer that is only late would pass for that.
		_, err := lab.Get(t.Context(), from, lab.Request{Network: "tcp", Addr: addr, Timeout: lab.PassTimeout})
		switch {
		case err != nil:
			since++
		case time.Since(began) > heard || since > 0:
			t.Errorf("%s: %s is served against DOCKER-USER, %v after the rule was made", what, addr, time.Since(began).Round(time.Millisecond))
			return
		}
	}
}
