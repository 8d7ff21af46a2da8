package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/engine"
	"github.com/drawbridge-net/drawbridge/bench/report"
)

// own are the numbers of ports that a container publishes itself.
var own = []int{0, 1, 10, 100}

// others is how many ports are published by other containers, 100 by each, beside one that is connected.
const others = 500

func withPorts(n int) string { return fmt.Sprintf("with%d", n) }

// connect measures how long it takes to connect a running container and to disconnect it, which publishes its ports and
// withdraws them.
func (b *bench) connect(ctx context.Context) error {
	b.prepare(ctx, "connect: containers", func(s *subject) error {
		for i, n := range own {
			if err := s.startApart(ctx, withPorts(n), publish("", 10000+1000*i, n)); err != nil {
				return err
			}
		}
		return nil
	})
	b.rounds(ctx, b.options.rounds, "connect: own ports", func(s *subject, round int) error {
		for _, n := range own {
			if err := b.onAndOff(ctx, s, round, n, at(report.Connect, n), at(report.Disconnect, n)); err != nil {
				return err
			}
		}
		return nil
	})
	b.countPrograms(ctx)
	b.prepare(ctx, fmt.Sprintf("connect: %d ports of others", others), func(s *subject) error {
		for i := range others / 100 {
			if err := s.start(ctx, fmt.Sprintf("other%d", i), publish("", 20000+100*i, 100)); err != nil {
				return err
			}
		}
		return nil
	})
	twins := b.twins(ctx, func(s *subject) error { return s.startApart(ctx, withPorts(1), publish("", 10000, 1)) })
	b.beside(twins, func() {
		b.rounds(ctx, b.options.rounds, "connect: ports of others", func(s *subject, round int) error {
			present := choose(s.twin, 0, others)
			return b.onAndOff(ctx, s, round, 1, at(report.ConnectOne, present), at(report.DisconnectOne, present))
		})
	})
	return ctx.Err()
}

func (b *bench) onAndOff(ctx context.Context, s *subject, round, ports int, on, off report.Case) error {
	err := b.timed(on, s, round, func() error { return s.api.Connect(ctx, busy, withPorts(ports)) })
	return errors.Join(err, b.timed(off, s, round, func() error { return s.api.Disconnect(ctx, busy, withPorts(ports)) }))
}

func (b *bench) countPrograms(ctx context.Context) {
	b.each(ctx, "connect: counting programs", func(s *subject) error {
		on, off := map[int]int{}, map[int]int{}
		for _, n := range own {
			var err, err2 error
			on[n], err = b.counted(at(report.ConnectExecs, n), s, func() error { return s.api.Connect(ctx, busy, withPorts(n)) })
			off[n], err2 = b.counted(at(report.DisconnectExecs, n), s, func() error { return s.api.Disconnect(ctx, busy, withPorts(n)) })
			if err := errors.Join(err, err2); err != nil {
				return err
			}
		}
		perPort := func(level string, counts map[int]int) {
			// To a tenth: what the daemon does in the background may fall into either count.
			n := math.Round(float64(counts[100]-counts[1])/99*10) / 10
			b.results.Add(report.Case{Metric: report.PortExecs, Level: level}, s.name, 0, max(n, 0))
		}
		perPort("connect", on)
		perPort("disconnect", off)
		return nil
	})
}

// crowd is how many containers are connected at the same time or one after the other.
const crowd = 16

// flight measures requests that come together.
func (b *bench) flight(ctx context.Context) error {
	b.prepare(ctx, "flight: containers", func(s *subject) error {
		for i := range crowd {
			p := []engine.Port{{Host: 10000 + i, Container: 80, Proto: "tcp"}}
			if err := s.startApart(ctx, fmt.Sprintf("c%d", i), p); err != nil {
				return err
			}
		}
		return nil
	})
	for _, n := range []int{1, 8} {
		b.rounds(ctx, max(b.options.rounds-2, 2), fmt.Sprintf("flight: %d at a time", n), func(s *subject, round int) error {
			return b.flown(ctx, s, round, n)
		})
	}
	return ctx.Err()
}

func (b *bench) flown(ctx context.Context, s *subject, round, n int) error {
	time.Sleep(calm)
	before, err := s.links()
	if err != nil {
		return err
	}
	rate, err := together(n, func(name string) error { return s.api.Connect(ctx, busy, name) })
	if err != nil {
		return err
	}
	b.results.Add(at(report.ConnectRate, n), s.name, round, rate)
	time.Sleep(calm)
	if rate, err = together(n, func(name string) error { return s.api.Disconnect(ctx, busy, name) }); err != nil {
		return err
	}
	b.results.Add(at(report.DisconnectRate, n), s.name, round, rate)
	took, err := s.linksGone(ctx, before)
	b.results.Add(at(report.LinksGone, n), s.name, round, took)
	return err
}

// together does something with every container of the crowd, n at a time, and returns how many per second.
func together(n int, do func(name string) error) (float64, error) {
	todo := make(chan string, crowd)
	for i := range crowd {
		todo <- fmt.Sprintf("c%d", i)
	}
	close(todo)
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			for name := range todo {
				errs[i] = errors.Join(errs[i], do(name))
			}
		})
	}
	wg.Wait()
	return crowd / time.Since(began).Seconds(), errors.Join(errs...)
}

// linksGone waits, up to a limit, until there are as many links as before and returns the milliseconds.
func (s *subject) linksGone(ctx context.Context, before int) (float64, error) {
	const limit = 10 * time.Second
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		now, err := s.links()
		if took := time.Since(began); err != nil || now <= before || took > limit || ctx.Err() != nil {
			return float64(took.Microseconds()) / 1000, err
		}
	}
}
