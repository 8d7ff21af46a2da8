package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/engine"
	"github.com/drawbridge-net/drawbridge/bench/report"
)

// ways are the ways by which a client from outside comes to a container: the floor's is the direct one.
var ways = []string{report.Floor, report.DNAT, report.Learned, report.Host, report.UserProxy}

// modesOfOurs are those of them that are modes of Drawbridge, with nftables: learned takes it.
var modesOfOurs = []string{report.DNAT, report.Learned, report.Host}

const (
	stopped = 100    // connections whose reader has stopped
	many    = 10_000 // published ports
)

// held are how many connections are in flight at once.
var held = []int{1000, 2000, 5000}

// files is how many a proxy must be allowed to have open for each connection in flight: the relay has no more than an eighth of its
// limit, and docker-proxy, which has two sockets and up to two pipes for each, fails at about the same number.
const files = 8

// modes compares the ways to a published port by what packets cost, and what the proxies take in memory.
func (b *bench) modes(ctx context.Context) error {
	b.prepare(ctx, "modes: a container", func(s *subject) error {
		p := []engine.Port{{HostIP: "0.0.0.0", Host: hostPort, Container: port, Proto: "tcp"}}
		return errors.Join(s.start(ctx, "target", p), s.serve(ctx, "target", s.inside("target")))
	})
	w := way{rate: report.ModeRate, stream: report.ModeStream}
	b.rounds(ctx, b.options.rounds, "modes: packets", func(s *subject, round int) error {
		to, err := s.entrance(ctx)
		if err != nil {
			return err
		}
		return b.measureWay(ctx, s, round, w, "outside", s.outside(), to)
	})
	b.each(ctx, "modes: memory of connections", func(s *subject) error { return b.weighConnections(ctx, s) })
	b.each(ctx, "modes: memory of ports", func(s *subject) error { return b.weighPorts(ctx, s) })
	return ctx.Err()
}

// weighConnections enters what connections take that are open at once.
func (b *bench) weighConnections(ctx context.Context, s *subject) error {
	if s.name != report.Host && s.name != report.UserProxy {
		return nil // no process has them
	}
	enter := func(metric string, n int, v float64) { b.results.Add(at(metric, n), s.name, 0, v) }
	before := s.resident()
	err := s.hold(ctx, "stopped", stopped, func(l loaded) {
		enter(report.StoppedMemory, stopped, (s.resident()-before)/stopped)
		enter(report.StoppedBytes, stopped, float64(l.Taken)/stopped/(1<<20))
	})
	var limit syscall.Rlimit
	err = errors.Join(err, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	for _, n := range held {
		if limit.Cur < uint64(files*(n+stopped)) {
			b.results.Note(fmt.Sprintf("No %d connections in flight through %s: the limit of open files here is %d.", n, s.name, limit.Cur))
			continue
		}
		err = errors.Join(err, s.hold(ctx, "held", n, func(loaded) { enter(report.HeldMemory, n, (s.resident()-before)/float64(n)) }))
	}
	return err
}

// hold has a client keep connections open while something is done.
func (s *subject) hold(ctx context.Context, kind string, n int, do func(loaded)) error {
	to, err := s.entrance(ctx)
	if err != nil {
		return err
	}
	p, err := s.host.Start(fmt.Sprintf("%s-%d", kind, n), append(s.outside(), s.self, "load", kind, to.String(), strconv.Itoa(n)), nil)
	if err != nil {
		return err
	}
	var l loaded
	for json.Unmarshal([]byte(p.Log()), &l) != nil {
		select {
		case <-p.Done():
			return fmt.Errorf("the client ended: %s", p.Log())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	do(l)
	return p.Stop()
}

// weighPorts enters what the relay has with few ports and with many.
func (b *bench) weighPorts(ctx context.Context, s *subject) error {
	if s.name != report.Host {
		return nil // docker-proxy would be as many processes
	}
	for _, n := range []int{1, many} {
		if err := s.fillPorts(ctx, n); err != nil {
			return err
		}
		b.results.Add(at(report.PortsMemory, n), s.name, 0, s.resident()/1024)
	}
	return nil
}

// resident is the memory of the processes that have the sockets of published ports, the daemon not among them, in KiB.
func (s *subject) resident() (sum float64) {
	for _, pid := range s.holders() {
		sum += kib(filepath.Join("/proc", strconv.Itoa(pid), "status"), "VmRSS")
	}
	return sum
}
