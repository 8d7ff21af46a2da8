//go:build engine

package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// healTime bounds how long the host may stay as somebody left it. What is aimed at is a second: the log says what it took. On a machine that other
// tests keep busy one look at the host takes as long; what nobody noticed is mended by the comparison every 30 seconds.
const healTime = 15 * time.Second

// healing is a bed with a network of which a container publishes a port, and what they look like.
type healing struct {
	*bed
	bridge, port string
	before       map[string]string
}

func newHealing(t *testing.T, o options) *healing {
	t.Helper()
	b := up(t, o)
	b.network("web", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64")
	b.serveOn("web", "--name", "server", "--ip", "10.77.0.77", "--ip6", "fd77::77", "-p", "8080:80", "--restart", "always")
	h := &healing{bed: b, bridge: b.bridge("web")}
	h.port = h.onlyPort()
	h.before = h.look()
	return h
}

// onlyPort returns the host's link of the container.
func (h *healing) onlyPort() string {
	h.t.Helper()
	for name := range first(h.Links(h.t.Context())) {
		if strings.HasPrefix(name, "veth") && strings.Contains(h.run("ip", "link", "show", name), "master "+h.bridge) {
			return name
		}
	}
	h.t.Fatal("the container has no link")
	return ""
}

// look returns what is ours on the host, each part by its name.
func (h *healing) look() map[string]string {
	h.t.Helper()
	ctx := h.t.Context()
	now := map[string]string{
		"rules": oursOf(first(h.Rules(ctx))),
		"sets":  oursOf(sortedLines(first(h.Run(ctx, "ipset", "save")))),
		"table": tableOf(first(h.NFTables(ctx))),
		"forwarding": first(h.Run(ctx, "sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding",
			"net.ipv4.conf."+h.bridge+".route_localnet", "net.ipv6.conf."+h.bridge+".accept_ra")),
	}
	for name, text := range first(h.Links(ctx)) {
		if name == h.bridge || name == h.port {
			now["link "+name] = text
		}
	}
	return now
}

// oursOf keeps the lines that are ours or lead to the user's chain, in their order, each behind the name of its table.
func oursOf(text string) string {
	var kept []string
	table := ""
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "*"):
			table = strings.TrimSpace(line) + " "
		case strings.Contains(strings.ToLower(line), "drawbridge"), strings.Contains(line, "-j DOCKER-USER"):
			kept = append(kept, table+line)
		}
	}
	// dockerd and the daemon make sure of the jump at the same time, after a reload of firewalld: there may be two of it then.
	return strings.Join(slices.Compact(kept), "")
}

