//go:build engine

package soak

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge-net/drawbridge/test/outage"
)

// watch is what goes on from the first to the last moment, and its report.
type watch struct {
	m       *machine
	streams map[string]*outage.Stream // by family
	answers map[string][]time.Time    // of streams that ended, by family
	fresh   map[string]*outage.Knocks // by family
	probers map[string]*outage.Knocks // by where they stand
	began   time.Time
	checked time.Time // until when probers' tries have been looked at

	steps  int
	faults []happened
	cuts   int           // connections that dockerd ended
	calmed time.Duration // the longest time until all was well
}

// happened is a fault that was.
type happened struct {
	name     string
	from, to time.Time
}

func newWatch(m *machine, f *fixture) *watch {
	m.t.Helper()
	w := &watch{
		m: m, began: time.Now(), checked: time.Now(),
		streams: map[string]*outage.Stream{}, answers: map[string][]time.Time{}, fresh: map[string]*outage.Knocks{}, probers: map[string]*outage.Knocks{},
	}
	var err error
	for family := range w.hosts() {
		w.open(family)
		if w.fresh[family], err = outage.Knock(m.t.Context(), m.client, pause, "tcp", w.host(family, freshPort)); err != nil {
			m.t.Fatal(err)
		}
	}
	closed := []string{
		server4 + ":80", server4 + ":" + unpublished, "[" + server6 + "]:80", "[" + server6 + "]:" + unpublished,
		stranger4 + ":80", "[" + stranger6 + "]:80", hermit4 + ":80", "[" + hermit6 + "]:80",
		w.host("IPv4", unpublished), w.host("IPv6", unpublished),
	}
	if w.probers["outside"], err = outage.Try(m.t.Context(), m.client, pause, "tcp", closed...); err != nil {
		m.t.Fatal(err)
	}
	if w.probers["another network"], err = outage.Follow(m.t.Context(), m.Host, tries+"/inside"); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(w.close)
	return w
}

// hosts are the host's addresses by family.
func (w *watch) hosts() map[string]string {
	host := w.m.client.Host
	return map[string]string{"IPv4": host.Addr4().String(), "IPv6": host.Addr6().String()}
}

func (w *watch) host(family, port string) string { return net.JoinHostPort(w.hosts()[family], port) }

func (w *watch) close() {
	for _, s := range w.streams {
		s.Close()
	}
	for _, all := range []map[string]*outage.Knocks{w.fresh, w.probers} {
		for _, k := range all {
			k.Close()
		}
	}
}

// open holds a connection, anew if there was one.
func (w *watch) open(family string) {
	w.m.t.Helper()
	err := w.m.within(w.m.patience, func() (err error) {
		s, err := outage.Open(w.m.t.Context(), w.m.client, w.host(family, heldPort))
		if err == nil {
			w.streams[family] = s
		}
		return err
	})
	if err != nil {
		w.m.t.Errorf("the server stays unreachable: %v", err)
	}
}

// step has a fault happen beside an operation.
func (w *watch) step(op operation, f *fault) {
	w.m.t.Helper()
	w.steps++
	done := make(chan error, 1)
	if f == nil {
		done <- nil
		w.m.t.Logf("%7v  %s", time.Since(w.began).Round(time.Millisecond), op.what)
	} else {
		w.m.t.Logf("%7v  %s | %v later: %s", time.Since(w.began).Round(time.Millisecond), op.what, f.delay.Round(time.Millisecond), f.name)
		go func() {
			time.Sleep(f.delay)
			h := happened{name: f.name, from: time.Now()}
			err := f.do()
			h.to = time.Now()
			w.faults = append(w.faults, h)
			done <- err
		}()
	}
	op.do()
	if err := <-done; err != nil {
		w.m.t.Errorf("the fault itself failed: %s: %v", f.name, err)
	}
	w.held(f != nil && f.ends)
	w.closedStays()
}

// held checks that connections are there. Only an end of containers may cut them.
func (w *watch) held(mayEnd bool) {
	w.m.t.Helper()
	for family, s := range w.streams {
		select {
		case <-s.Ended():
		default:
			if !mayEnd {
				continue
			}
			if s.GoesOn(2*time.Second) == nil {
				continue
			}
			s.Close() // its container is gone, and nobody there to say so
		}
		if !mayEnd {
			w.m.t.Errorf("%s: %v", family, s.Err())
		}
		w.cuts++
		w.answers[family] = append(w.answers[family], s.Answers()...)
		w.open(family)
	}
}

