package hostfirewall

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// A Frontend is a way to guard a host.
type Frontend struct {
	Name string
	// Options are those of a lab in which it works; those of a root and the like may be added.
	Options lab.Options
	// Start lets nothing new in from outside, but what a host cannot do without.
	Start func(ctx context.Context, h *lab.Host) error
	// Allow lets in what a rule covers.
	Allow func(ctx context.Context, h *lab.Host, r Rule) error
	// Deny keeps it out, whatever was or will be allowed.
	Deny func(ctx context.Context, h *lab.Host, r Rule) error
	// Reset forgets what was allowed and denied.
	Reset func(ctx context.Context, h *lab.Host) error
	// Stop lets everybody in.
	Stop func(ctx context.Context, h *lab.Host) error
}

// All returns every one.
func All() []Frontend {
	return []Frontend{
		{"ufw", lab.Options{}, startUFW, allowUFW, denyUFW, startUFW, stopUFW},
		{"firewalld", lab.Options{}, startFirewalld, allowFirewalld, denyFirewalld, resetFirewalld, stopFirewalld},
		{"iptables-nft", lab.Options{IPTables: "nft"}, startIPTables, allowIPTables, denyIPTables, startIPTables, stopIPTables},
		{"iptables-legacy", lab.Options{IPTables: "legacy"}, startIPTables, allowIPTables, denyIPTables, startIPTables, stopIPTables},
		{"nftables", lab.Options{}, startNFT, allowNFT, denyNFT, startNFT, stopNFT},
	}
}

func startUFW(ctx context.Context, h *lab.Host) error { return h.StartUFW(ctx) }

func stopUFW(ctx context.Context, h *lab.Host) error { return h.UFW(ctx, "disable") }

func allowUFW(ctx context.Context, h *lab.Host, r Rule) error { return h.UFW(ctx, "allow"+ufwWords(r)) }

// denyUFW takes the same rule that allows away first, if it is there: where one is, ufw puts none in front.
func denyUFW(ctx context.Context, h *lab.Host, r Rule) error {
	return errors.Join(h.UFW(ctx, "delete allow"+ufwWords(r)), h.UFW(ctx, "prepend deny"+ufwWords(r)))
}

// ufwWords are the words of a rule behind what it does.
func ufwWords(r Rule) string {
	words := ""
	if r.Link != "" {
		words += " in on " + r.Link
	}
	from := "any"
	if r.From.IsValid() {
		from = r.From.String()
	}
	return words + " from " + from + " to any port " + r.port() + " proto " + r.Proto
}

// zones are those into which firewalld has the host's links, by their names. Neither lets more in than the other.
var zones = map[string]string{"ext0": "public", "ext1": "work"}

func startFirewalld(ctx context.Context, h *lab.Host) error {
	if _, err := h.StartDBus(ctx); err != nil {
		return err
	}
	if _, err := h.StartFirewalld(ctx); err != nil {
		return err
	}
	return bindLinks(ctx, h)
}

func bindLinks(ctx context.Context, h *lab.Host) error {
	for link, zone := range zones {
		if err := firewallCmd(ctx, h, "--zone="+zone, "--change-interface="+link); err != nil {
			return err
		}
	}
	return nil
}

func resetFirewalld(ctx context.Context, h *lab.Host) error {
	return errors.Join(firewallCmd(ctx, h, "--reload"), bindLinks(ctx, h))
}

func stopFirewalld(_ context.Context, h *lab.Host) error { return h.StopFirewalld() }

func allowFirewalld(ctx context.Context, h *lab.Host, r Rule) error {
	if r.From.IsValid() {
		return inZones(ctx, h, r, "--add-rich-rule="+richRule(r, "", "accept"))
	}
	return inZones(ctx, h, r, "--add-port="+r.port()+"/"+r.Proto)
}

func denyFirewalld(ctx context.Context, h *lab.Host, r Rule) error {
	return inZones(ctx, h, r, "--add-rich-rule="+richRule(r, " priority=-10", "drop"))
}

