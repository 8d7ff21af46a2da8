//go:build kernel

package publish

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/inquiry"
	"github.com/drawbridge-net/drawbridge/state"
)

// askingLab is ourLab with the rules of the state as it is, and with the user's of DOCKER-USER asked as the relay does.
type askingLab struct {
	*ourLab
	plane *firewall.Plane
	desk  *inquiry.Desk
	asked atomic.Int64
}

func newAskingLab(t *testing.T, backend string, mode state.Publish) *askingLab {
	t.Helper()
	a := &askingLab{ourLab: newOurLab(t, backend, mode), desk: inquiry.New(inquiry.Options{})}
	t.Cleanup(func() { a.desk.Close() })
	sysctl(t, "net/ipv4/ip_forward", "1")
	sysctl(t, "net/ipv6/conf/all/forwarding", "1")
	a.plane = firewall.NewPlane(a.backend, firewall.Settings{
		Publish: func() state.Modes { return state.Modes{Inherit: mode, Auto: mode} },
		Divert:  func(s state.Snapshot) bool { return len(s.ByHost(modeAsSaid)) > 0 },
	})
	a.apply()
	a.publisher(Options{Inquirer: a, Inquire: func(v6 bool) bool {
		in, known := a.plane.Inquire()
		return !known || in.Of(v6)
	}})
	return a
}

// Admits implements Inquirer: it counts.
func (a *askingLab) Admits(ctx context.Context, v state.Visit) (bool, error) {
	a.asked.Add(1)
	return a.desk.Admits(ctx, v)
}

func (a *askingLab) apply() {
	a.Helper()
	a.must(a.plane.Apply(a.Context(), a.state))
}

// user makes DOCKER-USER of both families have the rules. In them CLIENT, OTHER and AFTER are the client's address, a neighbour's and the one behind.
func (a *askingLab) user(rules ...string) {
	a.Helper()
	a.tables("-F DOCKER-USER")
	for _, rule := range rules {
		for program, words := range map[string][]string{
			"iptables-nft":  {"CLIENT", clientAddr4, "OTHER", "192.0.2.77"},
			"ip6tables-nft": {"CLIENT", clientAddr6, "OTHER", "2001:db8::77"},
		} {
			a.run(program, strings.Fields("-A DOCKER-USER "+strings.NewReplacer(words...).Replace(rule))...)
		}
	}
	a.apply()
}

// refused is what a client sees that a socket does not serve.
func refused(p state.Proto) string {
	if p == state.TCP {
		return "reset"
	}
	return "silence"
}

// check knocks at a port by both families and protocols.
func (a *askingLab) check(what string, port uint16, open map[state.Proto]bool) {
	a.Helper()
	for _, proto := range bothProtos {
		for _, ip := range []string{hostAddr4, hostAddr6} {
			wait := 3 * time.Second
			if !open[proto] {
				wait = waitFor(refused(proto)) + inquiry.Patience
			}
			var seen, own string
			a.client.do(func() { seen, own = knockFor(proto, netip.AddrPort{}, 0, ip, port, wait) })
			want := own
			if !open[proto] {
				want = refused(proto)
			}
			if seen != want {
				a.Errorf("%s: %s by %s to %d: %q, want %q", what, proto, ip, port, seen, want)
			}
		}
	}
}

var (
	bothOpen   = map[state.Proto]bool{state.TCP: true, state.UDP: true}
	bothClosed = map[state.Proto]bool{}
	udpOpen    = map[state.Proto]bool{state.UDP: true}
)

