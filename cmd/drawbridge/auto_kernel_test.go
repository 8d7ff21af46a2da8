//go:build kernel

package main

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHostFirewallIsHeard: a firewall that comes or goes is heard of within a second or so, and ports that go past it are warned of, once.
func TestHostFirewallIsHeard(t *testing.T) {
	const open = `mode=dnat reason="no firewall of the host is active"`
	h := furnished(t, "nftables", "--publish", "dnat")
	h.awaitLog(open, 1)
	for i, row := range []struct {
		on, off []string
		told    string
	}{
		{
			[]string{"nft", "add table inet guard; add chain inet guard in { type filter hook input priority 0; }; add rule inet guard in tcp dport 9 drop"},
			[]string{"nft", "delete table inet guard"},
			`mode=learned reason="chain in of table inet guard (nftables) has a rule that refuses"`,
		},
		{
			[]string{"ip6tables-nft", "-P", "INPUT", "DROP"},
			[]string{"ip6tables-nft", "-P", "INPUT", "ACCEPT"},
			`mode=learned reason="INPUT of ip6tables has policy DROP"`,
		},
		{
			[]string{"iptables-legacy", "-A", "INPUT", "-s", "192.0.2.1", "-j", "REJECT"},
			[]string{"iptables-legacy", "-F", "INPUT"},
			`mode=learned reason="iptables-legacy: INPUT has a rule that refuses"`,
		},
	} {
		h.output(row.on...)
		h.awaitLog(row.told, 1)
		h.awaitLog("past the host's firewall", 2) // IPv4 and IPv6, in the first row
		h.output(row.off...)
		h.awaitLog(open, 2+i)
	}
	if n := strings.Count(h.log.String(), "past the host's firewall"); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, h.log.String())
	}
	for _, port := range []string{"port=0.0.0.0:8080/tcp", "port=[::]:8080/tcp"} {
		if !strings.Contains(h.log.String(), port) {
			t.Errorf("no warning of %s:\n%s", port, h.log.String())
		}
	}
	h.stop(unix.SIGTERM)
}

// awaitLog waits until the daemon's log has a text so many times.
func (h *wholeHost) awaitLog(text string, times int) {
	h.t.Helper()
	for began := time.Now(); strings.Count(h.log.String(), text) < times; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			h.t.Fatalf("the log does not say %q %d times:\n%s", text, times, h.log.String())
		}
	}
}

// TestHostFirewallThatSeesEach: where INPUT counts or looks into packets, or the host routes by source, the firewall is asked about each
// connection for as long as that is so.
func TestHostFirewallThatSeesEach(t *testing.T) {
	const plain = `mode=learned reason="chain in of table inet guard (nftables) drops"`
	h := furnished(t, "nftables")
	h.output("nft", "add table inet guard; add chain inet guard in { type filter hook input priority 0; policy drop; }; add rule inet guard in tcp dport 8080 accept")
	h.awaitLog(plain, 1)
	passBy := func(what string) string {
		return "; INPUT counts or looks into packets (" + what + `), which learned clients would pass by"`
	}
	for i, row := range []struct {
		on, off []string
		told    string
	}{
		{
			[]string{"nft", "insert rule inet guard in tcp dport 8080 limit rate over 5/second drop"},
			[]string{"nft", "flush chain inet guard in"},
			`mode=host reason="chain in of table inet guard (nftables) drops` + passBy("limit"),
		},
		{
			[]string{"iptables-nft", "-A", "INPUT", "-p", "udp", "-m", "string", "--string", "forbidden", "--algo", "bm", "-j", "DROP"},
			[]string{"iptables-nft", "-F", "INPUT"},
			`mode=host reason="chain in of table inet guard (nftables) drops` + passBy("string"),
		},
		{
			[]string{"iptables-legacy", "-A", "INPUT", "-p", "udp", "-m", "u32", "--u32", "0&0xff=1", "-j", "DROP"},
			[]string{"iptables-legacy", "-F", "INPUT"},
			`mode=host reason="chain in of table inet guard (nftables) drops` + passBy("u32"),
		},
		{
			[]string{"ip", "rule", "add", "pref", "100", "from", "192.0.2.1", "lookup", "100"},
			[]string{"ip", "rule", "del", "pref", "100"},
			`mode=host reason="chain in of table inet guard (nftables) drops; a routing rule (100: from 192.0.2.1) does not hold for answers to learned clients"`,
		},
	} {
		h.output(row.on...)
		h.awaitLog(row.told, 1)
		h.output(row.off...)
		h.awaitLog(plain, 2+i)
	}
	h.stop(unix.SIGTERM)
}