// closedStays looks at the tries of probers that have come to their end.
func (w *watch) closedStays() {
	w.m.t.Helper()
	until := time.Now().Add(-outage.Patience)
	for where, k := range w.probers {
		for _, r := range k.Between(w.checked, until) {
			if r.Outcome == "ok" {
				w.m.t.Errorf("from %s, %s was open at %v, %s: %s answered", where, r.Addr, r.Began.Sub(w.began), w.lately(r.Began), r.Server)
				return
			}
		}
	}
	w.checked = until
}

// lately is the last fault before a moment.
func (w *watch) lately(at time.Time) string {
	last := "before any fault"
	for _, h := range w.faults {
		if !h.from.After(at) {
			last = fmt.Sprintf("%v after %s", at.Sub(h.from), h.name)
		}
	}
	return last
}

// calm has faults pause: everything must be well, in time.
func (w *watch) calm(d *model) {
	w.m.t.Helper()
	began := time.Now()
	for family, s := range w.streams {
		if err := s.GoesOn(w.m.patience); err != nil {
			w.m.t.Errorf("%s: %v", family, err)
		}
		if err := w.m.within(w.m.patience, func() error { return w.m.reached(w.host(family, freshPort)) }); err != nil {
			w.m.t.Errorf("the server stays broken: %v", err)
		}
	}
	for where, k := range w.probers {
		err := w.m.within(w.m.patience, func() error {
			if len(k.Between(began, time.Now())) == 0 {
				return fmt.Errorf("nobody tries from %s since %v", where, began.Sub(w.began))
			}
			return nil
		})
		if err != nil {
			w.m.t.Error(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.containers)) {
		if err := w.m.within(w.m.patience, func() error { return d.well(name) }); err != nil {
			w.m.t.Errorf("stays broken: %v", err)
		}
	}
	if err := w.m.within(w.m.patience, func() error {
		_, err := w.m.Run(w.m.t.Context(), w.m.program(), "verify")
		return err
	}); err != nil {
		w.m.t.Errorf("the host stays other than the state: %v", err)
	}
	took := time.Since(began)
	w.calmed = max(w.calmed, took)
	w.m.t.Logf("%7v  all is well after %v", time.Since(w.began).Round(time.Millisecond), took.Round(time.Millisecond))
}

// report prints what a client noticed.
func (w *watch) report() {
	w.m.t.Helper()
	time.Sleep(outage.Patience) // until the last tries have come to their end
	w.closedStays()
	end := time.Now()
	log := w.m.t.Logf
	if s, err := w.m.status(); err != nil || !strings.HasPrefix(s.Backend, w.m.backend()) {
		w.m.t.Errorf("the backend is %q, not %s: %v", s.Backend, w.m.backend(), err)
	}
	log("%d operations, %d faults in %v; %d connections ended with their container; all well %v after faults paused at the latest",
		w.steps, len(w.faults), end.Sub(w.began).Round(time.Second), w.cuts, w.calmed.Round(time.Millisecond))
	for where, k := range w.probers {
		log("tries from %s of what is closed: %d", where, len(k.Between(w.began, end)))
	}
	for _, family := range []string{"IPv4", "IPv6"} {
		answers := append(w.answers[family], w.streams[family].Answers()...)
		log("%s: longest outage of established connections %v; %v", family,
			outage.Longest(answers, w.began, end).Round(time.Millisecond), w.fresh[family].Sum(w.began, end.Add(-outage.Patience)))
		w.byFault(family, answers, end)
	}
	for _, text := range slices.Sorted(maps.Keys(w.m.complaints)) {
		log("%4d times repeated: %s", w.m.complaints[text], text)
	}
}

// byFault prints the longest outage from a fault to the next one, for each kind.
func (w *watch) byFault(family string, answers []time.Time, end time.Time) {
	type row struct {
		count            int
		held, fresh, own time.Duration
	}
	rows := map[string]row{}
	for i, h := range w.faults {
		until := end
		if i+1 < len(w.faults) {
			until = w.faults[i+1].from
		}
		r := rows[h.name]
		r.count++
		r.own = max(r.own, h.to.Sub(h.from))
		r.held = max(r.held, outage.Longest(answers, h.from, until))
		r.fresh = max(r.fresh, w.fresh[family].Sum(h.from, until).Longest)
		rows[h.name] = r
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		fmt.Fprintf(&out, "\n  %-38s %3d times, at most %8v; established %8v, new %8v", name, r.count,
			r.own.Round(time.Millisecond), r.held.Round(time.Millisecond), r.fresh.Round(time.Millisecond))
	}
	w.m.t.Logf("%s, longest outage until the next fault:%s", family, out.String())
}