func sortedLines(text string) string {
	lines := slices.Collect(strings.Lines(text))
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func tableOf(all string) string {
	_, ours, _ := strings.Cut(all, "table inet drawbridge {")
	ours, _, _ = strings.Cut(ours, "\n}")
	return ours
}

// heals waits until the port is reached and all is as it was, which drawbridge status must not be asked for: it mends. It logs how long
// that took.
func (h *healing) heals(what string, within time.Duration) {
	h.t.Helper()
	began := time.Now()
	var reached time.Duration
	for diff := "not looked yet"; diff != ""; {
		if time.Since(began) > within {
			h.t.Fatalf("%s: not mended in %v (reached after %v, 0 for never); (-before +now):\n%s\n%s", what, within, reached, diff, h.plugin.Log())
		}
		_, err := lab.Get(h.t.Context(), h.client, lab.Request{Network: "tcp", Addr: at(h.client.Host.Addr4(), 8080), Timeout: 200 * time.Millisecond})
		if err != nil {
			continue
		}
		if reached == 0 {
			reached = time.Since(began)
		}
		diff = cmp.Diff(h.before, h.look())
	}
	h.t.Logf("%s: reached after %v, as before after %v", what, reached.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
	lab.Reaches(h.t, h.client, "tcp", at(h.client.Host.Addr6(), 8080))
	lab.Reaches(h.t, h.Host, "tcp", "127.0.0.1:8080")
	for _, command := range []string{"verify", "status"} {
		if out, err := h.Run(h.t.Context(), binary(h.t), command); err != nil {
			h.t.Errorf("%s: drawbridge %s: %v: %s", what, command, err, out)
		}
	}
}

// destroySets flushes all that refers to a set before. The daemon may be there again in between, and with nftables underneath the kernel lets go of a
// set some time after its rules went: so it tries again.
const destroySets = `n=100; until
	for p in iptables ip6tables; do for t in filter mangle nat; do $p -w -t $t -F; done; done
	ipset destroy 2>/dev/null
do n=$((n-1)); [ $n -gt 0 ] || exit 1; done`

// TestHeal: whatever somebody does to the host of a running container is mended at once, without a call of Docker's.
func TestHeal(t *testing.T) {
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			// Forwarding is ours where dockerd leaves it alone.
			h := newHealing(t, options{lab: lab.Options{IPTables: variant}, docker: []string{"--ip-forward=false"}})
			acts := []string{
				// Legacy iptables gives up at once where the daemon has its lock, unless it is told to wait.
				"iptables -w -F", "ip6tables -w -F", "iptables -w -t nat -F", "iptables -w -t mangle -F", "ip6tables -w -t mangle -F",
				"nft flush ruleset",
				"ip addr flush dev " + h.bridge, "ip addr add 192.0.2.77/24 dev " + h.bridge,
				"ip link set " + h.bridge + " down", "ip link set " + h.port + " down", "ip link set " + h.port + " nomaster",
				"ip link set " + h.bridge + " group 0", "ip link del " + h.bridge,
				"sysctl -w net.ipv4.ip_forward=0", "sysctl -w net.ipv6.conf.all.forwarding=0",
				"sysctl -w net.ipv4.conf." + h.bridge + ".route_localnet=0",
			}
			if !onNFTables() {
				acts = append(acts, "ipset flush", destroySets)
			}
			for _, act := range acts {
				h.run("sh", "-c", act)
				h.heals(act, healTime)
			}
			if err := h.docker.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := h.docker.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.eventually("the container has its link again", func() bool { return len(h.ports()) == 2 })
			h.port = h.onlyPort()
			h.renewed()
			h.heals("dockerd restarted", healTime)
		})
	}
}

// renewed has the link of the new endpoint for the one that went.
func (h *healing) renewed() {
	h.t.Helper()
	for name := range h.before {
		if strings.HasPrefix(name, "link veth") {
			delete(h.before, name)
		}
	}
	name := "link " + h.port
	h.before[name] = h.look()[name]
}

// TestHealFirewalld does the same with what an admin does to firewalld.
func TestHealFirewalld(t *testing.T) {
	h := newHealing(t, options{serve: translated, before: func(host *lab.Host) { startFirewalld(t, host) }})
	for _, act := range []string{
		"firewall-cmd --zone=docker --remove-interface=" + h.bridge, "firewall-cmd --reload", "firewall-cmd --complete-reload",
	} {
		h.run("sh", "-c", act)
		h.healsInZone(act)
	}
	if err := h.StopFirewalld(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.StartFirewalld(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.healsInZone("firewalld restarted")

	// What the admin put into another zone stays there, until it is freed.
	h.run("firewall-cmd", "--zone=trusted", "--change-interface="+h.bridge)
	free := fmt.Sprintf("firewall-cmd --zone=trusted --remove-interface=%s", h.bridge)
	h.eventually("the log says how to free the bridge", func() bool { return strings.Contains(h.plugin.Log(), free) })
	if z := h.zone(h.bridge); z != "trusted" {
		t.Errorf("the bridge is in zone %q", z)
	}
	h.run("sh", "-c", free)
	h.healsInZone("freed from another zone")
}

// healsInZone also waits for the bridge's zone.
func (h *healing) healsInZone(what string) {
	h.t.Helper()
	began := time.Now()
	h.eventually(what+": the bridge is in the zone", func() bool { return h.zone(h.bridge) == "docker" })
	h.t.Logf("%s: in the zone after %v", what, time.Since(began).Round(10*time.Millisecond))
	h.heals(what, healTime)
}
