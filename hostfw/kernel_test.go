//go:build kernel

package hostfw

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/process"
	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

func TestMain(m *testing.M) { firewalltest.Main(m) }

// lab is a host with nothing on it and a Looker.
type lab struct {
	*firewalltest.Lab
	looker *Looker
}

func newLab(t *testing.T) *lab {
	l := &lab{Lab: firewalltest.NewBare(t, "")}
	l.In(func() { l.looker = New(Options{Run: l.Run}) })
	t.Cleanup(l.looker.Close)
	return l
}

// run runs a line of each program; nft reads what is behind its name from its input.
func (l *lab) run(line string) {
	l.T.Helper()
	argv, in := strings.Fields(line), ""
	if rest, ok := strings.CutPrefix(line, "nft "); ok {
		argv, in = []string{"nft", "-f", "-"}, rest
	}
	var out []byte
	var err error
	l.In(func() {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(in)
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		l.T.Fatalf("%s: %v: %s", line, err, out)
	}
}

func (l *lab) look() Finding {
	l.T.Helper()
	var f Finding
	var err error
	l.In(func() { f, err = l.looker.Look(l.T.Context()) })
	if err != nil {
		l.T.Fatal(err)
	}
	return f
}

// TestLook: real rules, each told from none.
func TestLook(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  []string
		why  string // "" where no firewall is active
	}{
		{"nothing", nil, ""},

		{"iptables-nft: chains alone", []string{"iptables-nft -N x", "iptables-nft -P INPUT ACCEPT", "ip6tables-nft -N x"}, ""},
		{"iptables-nft: policy", []string{"iptables-nft -P INPUT DROP"}, "INPUT of iptables has policy DROP"},
		{"ip6tables-nft: policy", []string{"ip6tables-nft -P INPUT DROP"}, "INPUT of ip6tables has policy DROP"},
		{"iptables-nft: policy of FORWARD", []string{"iptables-nft -P FORWARD DROP", "iptables-nft -A FORWARD -j DROP"}, ""},
		{"iptables-nft: DROP", []string{"iptables-nft -A INPUT -p tcp --dport 8080 -j DROP"}, "INPUT of iptables has a rule that refuses"},
		{"ip6tables-nft: REJECT", []string{"ip6tables-nft -A INPUT -p tcp --dport 8080 -j REJECT"}, "INPUT of ip6tables has a rule that refuses"},
		{"iptables-nft: REJECT with a reset", []string{"iptables-nft -A INPUT -p tcp -j REJECT --reject-with tcp-reset"}, "INPUT of iptables has a rule that refuses"},
		{"iptables-nft: NFQUEUE", []string{"iptables-nft -A INPUT -p tcp -j NFQUEUE --queue-num 1"}, "INPUT of iptables has a rule that refuses"},
		{"iptables-nft: harmless targets", []string{
			"iptables-nft -A INPUT -m limit --limit 1/s -j LOG --log-prefix x", "iptables-nft -A INPUT -j MARK --set-mark 1",
			"iptables-nft -A INPUT -i lo -j ACCEPT", "iptables-nft -A INPUT -j NFLOG", "iptables-nft -A INPUT -m conntrack --ctstate NEW",
			"iptables-nft -A INPUT -m recent --set", "iptables-nft -A INPUT -j RETURN",
		}, ""},
		{"iptables-nft: by two jumps", []string{
			"iptables-nft -N one", "iptables-nft -N two", "iptables-nft -A INPUT -j one", "iptables-nft -A one -g two", "iptables-nft -A two -s 192.0.2.1 -j DROP",
		}, "INPUT of iptables leads to two, which has a rule that refuses"},
		{"iptables-nft: a chain of fail2ban's", []string{
			"iptables-nft -N f2b-sshd", "iptables-nft -A INPUT -p tcp --dport 22 -j f2b-sshd",
			"iptables-nft -A f2b-sshd -s 192.0.2.1 -j REJECT", "iptables-nft -A f2b-sshd -j RETURN",
		}, "INPUT of iptables leads to f2b-sshd, which has a rule that refuses"},
		{"iptables-nft: a chain of nobody's", []string{"iptables-nft -N one", "iptables-nft -A one -j DROP", "iptables-nft -A FORWARD -j one"}, ""},
		{"iptables-nft: invalid alone", []string{
			"iptables-nft -A INPUT -m conntrack --ctstate INVALID -j DROP", "iptables-nft -A INPUT -p tcp -m state --state INVALID -j REJECT",
			"ip6tables-nft -A INPUT -m conntrack --ctstate INVALID -m tcp -p tcp -j DROP",
		}, ""},
		{"iptables-nft: not invalid", []string{"iptables-nft -A INPUT -m conntrack ! --ctstate INVALID -j DROP"}, "INPUT of iptables has a rule that refuses"},
		{"iptables-nft: invalid and new", []string{"iptables-nft -A INPUT -m conntrack --ctstate INVALID,NEW -j DROP"}, "INPUT of iptables has a rule that refuses"},
		{"iptables-nft: mangle", []string{"iptables-nft -t mangle -A INPUT -j DROP"}, "INPUT of iptables (table mangle) has a rule that refuses"},
		{"iptables-nft: before translation", []string{"iptables-nft -t raw -A PREROUTING -p tcp -j DROP", "iptables-nft -t mangle -A PREROUTING -p udp -j DROP"}, ""},
		{"iptables-nft: ours and Docker's", []string{
			"iptables-nft -N DRAWBRIDGE-X", "iptables-nft -A INPUT -j DRAWBRIDGE-X", "iptables-nft -A DRAWBRIDGE-X -j DROP",
			"iptables-nft -N DOCKER-FORWARD", "iptables-nft -A INPUT -j DOCKER-FORWARD", "iptables-nft -A DOCKER-FORWARD -j DROP",
		}, ""},
		{"iptables-nft: users' rules in Docker's chain", []string{
			"iptables-nft -N DOCKER-USER", "iptables-nft -A INPUT -j DOCKER-USER", "iptables-nft -A DOCKER-USER -s 192.0.2.1 -j DROP",
		}, "INPUT of iptables leads to DOCKER-USER, which has a rule that refuses"},

		{"iptables-legacy: tables alone", []string{"iptables-legacy -P INPUT ACCEPT", "ip6tables-legacy -P INPUT ACCEPT"}, ""},
		{"iptables-legacy: policy", []string{"iptables-legacy -P INPUT DROP"}, "iptables-legacy: INPUT has policy DROP"},
		{"ip6tables-legacy: rule", []string{"ip6tables-legacy -A INPUT -p tcp --dport 8080 -j REJECT"}, "ip6tables-legacy: INPUT has a rule that refuses"},
		{"iptables-legacy: by a jump", []string{
			"iptables-legacy -N one", "iptables-legacy -A INPUT -j one", "iptables-legacy -A one -s 192.0.2.1 -j DROP",
		}, "iptables-legacy: INPUT leads to one, which has a rule that refuses"},
		{"iptables-legacy: harmless", []string{
			"iptables-legacy -A INPUT -m conntrack --ctstate INVALID -j DROP", "iptables-legacy -A FORWARD -j DROP",
			"iptables-legacy -P FORWARD DROP", "iptables-legacy -A INPUT -j LOG --log-prefix DROP",
		}, ""},
		{"iptables-legacy: mangle", []string{"iptables-legacy -t mangle -A INPUT -j DROP"}, "iptables-legacy: INPUT (table mangle) has a rule that refuses"},
		{"iptables-legacy: not invalid", []string{"iptables-legacy -A INPUT -m conntrack ! --ctstate INVALID -j DROP"}, "iptables-legacy: INPUT has a rule that refuses"},

		{"nft: policy", []string{"nft table inet filter { chain input { type filter hook input priority 0; policy drop; }; }"}, "chain input of table inet filter (nftables) drops"},
		{"nft: rule", []string{"nft table ip6 mine { chain in { type filter hook input priority 0; tcp dport 8080 reject; }; }"}, "chain in of table ip6 mine (nftables) has a rule that refuses"},
		{"nft: jump", []string{"nft table inet mine { chain deny { drop; }; chain in { type filter hook input priority 0; iifname \"eth0\" jump deny; }; }"}, "chain in of table inet mine (nftables) leads to deny, which has a rule that refuses"},
		{"nft: verdict map", []string{"nft table inet mine { chain in { type filter hook input priority 0; tcp dport vmap { 22 : accept, 23 : drop }; }; }"}, "chain in of table inet mine (nftables) has a rule that refuses"},
		{"nft: jump by a verdict map", []string{"nft table inet mine { chain deny { drop; }; chain in { type filter hook input priority 0; tcp dport vmap { 22 : accept, 23 : jump deny }; }; }"}, "chain in of table inet mine (nftables) leads to deny, which has a rule that refuses"},
		{"nft: a key that is no state", []string{"nft table inet mine { chain in { type filter hook input priority 0; meta mark vmap { 1 : drop }; }; }"}, "chain in of table inet mine (nftables) has a rule that refuses"},
		{"nft: state by a verdict map", []string{"nft table inet mine { chain in { type filter hook input priority 0; ct state vmap { new : drop, established : accept }; }; }"}, "chain in of table inet mine (nftables) has a rule that refuses"},
		{"nft: not invalid", []string{"nft table inet mine { chain in { type filter hook input priority 0; ct state != invalid drop; }; }"}, "chain in of table inet mine (nftables) has a rule that refuses"},
		{"nft: invalid and untracked", []string{"nft table inet mine { chain in { type filter hook input priority 0; ct state invalid,untracked drop; }; }"}, "chain in of table inet mine (nftables) has a rule that refuses"},
		{"nft: a set of sources", []string{"nft table inet f2b-table { set s { type ipv4_addr; }; chain f2b-chain { type filter hook input priority -1; tcp dport 22 ip saddr @s reject; }; }"}, "chain f2b-chain of table inet f2b-table (nftables) has a rule that refuses"},
		{"nft: invalid alone", []string{
			"nft table inet mine { chain in { type filter hook input priority 0; ct state invalid drop; tcp dport 1-65535 ct state invalid counter log reject; ct state == invalid drop; ct state vmap { invalid : drop, established : accept }; }; }",
		}, ""},
		{"nft: harmless", []string{
			"nft table inet mine { set s { type ipv4_addr; flags dynamic; size 100; }; map m { type ipv4_addr : mark; }; chain n { accept; }; chain in { type filter hook input priority 0; " +
				"ct state established accept; meta mark set ct mark; ip saddr @s counter; tcp dport 22 jump n; add @s { ip saddr limit rate 1/second } log; meta mark set ip saddr map @m; limit rate 1/second accept; ct mark set 1; return; }; }",
		}, ""},
		{"nft: other hooks", []string{
			"nft table inet mine { chain f { type filter hook forward priority 0; policy drop; drop; }; chain p { type filter hook prerouting priority 0; tcp dport 1 drop; }; chain n { type nat hook input priority 100; }; chain o { type filter hook output priority 0; policy drop; }; }",
		}, ""},
		{"nft: ours and Docker's", []string{
			"nft table inet drawbridge { chain in { type filter hook input priority 0; policy drop; }; }",
			"nft table inet drawbridge-latch { chain in { type filter hook input priority 0; policy drop; }; }",
			"nft table ip docker-bridges { chain in { type filter hook input priority 0; drop; }; }",
		}, ""},
		{"nft: a name that begins as ours", []string{"nft table inet drawbridges { chain in { type filter hook input priority 0; policy drop; }; }"}, "chain in of table inet drawbridges (nftables) drops"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			for _, line := range tt.run {
				l.run(line)
			}
			if got := l.look(); got.Active != (tt.why != "") || got.Why != tt.why {
				t.Errorf("found %+v, want %q", got, tt.why)
			}
		})
	}
}

