package report

import (
	"strings"

	"github.com/drawbridge-net/drawbridge/bench/stats"
)

// Names of subjects that targets speak of.
const (
	Bridge   = "bridge"
	Floor    = "floor"
	Direct   = "direct"
	Plain    = "plain"
	IPTables = "iptables"
	NFTables = "nftables"
)

// Names of subjects that are ways to a published port.
const (
	DNAT      = "dnat"
	Learned   = "learned"
	Host      = "host"
	UserProxy = "docker-proxy"
)

// Again is the level of one published port, measured in the rounds of the highest level.
const Again = "1, in the rounds of the highest"

// top stands for the highest level at which a backend was measured.
const top = ""

// A Target is a ratio of two medians, or a median, and its limit for each backend.
type Target struct {
	What     string // {} stands for the level
	Of       Case
	Per      Case   // none: the median itself is limited
	Subject  string // whose Per; "" for the backend's own
	Inverse  bool   // told as Per / Of
	AtLeast  bool
	Limits   map[string]float64 // by backend; without one the target is not for it
	Absolute string             // unit of a median itself
}

// limits are those of nftables and of iptables.
func limits(nft, ipt float64) map[string]float64 {
	return map[string]float64{NFTables: nft, IPTables: ipt}
}

func faster(what, metric, level string, nft, ipt float64) Target {
	c := Case{metric, level}
	return Target{What: what + ", bridge / ours", Of: c, Per: c, Subject: Bridge, Inverse: true, AtLeast: true, Limits: limits(nft, ipt)}
}

func atMost(what, metric, level string, nft, ipt float64) Target {
	c := Case{metric, level}
	return Target{What: what + ", ours / bridge", Of: c, Per: c, Subject: Bridge, Limits: limits(nft, ipt)}
}

func own(what string, of, per Case, atLeast bool, nft, ipt float64) Target {
	return Target{What: what, Of: of, Per: per, AtLeast: atLeast, Limits: limits(nft, ipt)}
}

func absolute(what, metric, level, unit string, l map[string]float64) Target {
	return Target{What: what, Of: Case{metric, level}, Absolute: unit, Limits: l}
}

func bare(what, metric string, atLeast bool, limit float64) Target {
	return Target{What: what + ", ours / floor", Of: Case{metric, top}, Per: Case{metric, top}, Subject: Floor, AtLeast: atLeast, Limits: limits(limit, limit)}
}

