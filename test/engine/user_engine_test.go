//go:build engine

package engine

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// TestUserRules runs the recipes of Docker's documentation, in both families, on both
// variants of iptables.
func TestUserRules(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := up(t, options{lab: lab.Options{IPTables: variant}})
			friend, err := b.AddClient(t.Context(), "friend", lab.ClientOptions{})
			if err != nil {
				t.Fatal(err)
			}
			b.network("web", "--ipv6")
			b.serveOn("web", "-p", "8080:80", "-p", "8081:81")
			families := []struct {
				tables       string
				friend, host string
				subnet       string
				friendRange  string
			}{
				{"iptables", friend.Addr4().String(), b.client.Host.Addr4().String(), "198.51.100.3/32", friend.Addr4().String() + "-" + friend.Addr4().String()},
				{"ip6tables", friend.Addr6().String(), "[" + b.client.Host.Addr6().String() + "]", "2001:db8:1::3/128", friend.Addr6().String() + "-" + friend.Addr6().String()},
			}
			for _, f := range families {
				// The recipes wait for the lock of legacy iptables, which the daemon may have.
				recipes := map[string][]string{
					"only one address":  {"-w", "-I", "DOCKER-USER", "-i", "ext0", "!", "-s", f.friend, "-j", "DROP"},
					"only one subnet":   {"-w", "-I", "DOCKER-USER", "-i", "ext0", "!", "-s", f.subnet, "-j", "DROP"},
					"only a range":      {"-w", "-I", "DOCKER-USER", "-i", "ext0", "-m", "iprange", "!", "--src-range", f.friendRange, "-j", "DROP"},
					"by published port": {"-w", "-t", "mangle", "-I", "DRAWBRIDGE-USER", "-i", "ext0", "-p", "tcp", "--dport", "8080", "!", "-s", f.friend, "-j", "DROP"},
				}
				for name, recipe := range recipes {
					t.Run(f.tables+" "+name, func(t *testing.T) {
						lab.Reaches(t, b.client, "tcp", f.host+":8080")
						b.run(f.tables, recipe...)
						lab.Dropped(t, b.client, "tcp", f.host+":8080")
						lab.Reaches(t, friend, "tcp", f.host+":8080")
						if strings.Contains(name, "port") {
							lab.Reaches(t, b.client, "tcp", f.host+":8081")
						}
						b.network("more") // a pass goes by
						lab.Dropped(t, b.client, "tcp", f.host+":8080")
						b.do("network", "rm", "more")
						b.run(f.tables, deleted(recipe)...)
						lab.Reaches(t, b.client, "tcp", f.host+":8080")
					})
				}
			}
		})
	}
}

// deleted turns an insertion into the deletion of the same rule.
func deleted(rule []string) []string {
	out := append([]string{}, rule...)
	for i, word := range out {
		if word == "-I" {
			out[i] = "-D"
		}
	}
	return out
}

// TestUserChainsAreKept: rules of the user survive the whole life of our networks, and chains that
// were there are not made again.
func TestUserChainsAreKept(t *testing.T) {
	b := up(t, options{
		docker: []string{"--iptables=false"},
		before: func(h *lab.Host) {
			for _, rule := range []string{"-N DOCKER-USER", "-A DOCKER-USER -s 192.0.2.66 -j DROP", "-A DOCKER-USER -j RETURN"} {
				if _, err := h.Run(t.Context(), "iptables", strings.Fields(rule)...); err != nil {
					t.Fatal(err)
				}
			}
		},
	})
	list := func(tables string, args ...string) string { return b.run(tables, args...) }
	before := list("iptables", "-S", "DOCKER-USER")
	b.network("web", "--ipv6")
	if got := list("iptables", "-S", "FORWARD"); !strings.Contains(got, "-A FORWARD -j DOCKER-USER") {
		t.Errorf("no jump to DOCKER-USER:\n%s", got)
	}
	if got := list("ip6tables", "-S", "FORWARD"); !strings.Contains(got, "-A FORWARD -j DOCKER-USER") {
		t.Errorf("no jump to DOCKER-USER in IPv6:\n%s", got)
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		b.run(tables, "-t", "mangle", "-A", "DRAWBRIDGE-USER", "-p", "tcp", "--dport", "9", "-j", "DROP")
	}
	b.serveOn("web", "-p", "8080:80")
	if after := list("iptables", "-S", "DOCKER-USER"); after != before {
		t.Errorf("DOCKER-USER was\n%s, is\n%s", before, after)
	}
	b.do("rm", "-f", b.do("ps", "-q"))
	b.do("network", "rm", "web")
	if after := list("iptables", "-S", "DOCKER-USER"); after != before {
		t.Errorf("DOCKER-USER was\n%s, is\n%s", before, after)
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		if got := list(tables, "-t", "mangle", "-S", "DRAWBRIDGE-USER"); !strings.Contains(got, "--dport 9") {
			t.Errorf("%s: the rule in DRAWBRIDGE-USER is gone:\n%s", tables, got)
		}
	}
}

// TestNoIPTables: --iptables=false changes no rule, and ports are served all the same.
func TestNoIPTables(t *testing.T) {
	b := up(t, options{serve: []string{"--iptables=false"}})
	before, err := b.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sets := b.run("ipset", "list", "-n")
	b.network("web", "--ipv6")
	c := b.serveOn("web", "-p", "8080:80")
	after, err := b.Rules(t.Context())
	if err != nil || after != before || b.run("ipset", "list", "-n") != sets {
		t.Errorf("rules changed: %v\nbefore\n%s\nafter\n%s", err, before, after)
	}
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	lab.Reaches(t, b.Host, "tcp", "127.0.0.1:8080")
	b.do("rm", "-f", c.Name)
	b.do("network", "rm", "web")
}
