package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/execs"
	"github.com/drawbridge-net/drawbridge/bench/report"
)

// calm is the pause before a subject's turn: what another one still does in the background must not be counted to this one.
// While the kernel removes a bridge it makes no link for 15 ms, on no host.
const calm = 500 * time.Millisecond

// A bench is one run.
type bench struct {
	options
	began   time.Time
	results *report.Results
	live    []*subject // of the running scenario
	opened  []*subject // all that have a host
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// stage gives every subject a new host for the time of a scenario.
func (b *bench) stage(ctx context.Context, sc scenario) (err error) {
	b.say("%s: starting the hosts", sc.name)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.live = nil
	defer func() {
		for _, s := range b.opened {
			err = errors.Join(err, b.keepLog(s, sc.name), s.close())
		}
		b.opened = nil
	}()
	for _, name := range b.subjects {
		s := &subject{name: name, self: self, plugin: b.plugin, verbose: b.debug || sc.name == "published"}
		b.opened = append(b.opened, s)
		switch err := s.open(ctx, b.root); {
		case errors.Is(err, errRefused):
			b.results.Note(fmt.Sprintf("Without %s: this Drawbridge has no such backend.", name))
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		default:
			b.live = append(b.live, s)
		}
	}
	if len(b.live) == 0 {
		return errors.New("there is nothing to measure")
	}
	b.versions(ctx, b.live)
	return sc.run(b, ctx)
}

// twins gives the subjects that are live second hosts, on which nothing is in the way. What is measured on both in
// the same rounds can be compared, which it cannot with what was measured minutes ago.
func (b *bench) twins(ctx context.Context, furnish func(*subject) error) []*subject {
	var out []*subject
	for _, s := range b.live {
		if s.failed == nil {
			out = append(out, &subject{name: s.name, self: s.self, plugin: s.plugin, twin: true})
		}
	}
	b.opened = append(b.opened, out...)
	main := b.live
	b.live = out
	b.prepare(ctx, "second hosts", func(s *subject) error { return errors.Join(s.open(ctx, b.root), furnish(s)) })
	b.live = main
	return out
}

// beside lets twins take turns with the others.
func (b *bench) beside(twins []*subject, do func()) {
	main := b.live
	b.live = append(slices.Clone(main), twins...)
	do()
	b.live = main
}

// keepLog copies the log of a daemon that was asked to say more.
func (b *bench) keepLog(s *subject, scenario string) error {
	if !b.debug || s.twin || !s.ours() || s.daemon == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(b.out, scenario+"-"+s.name+".log"), []byte(s.daemon.Log()), 0o644)
}

// each does something on every host. One on which it fails is out of the scenario, and the report says so.
func (b *bench) each(ctx context.Context, what string, do func(*subject) error) {
	b.say("%s", what)
	for _, s := range b.live {
		b.try(ctx, s, what, do)
	}
}

// prepare does the same for what is not measured, on all hosts at the same time.
func (b *bench) prepare(ctx context.Context, what string, do func(*subject) error) {
	b.say("%s", what)
	var wg sync.WaitGroup
	for _, s := range b.live {
		wg.Go(func() { b.try(ctx, s, what, do) })
	}
	wg.Wait()
}

func (b *bench) try(ctx context.Context, s *subject, what string, do func(*subject) error) {
	if s.failed != nil || ctx.Err() != nil {
		return
	}
	if s.failed = do(s); s.failed != nil {
		b.say("%s: %s: %v", what, s.name, s.failed)
		b.results.Note(fmt.Sprintf("%s failed at: %s (%v).", s.name, what, s.failed))
	}
}

// rounds lets the subjects take turns, each round beginning with another one, so that whatever else the machine does
// in a round it does to all.
func (b *bench) rounds(ctx context.Context, n int, what string, do func(s *subject, round int) error) {
	b.say("%s: %d rounds", what, n)
	for round := range n {
		for i := range b.live {
			s := b.live[(i+round)%len(b.live)]
			time.Sleep(calm)
			b.try(ctx, s, what, func(s *subject) error { return do(s, round) })
		}
	}
}

// timed enters the milliseconds that something takes.
func (b *bench) timed(c report.Case, s *subject, round int, do func() error) error {
	began := time.Now()
	err := do()
	b.results.Add(c, s.name, round, float64(time.Since(began).Microseconds())/1000)
	return err
}

// counted enters how many programs something starts.
func (b *bench) counted(c report.Case, s *subject, do func() error) (int, error) {
	counter, err := execs.New(s.pid())
	if err != nil {
		return 0, err
	}
	defer counter.Close()
	if err := do(); err != nil {
		return 0, err
	}
	n, err := counter.Count()
	if err == nil && c.Metric != "" {
		b.results.Add(c, s.name, 0, float64(n))
	}
	return n, err
}

// apart is the same run for other subjects, with results of their own.
func (b *bench) apart(subjects []string) *bench {
	out := *b
	out.subjects = subjects
	out.results = &report.Results{Subjects: subjects, Facts: slices.Clone(b.results.Facts), Ranges: true}
	if b.note != "" {
		out.results.Note(b.note)
	}
	return &out
}

// write writes what there is.
func (b *bench) write() error {
	if b.results.Ranges {
		return os.WriteFile(filepath.Join(b.out, "modes.md"), []byte(b.results.Markdown(choose(b.quick, "Ways to a published port: a quick run", "Ways to a published port"), "")), 0o644)
	}
	title := "Results"
	if b.quick {
		title += " of a quick run"
	}
	return errors.Join(
		os.WriteFile(filepath.Join(b.out, "results.md"), []byte(b.results.Markdown(title, "results.svg")), 0o644),
		os.WriteFile(filepath.Join(b.out, "results.svg"), []byte(b.results.SVG()), 0o644))
}

func at(metric string, level int) report.Case {
	return report.Case{Metric: metric, Level: strconv.Itoa(level)}
}

// drop takes those out of the running that are not to have part in what follows.
func (b *bench) drop(out func(*subject) bool) {
	b.live = slices.DeleteFunc(slices.Clone(b.live), out)
}