// Targets are what Drawbridge is to reach.
var Targets = []Target{
	{What: "connect with 100 ports / with none", Of: Case{Connect, "100"}, Per: Case{Connect, "0"}, Limits: map[string]float64{NFTables: 1.5}},
	faster("connect with 100 ports", Connect, "100", 80, 40),
	faster("disconnect with 100 ports", Disconnect, "100", 200, 80),
	atMost("connect with 1 port, 0 present", ConnectOne, "0", 0.5, 0.7),
	atMost("connect with 1 port, 500 present", ConnectOne, "500", 0.5, 0.7),
	atMost("disconnect with 1 port, 0 present", DisconnectOne, "0", 0.25, 0.35),
	atMost("disconnect with 1 port, 500 present", DisconnectOne, "500", 0.25, 0.35),
	own("connect with 1 port, 500 / 0 present", Case{ConnectOne, "500"}, Case{ConnectOne, "0"}, false, 1.2, 1.3),
	own("disconnect with 1 port, 500 / 0 present", Case{DisconnectOne, "500"}, Case{DisconnectOne, "0"}, false, 1.2, 1.3),
	{What: "connects per second, 8 in flight, ours / bridge", Of: Case{ConnectRate, "8"}, Per: Case{ConnectRate, "8"}, Subject: Bridge, AtLeast: true, Limits: limits(3, 2)},
	{What: "disconnects per second, 8 in flight, ours / bridge", Of: Case{DisconnectRate, "8"}, Per: Case{DisconnectRate, "8"}, Subject: Bridge, AtLeast: true, Limits: limits(10, 5)},
	absolute("links gone after the last answer", LinksGone, "8", "ms", limits(1000, 1000)),
	atMost("create a network, 0 present", NetworkCreate, "0", 1.0/8, 1.0/4),
	atMost("create a network, 200 present", NetworkCreate, "200", 1.0/15, 1.0/8),
	atMost("remove {} networks", RemoveAll, top, 1.0/8, 1.0/4),
	own("connections to the last of {} ports / to 1", Case{PortsRate, top}, Case{PortsRate, Again}, true, 0.95, 0.85),
	bare("packet of an established flow, {} ports", PortsFlow, false, 1.15),
	bare("throughput, {} ports", PortsStream, true, 0.95),
	bare("packet of an established flow, {} networks", NetsFlow, false, 1.15),
	bare("throughput, {} networks", NetsStream, true, 0.95),
	absolute("one port more among {}, kernel programming", OneMoreKernel, top, "ms", map[string]float64{NFTables: 0.1}),
	absolute("one port more among {}, programs", OneMoreExecs, top, "", limits(0, 1)),
	absolute("{} ports after a restart", Restart, top, "ms", limits(500, 2000)),
	own("connections by loopback / from outside", Case{PathRate, "loopback"}, Case{PathRate, "outside"}, true, 0.9, 0.9),
	own("throughput by loopback / from outside", Case{PathStream, "loopback"}, Case{PathStream, "outside"}, true, 0.9, 0.9),
	own("connections by hairpin / from outside", Case{PathRate, "hairpin"}, Case{PathRate, "outside"}, true, 0.9, 0.9),
	own("throughput by hairpin / from outside", Case{PathStream, "hairpin"}, Case{PathStream, "outside"}, true, 0.9, 0.9),
	absolute("programs per connect without ports", ConnectExecs, "0", "", map[string]float64{NFTables: 0}),
	absolute("programs per port, connect", PortExecs, "connect", "", limits(0, 0)),
	absolute("programs per port, disconnect", PortExecs, "disconnect", "", limits(0, 0)),
	absolute("memory per published port", Memory, top, "KiB", limits(1, 2)),
}

// A Verdict is a target as a backend met it.
type Verdict struct {
	What    string
	Limit   float64
	Got     float64
	Spread  stats.Summary // of the rounds' own ratios; N is 0 where rounds have nothing to do with each other
	Reached bool
}

// verdict is what a backend made of a target; ok is false where it was not measured or is not asked of it.
func (r *Results) verdict(t Target, backend string) (v Verdict, ok bool) {
	limit, asked := t.Limits[backend]
	of := r.resolve(t.Of, backend)
	mine := r.get(of, backend)
	if !asked || len(mine) == 0 {
		return v, false
	}
	v = Verdict{What: strings.ReplaceAll(t.What, "{}", of.Level), Limit: limit, Got: stats.Summarize(mine).Median, Spread: stats.Summarize(mine)}
	if t.Per != (Case{}) {
		if v.Got, v.Spread, ok = r.ratio(t, of, mine, backend); !ok {
			return v, false
		}
	}
	v.Reached = v.Got <= limit
	if t.AtLeast {
		v.Reached = v.Got >= limit
	}
	return v, true
}

// ratio divides medians, and the rounds for the spread.
func (r *Results) ratio(t Target, of Case, mine stats.Series, backend string) (float64, stats.Summary, bool) {
	subject := t.Subject
	if subject == "" {
		subject = backend
	}
	per := t.Per
	if per == t.Of {
		per = of // the same level for both
	}
	theirs := r.get(per, subject)
	a, b := stats.Summarize(mine), stats.Summarize(theirs)
	if a.N == 0 || b.N == 0 || a.Median == 0 || b.Median == 0 {
		return 0, stats.Summary{}, false
	}
	if t.Inverse {
		return b.Median / a.Median, stats.Summarize(stats.Ratios(theirs, mine)), true
	}
	return a.Median / b.Median, stats.Summarize(stats.Ratios(mine, theirs)), true
}

func (r *Results) resolve(c Case, subject string) Case {
	if c.Level == top {
		c.Level = r.last(c.Metric, subject)
	}
	return c
}