// TestLookBeyond: what of real rules decides by more than who comes and where to.
func TestLookBeyond(t *testing.T) {
	input := func(rules string) []string {
		return []string{"nft table inet mine { set s { type ipv4_addr; }; set d { type ipv4_addr; flags dynamic; size 9; }; set l { type ipv4_addr; size 9; limit rate 1/second; }; " +
			"set c { type ipv4_addr; counter; }; set w { type ipv4_addr . inet_service; }; limit few { rate 1/second; }; counter seen { }; " +
			"chain tell { limit rate 1/second log; }; chain web { tcp dport 80 accept; }; " +
			"chain in { type filter hook input priority 0; policy drop; " + rules + "; }; }"}
	}
	iptables := func(rules ...string) (lines []string) {
		for _, program := range []string{"iptables-nft", "iptables-legacy"} {
			lines = append(lines, program+" -P INPUT DROP")
			for _, r := range rules {
				lines = append(lines, program+" "+r)
			}
		}
		return lines
	}
	for _, tt := range []struct {
		name string
		run  []string
		want string
	}{
		{"iptables: plain", iptables(
			"-A INPUT -i lo -j ACCEPT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -p icmp -m limit --limit 5/s -j ACCEPT",
			"-A INPUT -p tcp ! --syn -m state --state NEW -j DROP", "-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT", "-A INPUT -s 192.0.2.0/24 ! -d 10.0.0.0/8 -p udp --dport 53 -j ACCEPT",
			"-A INPUT -m addrtype --dst-type BROADCAST -j DROP", "-A INPUT -m mark --mark 1 -j ACCEPT", "-A INPUT -m iprange --src-range 192.0.2.1-192.0.2.3 -j ACCEPT",
			"-A INPUT -m pkttype --pkt-type multicast -j DROP", "-A INPUT -p tcp --dport 22 -m comment --comment x -j ACCEPT",
			"-A INPUT -m limit --limit 3/min -j LOG", "-A INPUT -m limit --limit 3/min -j REJECT",
		), ""},
		{"ip6tables: plain", []string{
			"ip6tables-nft -P INPUT DROP", "ip6tables-nft -A INPUT -m rt --rt-type 0 -j DROP", "ip6tables-nft -A INPUT -p ipv6-icmp --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT",
			"ip6tables-nft -A INPUT -s fe80::/10 -p udp --dport 546 -j ACCEPT", "ip6tables-nft -A INPUT -s fc00::/8 -j ACCEPT",
		}, ""},
		{"iptables-nft: string", []string{"iptables-nft -A INPUT -p udp -m string --string x --algo bm -j DROP"}, "string"},
		{"iptables-legacy: string", []string{"iptables-legacy -A INPUT -p udp -m string --string x --algo bm -j DROP"}, "string"},
		{"iptables-nft: limit", []string{"iptables-nft -P INPUT DROP", "iptables-nft -A INPUT -p tcp -m limit --limit 5/s -j ACCEPT"}, "limit"},
		{"iptables-legacy: limit", []string{"iptables-legacy -P INPUT DROP", "iptables-legacy -A INPUT -p tcp -m limit --limit 5/s -j ACCEPT"}, "limit"},
		{"iptables-nft: hashlimit", []string{"iptables-nft -A INPUT -p tcp -m hashlimit --hashlimit-above 5/s --hashlimit-name x --hashlimit-mode srcip -j DROP"}, "hashlimit"},
		{"iptables-nft: connlimit", []string{"iptables-nft -A INPUT -p tcp -m connlimit --connlimit-above 5 -j REJECT"}, "connlimit"},
		{"iptables-nft: recent", []string{"iptables-nft -A INPUT -p tcp -m recent --set", "iptables-nft -A INPUT -p tcp -m recent --update --seconds 30 --hitcount 6 -j DROP"}, "recent"},
		{"iptables-nft: u32", []string{"iptables-nft -A INPUT -m u32 --u32 0&0xff=1 -j DROP"}, "u32"},
		{"iptables-nft: length", []string{"iptables-nft -A INPUT -m length --length 1:100 -j DROP"}, "length"},
		{"iptables-nft: ttl", []string{"iptables-nft -A INPUT -m ttl --ttl-eq 1 -j DROP"}, "ttl"},
		{"iptables-nft: time", []string{"iptables-nft -A INPUT -m time --timestart 08:00 -j DROP"}, "time"},
		{"iptables-nft: quota", []string{"iptables-nft -P INPUT DROP", "iptables-nft -A INPUT -m quota --quota 100 -j ACCEPT"}, "quota"},
		{"iptables-nft: statistic", []string{"iptables-nft -A INPUT -m statistic --mode nth --every 2 --packet 0 -j DROP"}, "statistic"},
		{"iptables-nft: NFQUEUE", []string{"iptables-nft -A INPUT -p tcp -j NFQUEUE --queue-num 1"}, "NFQUEUE"},
		{"iptables-legacy: NFQUEUE", []string{"iptables-legacy -A INPUT -p tcp -j NFQUEUE --queue-num 1"}, "NFQUEUE"},
		{"iptables-nft: a mark by a string", []string{"iptables-nft -A INPUT -m string --string x --algo bm -j MARK --set-mark 1", "iptables-nft -A INPUT -m mark --mark 1 -j DROP"}, "string"},

		{"nft: plain", input("ct state invalid drop; ct state established,related accept; iif lo accept; icmp type echo-request limit rate 5/second accept; meta l4proto ipv6-icmp limit rate 5/second accept; " +
			"ip protocol icmp accept; ip6 nexthdr ipv6-icmp accept; iifname eth0 tcp dport { 80, 443 } accept; ip saddr 10.0.0.0/8 udp dport 53 accept; ip6 saddr fc00::/8 accept; ip6 saddr fe80::/64 ip6 daddr ff02::1 accept; " +
			"ip saddr @s drop; ip saddr @c drop; ip saddr . tcp dport @w accept; fib daddr type broadcast drop; meta mark 1 accept; ct mark 1 accept; ct status dnat accept; meta mark set 2; " +
			"tcp flags & (fin|syn|rst|ack) != syn ct state new drop; meta nfproto ipv6 rt type 0 drop; tcp dport vmap { 22 : accept, 23 : drop, 80 : jump web }; udp dport 1-9 counter name seen accept; " +
			"limit rate 3/minute log; limit rate 3/minute jump tell; meta pkttype host limit rate 5/second counter reject; counter"), ""},
		{"nft: limit", input("tcp dport 80 limit rate 5/second accept"), "limit"},
		{"nft: limit by name", input("tcp dport 80 limit name few accept"), "limit"},
		{"nft: limit of a jump", input("limit rate 5/second jump web"), "limit"},
		{"nft: limit behind a map", input("tcp dport vmap { 80 : accept }; limit rate 5/second tcp dport vmap { 81 : accept }"), "limit"},
		{"nft: per source", input("tcp dport 80 add @d { ip saddr limit rate 5/second } accept"), filledSet},
		{"nft: a set that is filled", input("tcp dport 7 add @d { ip saddr }; ip saddr @d accept"), filledSet},
		{"nft: a set that limits", input("ip saddr @l accept"), filledSet},
		{"nft: connections", input("ct count over 5 drop; accept"), "connlimit"},
		{"nft: quota", input("quota until 100 bytes accept"), "quota"},
		{"nft: bytes", input("ct bytes < 100 accept"), "ct bytes"},
		{"nft: by chance", input("numgen random mod 2 0 accept"), "numgen"},
		{"nft: hour", input("meta hour 10:00-12:00 accept"), "hour"},
		{"nft: length", input("meta length 10-20 accept"), "length"},
		{"nft: TTL", input("ip ttl 1 drop; accept"), "payload"},
		{"nft: data", input("udp dport 53 @th,64,16 0x1 drop; accept"), "payload"},
		{"nft: TCP option", input("tcp option maxseg size 1-100 drop; accept"), "exthdr"},
		{"nft: MAC address", input("ether saddr 00:11:22:33:44:55 accept"), "payload"},
		{"nft: at another hook", []string{"nft table inet mine { chain in { type filter hook input priority 0; policy drop; }; chain out { type filter hook output priority 0; limit rate 1/second drop; }; }"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			for _, line := range tt.run {
				l.run(line)
			}
			if got := l.look(); !got.Active || got.Beyond != tt.want {
				t.Errorf("found %+v, want %q", got, tt.want)
			}
		})
	}
}

