//go:build load

package load

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge-net/drawbridge/test/lab"
)

// atOnce is how many containers, and how many networks, are under way at a time.
const atOnce = 8

// beds are how many networks the containers share.
const beds = 4

// asked is the part of the containers that are asked from outside: one in so many.
const asked = 10

// round is how much is done.
type round struct{ containers, networks int }

// little is enough for a daemon to have done everything once.
var little = round{atOnce, atOnce}

// run does all at once and removes it again.
func (m *machine) run(r round) {
	m.t.Helper()
	m.must(parallel(beds, func(i int) error { return m.network(fmt.Sprint("bed", i)) }))
	over := make(chan struct{})
	var beside, load sync.WaitGroup
	for _, ask := range m.questions() {
		beside.Go(func() { m.watch(ask, over) })
	}
	beside.Go(func() { m.twice(over) })
	load.Go(func() { m.must(parallel(r.containers, m.liveAndDie)) })
	load.Go(func() {
		m.must(parallel(r.networks, func(i int) error {
			name := fmt.Sprint("net", i)
			if err := m.network(name); err != nil {
				return err
			}
			return m.removeNetwork(name)
		}))
	})
	load.Wait()
	close(over)
	beside.Wait()
	m.must(parallel(beds, func(i int) error { return m.removeNetwork(fmt.Sprint("bed", i)) }))
}

// liveAndDie starts a container and removes it.
func (m *machine) liveAndDie(i int) error {
	name, port := fmt.Sprint("c", i), 20000+i
	if err := m.container(name, fmt.Sprint("bed", i%beds), port); err != nil {
		return err
	}
	if i%asked == 0 {
		if err := m.reached(name, port); err != nil {
			return err
		}
	}
	return m.removeContainer(name)
}

// reached asks the container from outside, until it listens.
func (m *machine) reached(name string, port int) error {
	for _, addr := range []string{m.client.Host.Addr4().String(), "[" + m.client.Host.Addr6().String() + "]"} {
		err := m.within(patience, func() error {
			reply, err := lab.Get(m.t.Context(), m.client, lab.Request{Network: "tcp", Addr: fmt.Sprint(addr, ":", port)})
			if err == nil && reply.Server != name {
				err = fmt.Errorf("%s answers in place of %s", reply.Server, name)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("container %s at %s port %d: %w", name, addr, port, err)
		}
		m.figures.count("answers from outside")
	}
	return nil
}

// must wants no error.
func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Error(err)
	}
}

// parallel does something for each number below n, and returns what went wrong.
func parallel(n int, do func(i int) error) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	wrong := make([]error, n)
	for range atOnce {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				wrong[i] = do(i)
			}
		})
	}
	workers.Wait()
	return errors.Join(wrong...)
}

// figures are how often things were done, and how long the longest took.
type figures struct {
	mu    sync.Mutex
	names []string                 // guarded by mu; in the order in which they came
	times map[string]int           // guarded by mu
	worst map[string]time.Duration // guarded by mu
}

func (f *figures) count(name string) { f.timed(name, time.Now()) }

// timed counts what began at a time and ends now.
func (f *figures) timed(name string, began time.Time) {
	took := time.Since(began)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == nil {
		f.times, f.worst = map[string]int{}, map[string]time.Duration{}
	}
	if f.times[name] == 0 {
		f.names = append(f.names, name)
	}
	f.times[name]++
	f.worst[name] = max(f.worst[name], took)
}

// take returns them as text, and begins anew.
func (f *figures) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, name := range f.names {
		out = append(out, fmt.Sprintf("%d %s (the slowest %v)", f.times[name], name, f.worst[name].Round(time.Millisecond)))
	}
	f.names, f.times, f.worst = nil, nil, nil
	return strings.Join(out, ", ")
}
