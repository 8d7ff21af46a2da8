package hostfw

import (
	"strings"
	"testing"
)

func TestSave(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		why         string
	}{
		{"nothing", "", ""},
		{"policy", ":INPUT DROP [0:0]", "iptables-legacy: INPUT has policy DROP"},
		{"policy of FORWARD", ":FORWARD DROP [0:0]", ""},
		{"DROP", "-A INPUT -s 192.0.2.1/32 -j DROP", "iptables-legacy: INPUT has a rule that refuses"},
		{"REJECT", "-A INPUT -j REJECT --reject-with icmp-port-unreachable", "iptables-legacy: INPUT has a rule that refuses"},
		{"unknown", "-A INPUT -j TARPIT --tarpit", "iptables-legacy: INPUT has a rule that refuses"},
		{"a chain with the name of a target", ":LOG - [0:0]\n-A INPUT -j LOG\n-A LOG -j DROP", "iptables-legacy: INPUT leads to LOG, which has a rule that refuses"},
		{"jump", ":one - [0:0]\n-A INPUT -j one\n-A one -j DROP", "iptables-legacy: INPUT leads to one, which has a rule that refuses"},
		{"goto", ":one - [0:0]\n-A INPUT -g one\n-A one -j DROP", "iptables-legacy: INPUT leads to one, which has a rule that refuses"},
		{"comment", `-A INPUT -m comment --comment "x -j ACCEPT" -j DROP`, "iptables-legacy: INPUT has a rule that refuses"},
		{"comment only", `-A INPUT -m comment --comment "x -j DROP" -j ACCEPT`, ""},
		{"the target's own words", `-A INPUT -j LOG --log-prefix "-j DROP"`, ""},
		{"no target", "-A INPUT -p tcp", ""},
		{"invalid", "-A INPUT -m conntrack --ctstate INVALID -j DROP\n-A INPUT -p udp -m state --state INVALID -j DROP", ""},
		{"invalid, to a chain", ":one - [0:0]\n-A INPUT -m conntrack --ctstate INVALID -j one\n-A one -j DROP", ""},
		{"not invalid", "-A INPUT -m conntrack ! --ctstate INVALID -j DROP", "iptables-legacy: INPUT has a rule that refuses"},
		{"invalid and more", "-A INPUT -m conntrack --ctstate INVALID,NEW -j DROP", "iptables-legacy: INPUT has a rule that refuses"},
		{"invalid as a comment", `-A INPUT -m comment --comment "--ctstate INVALID" -j DROP`, "iptables-legacy: INPUT has a rule that refuses"},
		{"ufw", ":ufw-before-input - [0:0]\n-A INPUT -j ufw-before-input\n-A ufw-before-input -j DROP", "ufw is active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "# Generated\n*filter\n:INPUT ACCEPT [12:34]\n:FORWARD ACCEPT [0:0]\n" + tt.rules + "\nCOMMIT\n"
			saved := parseSave(text, iptablesLabel("iptables-legacy: ", "", "filter"))
			if got, want := judge([]table{saved}), (Finding{tt.why != "", tt.why}); got != want {
				t.Errorf("judged %+v, want %+v", got, want)
			}
		})
	}
}

// FuzzSave: whatever is printed is read, and a chain that ends in DROP is not overlooked.
func FuzzSave(f *testing.F) {
	f.Add(":one - [0:0]\n-A INPUT -j one\n-A one -j DROP")
	f.Add(`-A "`)
	f.Add("-A INPUT -j\n-A\n:")
	f.Fuzz(func(t *testing.T, rules string) {
		if strings.Contains(rules, ":INPUT") || strings.Contains(rules, "*") {
			t.Skip("another chain of that name")
		}
		text := ":INPUT ACCEPT [0:0]\n" + rules + "\n-A INPUT -j DROP\n"
		if found := judge([]table{parseSave(text, label{})}); !found.Active {
			t.Errorf("nothing is found in %q", text)
		}
	})
}