// TestLookMakesNoTable: to look for legacy rules makes no table of that variant.
func TestLookMakesNoTable(t *testing.T) {
	l := newLab(t)
	l.looker.options.Run = func(_ context.Context, _ string, argv ...string) (string, error) {
		t.Errorf("%v was started", argv)
		return "", nil
	}
	l.look()
	l.run("iptables-legacy -t nat -A PREROUTING -j ACCEPT") // nat's alone is there now
	l.look()
}

// TestLookAgain: what changed is seen, and rules that have not are not read again.
func TestLookAgain(t *testing.T) {
	l := newLab(t)
	ran := 0
	l.looker.options.Run = func(ctx context.Context, in string, argv ...string) (string, error) {
		ran++
		return process.Run(ctx, in, argv...)
	}
	at := time.Now()
	l.looker.now = func() time.Time { return at }
	expect := func(why string, reads int) {
		t.Helper()
		ran = 0
		if got := l.look(); got.Why != why {
			t.Errorf("found %+v, want %q", got, why)
		}
		if ran != reads {
			t.Errorf("legacy rules were read %d times, want %d", ran, reads)
		}
	}
	stray := func() (told bool) {
		l.In(func() { told = l.looker.stray(at) })
		return told
	}
	expect("", 0)
	l.run("iptables-legacy -A INPUT -s 192.0.2.1 -j ACCEPT")
	if !stray() {
		t.Error("a new legacy table is not told")
	}
	expect("", 1)
	expect("", 0)
	if stray() {
		t.Error("legacy rules are told that were read")
	}
	l.run("iptables-legacy -A INPUT -j DROP")
	if !stray() {
		t.Error("a new legacy rule is not told")
	}
	expect("iptables-legacy: INPUT has a rule that refuses", 1)
	l.run("iptables-legacy -D INPUT -j DROP")
	expect("", 1)
	l.run("iptables-legacy -P INPUT DROP") // which no number tells of
	expect("", 0)
	at = at.Add(staleAfter)
	if !stray() {
		t.Error("legacy rules that were read long ago are not told")
	}
	expect("iptables-legacy: INPUT has policy DROP", 1)
	l.run("iptables-legacy -P INPUT ACCEPT")
	l.run("iptables-nft -A INPUT -j DROP")
	expect("INPUT of iptables has a rule that refuses", 1)
}

