// Bench measures what Drawbridge costs beside Docker's own bridge driver and beside a plugin that does nothing, on real
// engines in throw-away hosts (package test/lab). Nothing of it touches the machine's own network.
//
//	go run ./bench -quick                  three minutes
//	go run ./bench                         what docs/benchmarks/results.md has
//	go run ./bench -subjects bridge,iptables -scenarios connect -rounds 3 -out /tmp/bench
//
// It needs root and the packages that test/install.sh installs; `make bench` does both. The rules of the
// measurement are in docs/benchmarks/README.md. The words floor, direct, serve and load in place of flags are for the
// program's own use inside the hosts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge-net/drawbridge/bench/report"
)

// options are what is measured, and how often.
type options struct {
	plugin, out, root   string
	note                string // for the report
	subjects, scenarios []string
	quick, debug        bool
	rounds              int   // 0: as many as the mode has
	networks, ports     []int // levels
	bridgePorts         int   // the most ports that Docker's own driver is asked for
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := help(ctx, os.Args[1:])
	if err == errNoHelper {
		var o options
		if o, err = parse(os.Args[1:]); err == nil {
			err = run(ctx, o)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&o.plugin, "plugin", "bin/drawbridge", "the built program")
	f.StringVar(&o.out, "out", "", "where results.md, results.svg and modes.md are written; default bin/benchmarks (-quick) or docs/benchmarks")
	f.StringVar(&o.root, "root", "", "the hosts' files: empty for this machine's, or trixie")
	f.StringVar(&o.note, "note", "", "a sentence for the results, such as what else the machine does")
	f.BoolVar(&o.quick, "quick", os.Getenv("BENCH_QUICK") == "1", "fewer rounds and lower levels (also BENCH_QUICK=1)")
	f.BoolVar(&o.debug, "debug", false, "have the daemons log their passes, and keep the logs beside the results")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of every measurement; 0 for 3 (-quick) or 7")
	subjects := f.String("subjects", "bridge,floor,iptables,nftables", "what is compared: bridge, floor, direct (a floor that makes the link in the container itself), plain (a floor whose engine writes its own rules), or any backend of Drawbridge")
	scenarios := f.String("scenarios", strings.Join(names(), ","), "what is measured")
	networks := f.String("networks", "", "numbers of networks; default 0,50 (-quick) or 0,50,200,500")
	ports := f.String("ports", "", "numbers of published ports; default 1,200 (-quick) or 1,100,1000,10000")
	f.IntVar(&o.bridgePorts, "bridge-ports", 1000, "the most ports that bridge is asked for: it takes two processes and several rules for each")
	_ = f.Parse(args)
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown word %q", f.Arg(0))
	}
	o.subjects, o.scenarios = strings.Split(*subjects, ","), strings.Split(*scenarios, ",")
	for _, name := range o.scenarios {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("unknown scenario %q: there are %s", name, strings.Join(names(), ", "))
		}
	}
	var err error
	if o.networks, err = levels(*networks, o.quick, []int{0, 50}, []int{0, 50, 200, 500}); err != nil {
		return o, err
	}
	if o.ports, err = levels(*ports, o.quick, []int{1, 200}, []int{1, 100, 1000, 10000}); err != nil {
		return o, err
	}
	if o.rounds == 0 {
		o.rounds = choose(o.quick, 3, 7)
	}
	if o.out == "" {
		o.out = choose(o.quick, "bin/benchmarks", "docs/benchmarks")
	}
	o.plugin, err = filepath.Abs(o.plugin)
	return o, err
}

func choose[T any](quick bool, short, full T) T {
	if quick {
		return short
	}
	return full
}

// levels reads a list of growing numbers.
func levels(text string, quick bool, short, full []int) ([]int, error) {
	if text == "" {
		return choose(quick, short, full), nil
	}
	var out []int
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || len(out) > 0 && n <= out[len(out)-1] {
			return nil, fmt.Errorf("%q is not a list of growing numbers", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// A scenario is a group of measurements on hosts of their own.
type scenario struct {
	name     string
	run      func(*bench, context.Context) error
	subjects []string // in place of those that were asked for, with a file of results of its own
}

func scenarios() []scenario {
	return []scenario{
		{"networks", (*bench).networks, nil},
		{"connect", (*bench).connect, nil},
		{"flight", (*bench).flight, nil},
		{"published", (*bench).published, nil},
		{"modes", (*bench).modes, ways},
	}
}

func names() []string {
	var out []string
	for _, s := range scenarios() {
		out = append(out, s.name)
	}
	return out
}

// run carries out the scenarios and writes what there is after each, so that an interrupted run has results too.
func run(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	b := &bench{options: o, began: time.Now(), results: &report.Results{Subjects: o.subjects}}
	b.describe()
	for _, s := range scenarios() {
		if !slices.Contains(o.scenarios, s.name) {
			continue
		}
		with := b
		if s.subjects != nil {
			with = b.apart(s.subjects)
		}
		if err := with.stage(ctx, s); err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		if err := with.write(); err != nil {
			return err
		}
	}
	b.say("done: %s", o.out)
	return nil
}