// TestDockerUserDecides: what a user's rules refuse comes to no container by a socket, and what they let pass is served as ever, as the client.
func TestDockerUserDecides(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		a := newAskingLab(t, backend, state.PublishHost)
		a.check("no rules", 8080, bothOpen)
		a.user("-j RETURN")
		a.check("a plain RETURN", 8080, bothOpen)
		if n := a.asked.Load(); n > 0 {
			t.Errorf("where nobody has rules %d questions were put", n)
		}
		for _, row := range []struct {
			rules []string
			port  uint16
			open  map[state.Proto]bool
		}{
			{[]string{"-i tohost0 ! -s CLIENT -j DROP"}, 8080, bothOpen},
			{[]string{"-i tohost0 ! -s OTHER -j DROP"}, 8080, bothClosed},
			{[]string{"-i lo ! -s OTHER -j DROP"}, 8080, bothOpen},
			{[]string{"-m iprange ! --src-range CLIENT-CLIENT -j DROP"}, 8080, bothOpen},
			{[]string{"-m iprange ! --src-range OTHER-OTHER -i tohost0 -j DROP"}, 8080, bothClosed},
			{[]string{"-p tcp --dport 80 -i tohost0 -j DROP"}, 8080, udpOpen},
			{[]string{"-p tcp --dport 8080 -i tohost0 -j DROP"}, 8080, bothOpen}, // no packet has that port there
			{[]string{"-m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"}, 8080, bothClosed},
			{[]string{"-m conntrack --ctorigdstport 8080 --ctdir ORIGINAL -j DROP"}, 8081, bothOpen},
			{[]string{"-o br0 -j DROP"}, 8080, bothClosed},
			{[]string{"-o br1 -j DROP"}, 8080, bothOpen},
			{[]string{"-i tohost0 -m conntrack --ctstate NEW -j DROP"}, 8080, bothClosed},
			{[]string{"-i tohost0 -j REJECT"}, 8080, bothClosed},
			{[]string{"-i tohost0 -p tcp -j REJECT --reject-with tcp-reset"}, 8080, udpOpen},
			{[]string{"-s CLIENT -j ACCEPT", "-i tohost0 -j DROP"}, 8080, bothOpen},
			{[]string{"-s OTHER -j ACCEPT", "-i tohost0 -j DROP"}, 8080, bothClosed},
			{[]string{"-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-i tohost0 -j DROP"}, 8080, bothClosed},
			{[]string{"-j RETURN", "-j DROP"}, 8080, bothOpen},
			{nil, 8080, bothOpen},
		} {
			a.user(row.rules...)
			a.check(strings.Join(row.rules, "; "), row.port, row.open)
		}
		if a.asked.Load() == 0 {
			t.Error("no question was put")
		}
		a.leavesNothing()
	})
}

// leavesNothing wants no connection of a question to be known.
func (a *askingLab) leavesNothing() {
	a.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
	a.must(err)
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "UNREPLIED") && strings.Contains(line, "dport=80 ") {
			a.Errorf("a question has left a connection: %s", line)
		}
	}
}

func (a *askingLab) run(program string, args ...string) {
	a.Helper()
	if out, err := command(program, args...); err != nil {
		a.Fatalf("%s %v: %v: %s", program, args, err, out)
	}
}

// TestDockerUserBesideOthers: the policy of FORWARD and the host's own INPUT do not answer for DOCKER-USER, nor it for them.
func TestDockerUserBesideOthers(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		a := newAskingLab(t, backend, state.PublishHost)
		a.tables("-P FORWARD DROP")
		a.user("-i tohost0 ! -s CLIENT -j DROP")
		a.check("FORWARD drops", 8080, bothOpen)
		a.nft("add table inet other; add chain inet other forward { type filter hook forward priority 10; policy drop; }")
		a.check("somebody behind drops all that is forwarded", 8080, bothOpen)
		a.nft("delete table inet other")
		a.tables("-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu")
		a.check("somebody clamps the segment size", 8080, bothOpen)
		a.tables("-A INPUT -i tohost0 -p tcp --dport 8080 -j DROP")
		var seen string
		a.client.do(func() { seen, _ = knockFor(state.TCP, netip.AddrPort{}, 0, hostAddr4, 8080, silence) })
		if seen != "silence" {
			t.Errorf("INPUT drops: %q", seen)
		}
		a.check("and no other port", 8081, bothOpen)
	})
}

