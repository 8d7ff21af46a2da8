//go:build engine

package engine

import (
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// table is our table of nftables as nft lists it, "" if there is none.
func (b *bed) table() string {
	b.t.Helper()
	all, err := b.NFTables(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	_, ours, _ := strings.Cut(all, "table inet drawbridge {")
	return ours
}

// TestChangeOfBackend: the next start may have another backend. Containers stay reachable, and of the one before
// nothing is left.
func TestChangeOfBackend(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			b := up(t, options{lab: lab.Options{IPTables: variant}})
			b.network("web")
			c := b.serveOn("web", "-p", "8080:80")
			published, direct := at(b.client.Host.Addr4(), 8080), at(b.addr(c, "web"), 80)
			steps := []struct{ flag, reason, want string }{
				{"nftables", "--firewall-backend says so", "nftables"},
				{"iptables", "--firewall-backend says so", "iptables"},
				{"auto", "Docker's chains are in iptables", "iptables"},
				{"nftables", "--firewall-backend says so", "nftables"},
				{"auto", "the rules of an earlier run are in nftables", "nftables"},
			}
			for _, step := range steps {
				if err := b.plugin.Stop(); err != nil {
					t.Fatal(err)
				}
				b.serve = []string{"--firewall-backend", step.flag}
				b.startPlugin()
				lab.Reaches(t, b.client, "tcp", published)
				lab.Blocked(t, b.client, "tcp", direct)
				if log := b.plugin.Log(); !strings.Contains(log, step.reason) {
					t.Errorf("%s: the log does not say %q:\n%s", step.flag, step.reason, log)
				}
				if status := b.run(binary(t), "status"); !strings.Contains(status, step.want) {
					t.Errorf("%s: status does not say %q:\n%s", step.flag, step.want, status)
				}
				b.onlyBackend(step.want)
			}
			b.do("rm", "-f", c.Name)
			b.do("network", "rm", "web")
			b.nothingLeft()
		})
	}
}

// onlyBackend checks that the one backend's rules are on the host, and none of the other's.
func (b *bed) onlyBackend(name string) {
	b.t.Helper()
	rules, err := b.Rules(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	table, inIPTables := b.table() != "", strings.Contains(rules, "DRAWBRIDGE-DNAT")
	if sets := strings.Contains(b.run("ipset", "list", "-n"), "DRAWBRIDGE"); sets != inIPTables {
		b.t.Errorf("%s: sets %v, rules %v", name, sets, inIPTables)
	}
	if table != (name == "nftables") || inIPTables != (name == "iptables") {
		b.t.Errorf("%s: a table of nftables %v, rules of iptables %v", name, table, inIPTables)
	}
}
