//go:build load

package load

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// resident is how much memory the daemon has, in KiB.
func (m *machine) resident() int {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.plugin.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	var kib int
	if _, after, ok := strings.Cut(string(text), "VmRSS:"); ok {
		_, _ = fmt.Sscan(after, &kib)
	}
	if kib == 0 {
		m.t.Fatalf("no resident memory in %s", text)
	}
	return kib
}

// trimmed is longer than the time after which the daemon looks whether it has memory to give back.
const trimmed = 12 * time.Second

// settled is the least memory that the daemon has in the time in which it gives it back.
func (m *machine) settled() int {
	m.t.Helper()
	least := m.resident()
	for end := time.Now().Add(trimmed); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		least = min(least, m.resident())
	}
	return least
}

// goroutines ends the daemon and returns how many it had, by what started them.
func (m *machine) goroutines() map[string]int {
	m.t.Helper()
	before := len(m.plugin.Log())
	if err := syscall.Kill(m.plugin.Pid, syscall.SIGQUIT); err != nil {
		m.t.Fatal(err)
	}
	<-m.plugin.Done()
	dump := m.plugin.Log()[before:]
	started := map[string]int{}
	var at string
	met := map[string]bool{} // the runtime shows those that are on a thread once more
	for _, found := range creator.FindAllStringSubmatch(dump, -1) {
		switch by := found[2]; {
		case by == "":
			at = found[1]
		case !met[at]:
			met[at] = true
			started[by]++
		}
	}
	if len(started) == 0 {
		m.t.Fatalf("no goroutines in %s", dump)
	}
	return started
}

// creator finds the beginning and the end of what is said of a goroutine: its number, and what started it.
var creator = regexp.MustCompile(`(?m)^goroutine (\d+) |^created by (\S+) in goroutine`)

// connections are what net/http has goroutines for, those that idle too. They are counted as files.
const connections = "net/http."

// relay is what waits for the end of the process that holds published ports, in the daemon that started it.
const relay = "github.com/drawbridge-net/drawbridge/internal/process.Detach"

// noneMore checks that the daemon, which it ends, has no goroutines that one has not that met little, which it starts and ends. What is at
// work for a moment is no leak: a second daemon must have it too, after the same load.
func (m *machine) noneMore(load round, before map[string][]string) {
	m.t.Helper()
	loaded := m.goroutines()
	fresh := m.another(little, before)
	fresh[relay] = max(fresh[relay], 1) // that of the first daemon lives on, and a later one starts none
	m.t.Logf("goroutines after the load, by what started them: %v", loaded)
	more := func(of map[string]int) (names []string) {
		for by, n := range of {
			if !strings.HasPrefix(by, connections) && n > fresh[by] {
				names = append(names, by)
			}
		}
		return names
	}
	left := more(loaded)
	if len(left) == 0 {
		return
	}
	again := m.another(load, before)
	m.t.Logf("goroutines after the load, once more: %v", again)
	for _, by := range left {
		if slices.Contains(more(again), by) {
			m.t.Errorf("%d and %d goroutines of %s are left, a fresh daemon has %d", loaded[by], again[by], by, fresh[by])
		}
	}
}

// another starts a daemon, has it meet a load, ends it, and returns its goroutines.
func (m *machine) another(load round, before map[string][]string) map[string]int {
	m.t.Helper()
	m.startPlugin()
	m.run(load)
	m.asBefore(before)
	return m.goroutines()
}

// noRaces checks what the race detector has said.
func (m *machine) noRaces() {
	m.t.Helper()
	if _, report, found := strings.Cut(m.plugin.Log(), "WARNING: DATA RACE"); found {
		report, _, _ = strings.Cut(report, "\n==================")
		m.t.Errorf("a data race:%s", report)
	}
}
