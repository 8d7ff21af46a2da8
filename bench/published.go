package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/engine"
	"github.com/drawbridge-net/drawbridge/bench/report"
)

const (
	hostPort = 9000 // at which the target's server is published
	// each is the most ports that one container publishes.
	each = 1000
)

// published measures what the number of published ports costs the packets to the last of them, and what it costs to
// publish one more, to start again, and in memory.
func (b *bench) published(ctx context.Context) error {
	b.prepare(ctx, "published: a container", func(s *subject) error { return s.startTarget(ctx) })
	b.paths(ctx)
	memory := b.memoryNow()
	for _, level := range b.options.ports {
		if level > b.bridgePorts {
			b.lastOf(ctx, memory, func(s *subject) bool { return s.name == report.Bridge })
		}
		b.prepare(ctx, fmt.Sprintf("published: %d ports", level), func(s *subject) error { return s.fillPorts(ctx, level) })
		if level == slices.Max(b.options.ports) {
			twins := b.twins(ctx, func(s *subject) error { return s.startTarget(ctx) })
			b.beside(twins, func() { b.inwards(ctx, level) })
			continue
		}
		b.inwards(ctx, level)
	}
	b.lastOf(ctx, memory, func(*subject) bool { return true })
	return ctx.Err()
}

// startTarget makes the container with the server, and one for a port more.
func (s *subject) startTarget(ctx context.Context) error {
	var ports []engine.Port
	for _, proto := range []string{"tcp", "udp"} {
		ports = append(ports, engine.Port{HostIP: "0.0.0.0", Host: hostPort, Container: port, Proto: proto})
	}
	if err := s.start(ctx, "target", ports); err != nil {
		return err
	}
	more := []engine.Port{{HostIP: "0.0.0.0", Host: hostPort + 1, Container: 80, Proto: "tcp"}}
	return errors.Join(s.startApart(ctx, "more", more), s.serve(ctx, "target", s.inside("target")))
}

// lastOf measures what is asked once, at the highest level, of some, who then leave.
func (b *bench) lastOf(ctx context.Context, before map[*subject]float64, of func(*subject) bool) {
	rest := b.live
	b.drop(func(s *subject) bool { return !of(s) })
	b.memory(ctx, before)
	b.oneMore(ctx)
	b.restart(ctx)
	b.live = rest
	b.drop(of)
}

// fillPorts publishes ports until there are n with the target's, which is then connected anew, so that it is the last.
func (s *subject) fillPorts(ctx context.Context, n int) error {
	if s.bare() {
		return nil // it publishes none
	}
	for s.filled < n-1 {
		count := min(each, n-1-s.filled)
		if err := s.start(ctx, fmt.Sprintf("filler%d", s.filled), publish("0.0.0.0", 20000+s.filled, count)); err != nil {
			return err
		}
		s.filled += count
	}
	return errors.Join(s.api.Disconnect(ctx, busy, "target"), s.api.Connect(ctx, busy, "target"))
}

// entrance is where clients outside reach the target's server: the floor publishes nothing, and is asked directly.
func (s *subject) entrance(ctx context.Context) (netip.AddrPort, error) {
	if !s.bare() {
		return netip.AddrPortFrom(s.visitor.Host.Addr4(), hostPort), nil
	}
	addr, err := s.api.Address(ctx, "target", busy)
	return netip.AddrPortFrom(addr, port), err
}

func (b *bench) inwards(ctx context.Context, level int) {
	metrics := way{report.PortsRate, report.PortsTrip, report.PortsNew, report.PortsFlow, report.PortsStream}
	b.rounds(ctx, b.dataRounds(), fmt.Sprintf("published: packets to the last of %d", level), func(s *subject, round int) error {
		to, err := s.entrance(ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprint(level)
		if s.twin {
			name = report.Again
		}
		return b.measureWay(ctx, s, round, metrics, name, s.outside(), to)
	})
}

// paths compares the ways to one published port.
func (b *bench) paths(ctx context.Context) {
	w := way{rate: report.PathRate, stream: report.PathStream}
	b.rounds(ctx, b.dataRounds(), "published: ways to a port", func(s *subject, round int) error {
		if s.bare() {
			return nil
		}
		outer := netip.AddrPortFrom(s.visitor.Host.Addr4(), hostPort)
		loopback := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), hostPort)
		return errors.Join(
			b.measureWay(ctx, s, round, w, "outside", s.outside(), outer),
			b.measureWay(ctx, s, round, w, "loopback", nil, loopback),
			b.measureWay(ctx, s, round, w, "hairpin", s.inside("target"), outer))
	})
}

// oneMore publishes a port beside all others.
func (b *bench) oneMore(ctx context.Context) {
	b.rounds(ctx, b.options.rounds, "published: one port more", func(s *subject, round int) error {
		if s.bare() {
			return nil
		}
		seen := s.logged()
		err := b.timed(at(report.OneMore, s.filled+1), s, round, func() error { return s.api.Connect(ctx, busy, "more") })
		time.Sleep(calm) // the log comes after the answer
		if s.ours() {
			said := s.logged()[len(seen):]
			b.results.Add(at(report.OneMoreFirewall, s.filled+1), s.name, round, firewallTime(said))
			if s.name == report.NFTables {
				b.results.Add(at(report.OneMoreKernel, s.filled+1), s.name, round, kernelTime(said))
			}
		}
		return errors.Join(err, s.api.Disconnect(ctx, busy, "more"))
	})
	b.each(ctx, "published: counting programs", func(s *subject) error {
		if s.bare() {
			return nil
		}
		_, err := b.counted(at(report.OneMoreExecs, s.filled+1), s, func() error { return s.api.Connect(ctx, busy, "more") })
		return errors.Join(err, s.api.Disconnect(ctx, busy, "more"))
	})
}

func (s *subject) logged() string {
	if s.daemon == nil {
		return ""
	}
	return s.daemon.Log()
}

// firewallStep is the time of the firewall step in the log of a pass.
var firewallStep = regexp.MustCompile(`\bfirewall ([0-9][^,"]*)`)

// firewallTime is how many milliseconds the passes that calls waited for took for the firewall.
func firewallTime(log string) float64 {
	return sum(log, firewallStep, func(line string) bool {
		return strings.Contains(line, "pass ended") && strings.Contains(line, "change")
	})
}

// transaction is the time that the kernel took for a transaction of nftables.
var transaction = regexp.MustCompile(`"nftables transaction" duration=(\S+)`)

// kernelTime is how many milliseconds the kernel took for transactions.
func kernelTime(log string) float64 {
	return sum(log, transaction, func(string) bool { return true })
}

// sum adds up the durations, in milliseconds, that lines of a log tell.
func sum(log string, duration *regexp.Regexp, of func(line string) bool) float64 {
	var total time.Duration
	for line := range strings.Lines(log) {
		if m := duration.FindStringSubmatch(line); m != nil && of(line) {
			d, _ := time.ParseDuration(m[1])
			total += d
		}
	}
	return float64(total.Nanoseconds()) / 1e6
}
