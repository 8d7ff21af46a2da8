//go:build vm

package vm

import (
	_ "embed"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//go:embed missing.sh
var missingScript string

// TestMissing: a kernel that lacks a module. Who makes a network is told which, or it is done without and drawbridge status says what for.
func TestMissing(t *testing.T) {
	const (
		nowhere = "the kernel or iptables lacks %s, which our rules need"
		unseen  = "containers see the bridge's address in place of their clients'"
		unasked = "at ports in the modes host and learned nobody is served"
	)
	cases := []struct {
		backend, mode, module string
		refused               string // how the network is
		note                  string // in the status, where it is made
	}{
		{"nftables", "learned", "nf_tables", "the kernel lacks nf_tables for nftables", ""},
		{"nftables", "learned", "nft_ct", "the kernel lacks nft_ct for nftables", ""},
		{"nftables", "learned", "nft_fib", "the kernel lacks nft_fib_inet for nftables", ""},
		{"nftables", "learned", "nft_masq", "the kernel lacks nft_masq for nftables", ""},
		{"nftables", "learned", "nft_socket", "", unseen},
		{"nftables", "learned", "nft_log", "", unasked},
		{"iptables", "host", "ip_set", fmt.Sprintf(nowhere, "ip_set"), ""},
		{"iptables", "host", "ip_set_hash_ipportnet", fmt.Sprintf(nowhere, "ip_set_hash_ipportnet"), ""},
		{"iptables", "host", "xt_MASQUERADE", fmt.Sprintf(nowhere, "xt_MASQUERADE"), ""},
		{"iptables", "host", "xt_socket", "", unseen},
		{"auto", "host", "nft_fib", "", ""}, // by iptables
	}
	m := newMachine(t)
	var list strings.Builder
	name := func(i int) string { return fmt.Sprintf("%02d-%s-%s", i, cases[i].backend, cases[i].module) }
	for i, c := range cases {
		fmt.Fprintln(&list, name(i), c.backend, c.mode, c.module)
	}
	m.write("cases", list.String())
	m.boot(missingScript, 15*time.Minute)
	for i, c := range cases {
		t.Run(name(i), func(t *testing.T) {
			said := func(what string) string { return m.read(filepath.Join(name(i), what)) }
			made, status := said("create"), said("status")
			switch {
			case c.refused != "" && !strings.Contains(made, c.refused):
				t.Errorf("the network: %s\n%s", made, said("log"))
			case c.refused == "" && (strings.TrimSpace(made) != "{}" || strings.TrimSpace(said("publish")) != "{}"):
				t.Errorf("the network: %s, the port: %s\n%s", made, said("publish"), said("log"))
			case !strings.Contains(status, c.note) || c.note == "" && strings.Contains(status, "the host lacks"):
				t.Errorf("the status:\n%s", status)
			}
		})
	}
}