// TestLookWhileChanging: who changes rules while they are read, as dockerd does for a while at its start, keeps nobody from knowing what they say; who never
// ends does.
func TestLookWhileChanging(t *testing.T) {
	for name, row := range map[string]struct {
		changes int
		failed  error
	}{"for a while": {10, nil}, "without end": {1 << 30, errChanging}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.run("iptables-legacy -A INPUT -s 192.0.2.1 -j ACCEPT")
			changes := 0
			l.looker.options.Run = func(ctx context.Context, in string, argv ...string) (string, error) {
				if changes++; changes <= row.changes {
					if _, err := process.Run(ctx, "", "iptables-legacy", "-A", "FORWARD", "-j", "ACCEPT"); err != nil {
						return "", err
					}
				}
				return process.Run(ctx, in, argv...)
			}
			var found Finding
			var err error
			l.In(func() { found, err = l.looker.Look(t.Context()) })
			if !errors.Is(err, row.failed) || found.Active {
				t.Errorf("after %d changes: found %+v, error %v, want %v", changes, found, err, row.failed)
			}
		})
	}
}

// TestLookIsQuick: a look at a chain of many rules, and at many chains, is over soon.
func TestLookIsQuick(t *testing.T) {
	const rules = 10000
	var many strings.Builder
	fmt.Fprintln(&many, "nft table ip filter { chain INPUT { type filter hook input priority 0;")
	for i := range rules {
		fmt.Fprintf(&many, "ip saddr 10.0.%d.%d tcp dport 8080 counter jump c%d\n", i/256, i%256, i)
	}
	fmt.Fprintln(&many, "}")
	for i := range rules {
		fmt.Fprintf(&many, "chain c%d { ip daddr 192.0.2.1 accept; }\n", i)
	}
	fmt.Fprintln(&many, "}")
	l := newLab(t)
	l.run(many.String())
	began := time.Now()
	l.run("nft list ruleset")
	// It takes some 150 ms where nothing else runs, for twice that many rules, and longer where nft does, too.
	atMost := max(time.Second, 5*time.Since(began))
	began = time.Now()
	if f := l.look(); f.Active {
		t.Errorf("found %+v", f)
	}
	first := time.Since(began)
	began = time.Now()
	l.look()
	t.Logf("%d rules: first look %v, second %v", rules, first, time.Since(began))
	if first > atMost {
		t.Errorf("a look took %v, want %v at most", first, atMost)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.run("iptables-nft -A INPUT -j DROP")
	l.In(func() {
		if f, err := l.looker.Look(ctx); err == nil {
			t.Errorf("a look that was given up found %+v", f)
		}
	})
}