func inZones(ctx context.Context, h *lab.Host, r Rule, command string) error {
	for link, zone := range zones {
		if r.Link != "" && r.Link != link {
			continue
		}
		if err := firewallCmd(ctx, h, "--zone="+zone, command); err != nil {
			return err
		}
	}
	return nil
}

func richRule(r Rule, priority, verdict string) string {
	family, source := "", ""
	if r.From.IsValid() {
		family, source = " family=ipv4", " source address="+r.From.String()
		if r.From.Addr().Is6() {
			family = " family=ipv6"
		}
	}
	return fmt.Sprintf("rule%s%s%s port port=%d protocol=%s %s", family, priority, source, r.Port, r.Proto, verdict)
}

func firewallCmd(ctx context.Context, h *lab.Host, args ...string) error {
	_, err := h.Run(ctx, "firewall-cmd", args...)
	return err
}

// programs are those of iptables, by whether they are for IPv6.
var programs = map[bool]string{false: "iptables", true: "ip6tables"}

// startIPTables makes the INPUT chain anew, in the lab's variant.
func startIPTables(ctx context.Context, h *lab.Host) error {
	for v6, icmp := range map[bool]string{false: "icmp", true: "ipv6-icmp"} {
		err := iptables(ctx, h, v6, "-P INPUT DROP", "-F INPUT", "-A INPUT -i lo -j ACCEPT",
			"-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -p "+icmp+" -j ACCEPT")
		if err != nil {
			return err
		}
	}
	return nil
}

func stopIPTables(ctx context.Context, h *lab.Host) error {
	stop := []string{"-P INPUT ACCEPT", "-F INPUT"}
	return errors.Join(iptables(ctx, h, false, stop...), iptables(ctx, h, true, stop...))
}

func iptables(ctx context.Context, h *lab.Host, v6 bool, commands ...string) error {
	for _, c := range commands {
		if _, err := h.Run(ctx, programs[v6], strings.Fields("-w "+c)...); err != nil {
			return err
		}
	}
	return nil
}

func allowIPTables(ctx context.Context, h *lab.Host, r Rule) error {
	return addIPTables(ctx, h, r, "-A", "ACCEPT")
}

func denyIPTables(ctx context.Context, h *lab.Host, r Rule) error {
	return addIPTables(ctx, h, r, "-I", "DROP")
}

func addIPTables(ctx context.Context, h *lab.Host, r Rule, how, target string) error {
	command := how + " INPUT -p " + r.Proto + " --dport " + r.port() + " -j " + target
	if r.Link != "" {
		command += " -i " + r.Link
	}
	if r.From.IsValid() {
		command += " -s " + r.From.String()
	}
	for _, v6 := range r.families() {
		if err := iptables(ctx, h, v6, command); err != nil {
			return err
		}
	}
	return nil
}

// startNFT makes the table anew.
func startNFT(ctx context.Context, h *lab.Host) error {
	return nft(ctx, h, `table inet filter
delete table inet filter
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname lo accept
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
	}
}`)
}

func stopNFT(ctx context.Context, h *lab.Host) error { return nft(ctx, h, "delete table inet filter") }

func allowNFT(ctx context.Context, h *lab.Host, r Rule) error {
	return nft(ctx, h, "add rule inet filter input "+nftWords(r)+" accept")
}

func denyNFT(ctx context.Context, h *lab.Host, r Rule) error {
	return nft(ctx, h, "insert rule inet filter input "+nftWords(r)+" drop")
}

func nftWords(r Rule) string {
	words := r.Proto + " dport " + r.port()
	if r.Link != "" {
		words = "iifname " + r.Link + " " + words
	}
	if !r.From.IsValid() {
		return words
	}
	family := "ip"
	if r.From.Addr().Is6() {
		family = "ip6"
	}
	return family + " saddr " + r.From.String() + " " + words
}

func nft(ctx context.Context, h *lab.Host, script string) error {
	cmd := h.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s in:\n%s", err, out, script)
	}
	return nil
}
