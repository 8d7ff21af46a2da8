//go:build load

package load

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/environ"
)

// growth is by how much the second time may leave the daemon larger than the first one did, in KiB. It is for a daemon without the
// race detector, whose own memory of who touched what only grows.
const growth = 8 << 10

// TestLoad is the whole of it; the package documentation says what.
func TestLoad(t *testing.T) {
	containers := environ.Number(t, "LOAD_CONTAINERS", 4, 200)
	m := newMachine(t)
	// The first network turns forwarding on, and the first burst opens connections that the engine keeps.
	m.run(little)
	m.figures.take()
	var before map[string][]string
	m.eventually("what was removed is gone", func() (err error) {
		before, err = m.traces()
		for _, link := range before["links"] {
			if strings.HasPrefix(link, "br-") {
				err = errors.Join(err, errors.New(link))
			}
		}
		return err
	})
	files, err := m.openFiles()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("before: %d KiB; open files %v", m.resident(), files)

	var after [2]int
	for i, r := range []round{{containers, containers / 2}, {containers / 2, containers / 4}} {
		began := time.Now()
		m.run(r)
		took := time.Since(began)
		if t.Failed() {
			return // what was not removed is no leak
		}
		m.asBefore(before)
		open := m.noMoreFiles(files)
		after[i] = m.settled()
		t.Logf("time %d: %d containers and %d networks in %v; %d KiB and open files %v after; %s",
			i+1, r.containers, r.networks, took.Round(time.Second), after[i], open, m.figures.take())
	}
	if grown := after[1] - after[0]; grown > growth && !m.races {
		t.Errorf("the second time left the daemon %d KiB larger than the first, %d are allowed", grown, growth)
	}
	m.noneMore(round{containers / 2, containers / 4}, before)
}