// TestDockerUserOfLearned: both ways agree: the first connection by the socket, and the next ones, which are translated.
func TestDockerUserOfLearned(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		a := newAskingLab(t, backend, state.PublishLearned)
		for range 2 {
			a.user("-i tohost0 -s CLIENT -m conntrack --ctstate NEW -j DROP")
			if b, ok := a.backend.(interface{ ForgetLearned(context.Context) error }); ok {
				a.must(b.ForgetLearned(a.Context()))
			}
			for range 3 {
				for _, proto := range bothProtos {
					var seen string
					a.client.do(func() { seen, _ = knockFor(proto, netip.AddrPort{}, 0, hostAddr4, 8080, silence+inquiry.Patience) })
					if seen != "reset" && seen != "silence" {
						t.Errorf("%s: %q", proto, seen)
					}
				}
			}
			a.user("-i tohost0 ! -s CLIENT -j DROP")
			for range 3 {
				a.check("let pass", 8081, bothOpen)
			}
		}
	})
}

// TestInquiriesGainNothing: who has the bit without being asked about gets nowhere: it is dropped behind DOCKER-USER.
func TestInquiriesGainNothing(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		a := newAskingLab(t, backend, state.PublishHost)
		a.user("-i tohost0 -s OTHER -j DROP")
		a.tables("-A INPUT -i tohost0 -p tcp --dport 8080 -j DROP", "-A INPUT -i tohost0 -p udp --dport 8080 -j DROP",
			fmt.Sprintf("-t mangle -A PREROUTING -i tohost0 -j MARK --set-xmark %#x/%#[1]x", state.MarkInquiry))
		for _, proto := range bothProtos {
			for _, ip := range []string{hostAddr4, hostAddr6} {
				var seen string
				a.client.do(func() { seen, _ = knockFor(proto, netip.AddrPort{}, 0, ip, 8080, silence) })
				if seen != "silence" {
					t.Errorf("%s by %s: %q", proto, ip, seen)
				}
			}
		}
		a.check("a port that INPUT lets in is served, whatever others mark", 8081, bothOpen)
	})
}

// TestWithoutForwarding: a host that forwards nothing asks nobody.
func TestWithoutForwarding(t *testing.T) {
	if !inLab(t) {
		return
	}
	a := newAskingLab(t, "nftables", state.PublishHost)
	a.user("-i tohost0 -s CLIENT -j DROP")
	sysctl(t, "net/ipv4/ip_forward", "0")
	sysctl(t, "net/ipv6/conf/all/forwarding", "0")
	a.check("nothing is forwarded", 8080, bothOpen)
}

// TestLatencyOfInquiries says what a question costs, and how many connections a second there are with and without.
func TestLatencyOfInquiries(t *testing.T) {
	each(t, func(t *testing.T, backend string) {
		a := newAskingLab(t, backend, state.PublishHost)
		rate := func() float64 {
			const count = 500
			var elapsed time.Duration
			a.client.do(func() {
				began := time.Now()
				for range count {
					if seen, own := knock(state.TCP, 0, hostAddr4, 8080); seen != own {
						a.Errorf("%q, want %q", seen, own)
					}
				}
				elapsed = time.Since(began)
			})
			return count / elapsed.Seconds()
		}
		without := rate()
		a.user("-i tohost0 ! -s CLIENT -j DROP")
		with := rate()
		l, err := a.desk.Admits(t.Context(), state.Visit{Proto: state.TCP, Client: netip.MustParseAddrPort(clientAddr4 + ":9"), At: netip.MustParseAddrPort(hostAddr4 + ":8080"), Link: a.index("tohost0")})
		if !l || err != nil {
			t.Fatal(l, err)
		}
		var took []time.Duration
		for range 1000 {
			began := time.Now()
			_, _ = a.desk.Admits(t.Context(), state.Visit{Proto: state.TCP, Client: netip.MustParseAddrPort(clientAddr4 + ":9"), At: netip.MustParseAddrPort(hostAddr4 + ":8080"), Link: a.index("tohost0")})
			took = append(took, time.Since(began))
		}
		t.Logf("a question takes %v (half), %v (99 of 100); %.0f connections a second without rules, %.0f with: %.2f", percentile(took, 50), percentile(took, 99), without, with, with/cmp.Or(without, 1))
	})
}

func command(program string, args ...string) ([]byte, error) {
	return exec.Command(program, args...).CombinedOutput()
}

func (a *askingLab) index(name string) int {
	a.Helper()
	l, err := netlink.LinkByName(name)
	a.must(err)
	return l.Attrs().Index
}

func percentile(of []time.Duration, p int) time.Duration {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)*p/100]
}
