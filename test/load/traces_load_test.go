//go:build load

package load

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// traces is all that there is on the host, by what it is, as lines.
func (m *machine) traces() (map[string][]string, error) {
	all := map[string][]string{}
	for what, look := range map[string]func() (string, error){
		"state": m.state, "links": m.links,
		"rules":   func() (string, error) { return m.Rules(m.t.Context()) },
		"tables":  func() (string, error) { return m.NFTables(m.t.Context()) },
		"sets":    func() (string, error) { return m.Run(m.t.Context(), "ipset", "list", "-n") },
		"sockets": func() (string, error) { return m.Run(m.t.Context(), "ss", "-H", "-l", "-n", "-t", "-u") },
		"zones": func() (string, error) {
			return m.Run(m.t.Context(), "firewall-cmd", "--zone=docker", "--list-interfaces")
		},
	} {
		text, err := look()
		if err != nil {
			return nil, fmt.Errorf("looking at %s: %w", what, err)
		}
		all[what] = mergeCopies(strings.Split(strings.TrimSpace(text), "\n"))
		if what == "sockets" { // in no order of their own
			slices.Sort(all[what])
		}
	}
	return all, nil
}

// mergeCopies makes one of jumps to DOCKER-USER that stand together: dockerd makes a second one itself where it is between taking one
// away and putting it back, and without a network of ours nobody but it cares.
func mergeCopies(lines []string) []string {
	return slices.CompactFunc(lines, func(a, b string) bool { return a == b && strings.HasSuffix(a, "DOCKER-USER") })
}

// asBefore checks that all is as it was, some time after all was removed.
func (m *machine) asBefore(before map[string][]string) {
	m.t.Helper()
	m.comes("all is as before", func() error {
		now, err := m.traces()
		if err != nil {
			return err
		}
		if diff := cmp.Diff(before, now); diff != "" {
			return fmt.Errorf("the host differs (- before, + after):\n%s", diff)
		}
		return nil
	})
}

// state is how many objects there are, and what is wrong.
func (m *machine) state() (string, error) {
	s, err1 := m.status.Status(m.t.Context())
	differences, err2 := m.status.Verify(m.t.Context())
	if err1 != nil {
		return "", err1
	}
	return fmt.Sprintln(s.Networks, "networks", s.Endpoints, "endpoints", s.Ports, "ports", s.Pools, "pools", s.Errors, differences), err2
}

func (m *machine) links() (string, error) {
	links, err := m.Links(m.t.Context())
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(links)) {
		fmt.Fprintln(&out, name, links[name])
	}
	return out.String(), err
}

// openFiles are the daemon's, by kind. Our own connections are closed before.
func (m *machine) openFiles() (map[string]int, error) {
	m.engine.close()
	m.driver.close()
	dir := fmt.Sprintf("/proc/%d/fd", m.plugin.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	kinds := map[string]int{}
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		if err != nil {
			continue // closed meanwhile
		}
		kind, _, _ := strings.Cut(target, ":[")
		kinds[kind]++
	}
	return kinds, nil
}

// noMoreFiles checks that there are no more than before, of any kind. There may be fewer: connections of the engine that idle are closed in time.
func (m *machine) noMoreFiles(before map[string]int) map[string]int {
	m.t.Helper()
	var now map[string]int
	m.comes("files are closed", func() (err error) {
		now, err = m.openFiles()
		for kind, n := range now {
			if n > before[kind] {
				err = errors.Join(err, fmt.Errorf("%d files of %s are open, before there were %d", n, kind, before[kind]))
			}
		}
		return err
	})
	return now
}
