package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/bench/execs"
	"github.com/drawbridge-net/drawbridge/bench/report"
	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
)

// restart measures how long a daemon takes from its start until it has compared the host with its state and put right
// what differs. Its rules are gone before, as after a flush by somebody else: this is the most that is to be done.
func (b *bench) restart(ctx context.Context) {
	b.rounds(ctx, b.dataRounds(), "published: restart", func(s *subject, round int) error {
		if !s.ours() {
			return nil
		}
		if err := s.daemon.Stop(); err != nil {
			return err
		}
		if _, err := s.host.Run(ctx, s.plugin, "purge", "--rules-only", "--state", s.state()); err != nil {
			return err
		}
		return b.timed(at(report.Restart, s.filled+1), s, round, func() error {
			if err := s.startPlugin(ctx); err != nil {
				return err
			}
			return s.awaitReady(ctx)
		})
	})
}

// awaitReady makes a call that concerns nothing: the daemon answers it after its first comparison.
func (s *subject) awaitReady(ctx context.Context) error {
	driver, _ := s.drivers()
	transport := unixsocket.Transport(s.host.Path(pluginsDir + driver + ".sock"))
	transport.DisableKeepAlives = true
	c := http.Client{Transport: transport}
	nothing := fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q}`, strings.Repeat("0", 64), strings.Repeat("0", 64))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/NetworkDriver.EndpointOperInfo", strings.NewReader(nothing))
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err == nil && strings.Contains(string(said), "starting") {
		return fmt.Errorf("the daemon is not ready in time: %s", said)
	}
	return err
}

// memoryNow is what those processes have that serve published ports, in KiB.
func (b *bench) memoryNow() map[*subject]float64 {
	out := map[*subject]float64{}
	for _, s := range b.live {
		out[s] = s.pss()
	}
	return out
}

// memory divides what was added since the beginning by the ports that were.
func (b *bench) memory(ctx context.Context, before map[*subject]float64) {
	b.each(ctx, "published: memory", func(s *subject) error {
		if s.filled > 0 {
			b.results.Add(at(report.Memory, s.filled+1), s.name, 0, (s.pss()-before[s])/float64(s.filled))
		}
		return nil
	})
}

// pss is the memory of the plugin's daemon and of its relay, or of Docker's proxies, in KiB. Pages that processes share count in
// parts: the proxies are many of one program.
func (s *subject) pss() float64 {
	pids := s.holders()
	if s.daemon != nil {
		pids = append(pids, s.daemon.Pid)
	}
	var sum float64
	for _, pid := range pids {
		sum += kib(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
	}
	return sum
}

// holders are the processes that have the sockets of published ports.
func (s *subject) holders() []int {
	name, daemon := "docker-proxy", 0
	if s.daemon != nil {
		name, daemon = "drawbridge", s.daemon.Pid
	}
	var out []int
	mine, _ := os.Readlink(filepath.Join(s.proc(), "ns/pid"))
	for _, pid := range execs.Pids() {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) != name || pid == daemon {
			continue
		}
		if ns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); ns == mine {
			out = append(out, pid)
		}
	}
	return out
}

// kib is a value of a file of proc that is in KiB.
func kib(path, key string) float64 {
	text := field(path, key)
	n, _ := strconv.ParseFloat(strings.TrimSuffix(text, " kB"), 64)
	return n
}
