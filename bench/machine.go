package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/bench/report"
	"github.com/drawbridge-net/drawbridge/bench/stats"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

func (b *bench) fact(what, is string) {
	if f := (report.Fact{What: what, Is: strings.TrimSpace(is)}); !slices.Contains(b.results.Facts, f) {
		b.results.Facts = append(b.results.Facts, f)
	}
}

// describe tells the machine.
func (b *bench) describe() {
	b.fact("Day", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info)
	b.fact("Machine", fmt.Sprintf("%d × %s, %.0f GiB memory", runtime.NumCPU(), field("/proc/cpuinfo", "model name"),
		float64(info.Totalram)*float64(info.Unit)/(1<<30)))
	var name unix.Utsname
	_ = unix.Uname(&name)
	b.fact("Kernel", unix.ByteSliceToString(name.Release[:]))
	b.fact("Load average before the run, which adds about 1", loadAverage())
	b.fact("A sync of the disk that has the state files and the engines' data", fmt.Sprintf("%.2f ms", syncTime()))
	if b.note != "" {
		b.results.Note(b.note)
	}
	b.fact("Rounds", fmt.Sprintf("%d, with the subjects taking turns; fewer where one takes long", b.options.rounds))
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// field finds the first value of a key in a file of "key : value" lines.
func field(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if k, v, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// syncTime is how many milliseconds a small write takes to be on the disk, in the median: daemons and engines wait
// for some of them in each call.
func syncTime() float64 {
	f, err := os.CreateTemp("", "bench-sync-")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var times stats.Series
	for range 21 {
		began := time.Now()
		_, err := f.WriteAt(make([]byte, 8192), 0)
		if err := errors.Join(err, unix.Fdatasync(int(f.Fd()))); err != nil {
			return 0
		}
		times = append(times, float64(time.Since(began).Microseconds())/1000)
	}
	return stats.Summarize(times).Median
}

// versions tells the programs of the hosts.
func (b *bench) versions(ctx context.Context, subjects []*subject) {
	s := subjects[0]
	if v, _, err := s.api.Version(ctx); err == nil {
		b.fact("Engine", v)
	}
	for _, p := range [][]string{{"iptables", "--version"}, {"nft", "--version"}} {
		if out, err := s.host.Run(ctx, p[0], p[1]); err == nil {
			b.fact(p[0], out)
		}
	}
	for _, s := range subjects {
		if out, err := s.host.Run(ctx, s.plugin, "version"); s.ours() && err == nil {
			b.fact("Drawbridge", strings.Join(strings.Fields(out), " ")+", built with "+runtime.Version())
			break
		}
	}
	system := field2("/etc/os-release", "PRETTY_NAME")
	if b.root == lab.Trixie {
		system += ", hosts with Debian 13"
	}
	b.fact("System", system)
}

// field2 finds a key in a file of key="value" lines.
func field2(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, "="); ok && k == key {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return "unknown"
}
