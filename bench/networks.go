package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/report"
)

// removeAt are the levels after which all networks are removed one after the other.
func (b *bench) removeAt(level int) bool { return level == choose(b.quick, 50, 200) }

// networks measures the creation and removal of a network beside others, and what their number costs a container
// that talks to the outside.
func (b *bench) networks(ctx context.Context) error {
	b.prepare(ctx, "networks: a container", func(s *subject) error {
		return errors.Join(s.start(ctx, "target", nil), s.serve(ctx, "outside", s.outside()))
	})
	for _, level := range b.options.networks {
		b.prepare(ctx, fmt.Sprintf("networks: %d of them", level), func(s *subject) error { return s.fillNetworks(ctx, level) })
		b.rounds(ctx, b.options.rounds, fmt.Sprintf("networks: one more beside %d", level), func(s *subject, round int) error {
			err := b.timed(at(report.NetworkCreate, level), s, round, func() error { return s.createNetwork(ctx, "one") })
			return errors.Join(err, b.timed(at(report.NetworkRemove, level), s, round, func() error { return s.api.RemoveNetwork(ctx, "one") }))
		})
		b.outwards(ctx, max(level, 1))
		if b.removeAt(level) {
			b.removeAll(ctx, level)
		}
	}
	b.each(ctx, "networks: counting programs", func(s *subject) error {
		_, err := b.counted(report.Case{Metric: report.NetworkExecs, Level: "create"}, s, func() error { return s.createNetwork(ctx, "one") })
		_, err2 := b.counted(report.Case{Metric: report.NetworkExecs, Level: "remove"}, s, func() error { return s.api.RemoveNetwork(ctx, "one") })
		return errors.Join(err, err2)
	})
	return ctx.Err()
}

// fillNetworks makes networks until there are n, and then the one that is used anew, so that it is the last: in
// a list of rules that is the worst place.
func (s *subject) fillNetworks(ctx context.Context, n int) error {
	if err := errors.Join(s.api.Disconnect(ctx, busy, "target"), s.api.RemoveNetwork(ctx, busy)); err != nil {
		return err
	}
	for ; s.filled < n; s.filled++ {
		if err := s.createNetwork(ctx, fmt.Sprintf("net%d", s.filled)); err != nil {
			return err
		}
	}
	return errors.Join(s.createNetwork(ctx, busy), s.api.Connect(ctx, busy, "target"))
}

// removeAll waits after each subject until the kernel has taken the links away too, which would keep it from the next one's.
func (b *bench) removeAll(ctx context.Context, level int) {
	b.each(ctx, fmt.Sprintf("networks: removing %d", level), func(s *subject) error {
		before, err := s.links()
		if err != nil {
			return err
		}
		before -= s.filled
		began := time.Now()
		for ; s.filled > 0; s.filled-- {
			if err := s.api.RemoveNetwork(ctx, fmt.Sprintf("net%d", s.filled-1)); err != nil {
				return err
			}
		}
		b.results.Add(at(report.RemoveAll, level), s.name, 0, time.Since(began).Seconds())
		took, err := s.linksGone(ctx, before)
		b.results.Add(at(report.RemoveAllLinks, level), s.name, 0, took/1000)
		return err
	})
}

// outwards measures the way from the container to the client outside.
func (b *bench) outwards(ctx context.Context, level int) {
	metrics := way{report.NetsRate, report.NetsTrip, report.NetsNew, report.NetsFlow, report.NetsStream}
	b.rounds(ctx, b.dataRounds(), fmt.Sprintf("networks: packets beside %d", level), func(s *subject, round int) error {
		return b.measureWay(ctx, s, round, metrics, strconv.Itoa(level), s.inside("target"), netip.AddrPortFrom(s.visitor.Addr4(), port))
	})
}

// dataRounds is how often packets are measured.
func (b *bench) dataRounds() int { return max(b.options.rounds-2, 2) }

// A way is the metrics of a way for packets; an empty one is left out.
type way struct{ rate, trip, first, flow, stream string }

func (b *bench) measureWay(ctx context.Context, s *subject, round int, w way, level string, from place, to netip.AddrPort) error {
	ms, flows := choose(b.quick, 300, 700), choose(b.quick, 500, 2000)
	add := func(metric string, v float64) {
		if metric != "" {
			b.results.Add(report.Case{Metric: metric, Level: level}, s.name, round, v)
		}
	}
	l, err := s.load(ctx, from, "connections", to, ms)
	if err != nil {
		return err
	}
	add(w.rate, l.Rate)
	if w.trip != "" {
		if l, err = s.load(ctx, from, "flows", to, flows); err != nil {
			return err
		}
		add(w.trip, l.Packets.RoundTrip)
		add(w.first, l.Packets.New)
		add(w.flow, l.Packets.Established)
	}
	if l, err = s.load(ctx, from, "stream", to, ms); err != nil {
		return err
	}
	add(w.stream, l.Stream)
	return nil
}
