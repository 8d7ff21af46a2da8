package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// held is a plane of a host on which somebody else changes things.
type held struct {
	mu      sync.Mutex         // guards what follows
	found   []state.Difference // what the next call mends
	mended  []state.Difference // what the last one did
	applied []time.Time
	lasting []state.Difference // what no call mends
	looked  int
	waits   atomic.Int64 // how long each call hangs
	failing error
	looks   func() ([]state.Difference, error) // nil to look at found and lasting
}

func (h *held) undo(d state.Difference) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.found, d) {
		h.found = append(h.found, d)
	}
}

func (h *held) whole() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.found) == 0
}

func (h *held) lacks(d state.Difference) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.found, d)
}

func (h *held) passes() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.applied)
}

func (h *held) Apply(ctx context.Context, _ state.Snapshot) error {
	if err := h.hang(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mended, h.found = h.found, nil
	h.applied = append(h.applied, time.Now())
	return h.failing
}

func (h *held) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = err
}

func (h *held) Found() []state.Difference { return h.mended }

// hang takes its time, if any is to be taken.
func (h *held) hang(ctx context.Context) error {
	d := time.Duration(h.waits.Load())
	if d == 0 {
		return nil
	}
	if err := sleep(ctx, d); err != nil {
		return fmt.Errorf("it hangs: %w", err)
	}
	return nil
}

func (h *held) Inspect(ctx context.Context, _ state.Snapshot) ([]state.Difference, error) {
	if err := h.hang(ctx); err != nil {
		return nil, err
	}
	if h.looks != nil {
		return h.looks()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looked++
	return append(slices.Clone(h.found), h.lasting...), nil
}

// versions is a source whose state tests change.
type versions struct {
	now atomic.Pointer[state.Snapshot]
}

func (v *versions) Snapshot() state.Snapshot {
	if s := v.now.Load(); s != nil {
		return *s
	}
	return state.Snapshot{}
}

// healing runs fn with a loop over one plane.
func healing(t *testing.T, fn func(*Loop, *held, *versions, *logBuffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h, v, log := &held{}, &versions{}, &logBuffer{}
		l := New(v, []Step{{"rules", h}}, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Debounce: 100 * time.Millisecond})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		synctest.Wait()
		fn(l, h, v, log)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func missing(s state.Scope) state.Difference {
	return state.Difference{Scope: s, Text: "a rule is missing"}
}

// TestRepairsAreTold: what somebody else changed is in the log, and what the state changed is not.
func TestRepairsAreTold(t *testing.T) {
	rows := []struct {
		name  string
		scope state.Scope
		then  state.Snapshot // what the state is meanwhile
		told  bool
	}{
		{"of the host", everything, state.Snapshot{}, true},
		{"of a network that stays as it is", state.Scope{Network: netA}, state.Snapshot{Networks: []state.Network{{ID: netB}}}, true},
		{"of a network that is new", state.Scope{Network: netA}, state.Snapshot{Networks: []state.Network{{ID: netA}}}, false},
		{"of the network of an endpoint that is new", state.Scope{Network: netA}, state.Snapshot{Endpoints: []state.Endpoint{{ID: epA1, Network: netA}}}, false},
		{"of an endpoint that is new", state.Scope{Network: netA, Endpoint: epA1}, state.Snapshot{Endpoints: []state.Endpoint{{ID: epA1, Network: netA}}}, false},
		{"of an endpoint beside one that is new", state.Scope{Network: netA, Endpoint: epA2}, state.Snapshot{Endpoints: []state.Endpoint{{ID: epA1, Network: netA}}}, true},
		{"of the host when forwarding becomes ours", everything, state.Snapshot{Forwarding: state.Forwarding{V4: true}}, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			healing(t, func(l *Loop, h *held, v *versions, log *logBuffer) {
				v.now.Store(&row.then)
				h.undo(missing(row.scope))
				l.Trigger("a test")
				time.Sleep(time.Second)
				synctest.Wait()
				if told := strings.Contains(log.text(), "a rule is missing"); told != row.told {
					t.Errorf("told %t, want %t: %s", told, row.told, log.text())
				}
			})
		})
	}
}

// TestRepairsInWords: several repairs can be told from each other, and of many reasons the newest are named.
func TestRepairsInWords(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, log *logBuffer) {
		h.undo(missing(everything))
		h.undo(state.Difference{Text: "a link is down"})
		for i := range maxReasons + 1 {
			l.Trigger(fmt.Sprint("reason ", i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for words, want := range map[string]bool{
			`found="a rule is missing; a link is down"`: true, "reason 0": false, "reason 1, ": true, fmt.Sprint("reason ", maxReasons): true,
		} {
			if strings.Contains(log.text(), words) != want {
				t.Errorf("the log says %q: %t\n%s", words, !want, log.text())
			}
		}
	})
}

// TestFailuresRepairNothing: what could not be mended is not told as mended, and what came and went while passes failed was no one
// else's doing.
func TestFailuresRepairNothing(t *testing.T) {
	healing(t, func(l *Loop, h *held, v *versions, log *logBuffer) {
		h.fail(object(netA, epA1, "no"))
		h.undo(missing(state.Scope{Network: netA, Endpoint: epA1}))
		l.Trigger("a test")
		time.Sleep(300 * time.Millisecond)
		v.now.Store(&state.Snapshot{Endpoints: []state.Endpoint{{ID: epA2, Network: netA}}})
		l.Trigger("a test")
		time.Sleep(300 * time.Millisecond)
		v.now.Store(&state.Snapshot{})
		h.fail(nil)
		h.undo(missing(state.Scope{Network: netA, Endpoint: epA2}))
		l.Trigger("a test")
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if text := log.text(); strings.Contains(text, "repaired") {
			t.Error(text)
		}
		h.undo(missing(state.Scope{Network: netA, Endpoint: epA2}))
		l.Trigger("a test")
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if text := log.text(); !strings.Contains(text, "repaired") {
			t.Errorf("behind a success: %s", text)
		}
	})
}

// TestFirstPassRepairsNothing: before it nobody knows what the host was like.
func TestFirstPassRepairsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, log := &held{found: []state.Difference{missing(everything)}}, &logBuffer{}
		l := New(&versions{}, []Step{{"rules", h}}, Options{Log: slog.New(slog.NewTextHandler(log, nil))})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || len(h.applied) != 1 || log.text() != "" {
			t.Errorf("%v, %d passes: %s", err, len(h.applied), log.text())
		}
	})
}

// TestFight: who undoes each repair at once makes later ones wait, but neither the engine nor the pass that is due by time, and
// is told of once. When it stops, repairs are quick again.
func TestFight(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, log *logBuffer) {
		undo := func() {
			h.undo(missing(everything))
			l.Trigger("somebody")
		}
		began := time.Now()
		for time.Since(began) < 10*time.Minute {
			if h.whole() {
				undo()
			}
			time.Sleep(50 * time.Millisecond)
		}
		passes := h.passes()
		if n := len(passes); n < 12 || n > 40 {
			t.Errorf("%d passes in ten minutes, want some and not one for each time", n)
		}
		for i, at := range passes[1:] {
			if pause := at.Sub(passes[i]); pause > 31*time.Second {
				t.Errorf("a pause of %s, which is longer than without a fight", pause)
			}
		}
		if n := strings.Count(log.text(), "somebody keeps undoing"); n != 1 {
			t.Errorf("the fight was told of %d times: %s", n, log.text())
		}
		undo()
		if err := l.Wait(context.Background(), 0, everything); err != nil || !h.whole() {
			t.Errorf("a call of the engine's did not have it repaired: %v", err)
		}
		time.Sleep(3 * time.Minute) // peace
		undo()
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		if !h.whole() {
			t.Error("after the fight a repair still waits")
		}
	})
}

// TestFightOverWhatIsClosed: what leaves something open waits for no longer after hundreds of repairs than after the first ones.
func TestFightOverWhatIsClosed(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, _ *logBuffer) {
		opens := state.Difference{Text: "a bridge is in another group", Opens: true}
		for began := time.Now(); time.Since(began) < 5*time.Minute; time.Sleep(50 * time.Millisecond) {
			if !h.lacks(opens) {
				h.undo(opens)
				l.Trigger("somebody")
			}
		}
		passes := h.passes()
		for i, at := range passes[1:] {
			if pause := at.Sub(passes[i]); pause > minTruce+lookPause {
				t.Errorf("repair %d waited for %s", i, pause)
			}
		}
		if n := len(passes); n > 200 {
			t.Errorf("%d passes in five minutes: there was no truce", n)
		}
	})
}

// TestFightHoldsUpNothingElse: what is not fought over is repaired at once, also beside what no pass mends; and who undoes repairs
// costs neither a pass nor a look for each time.
func TestFightHoldsUpNothingElse(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, log *logBuffer) {
		disputed, other := missing(everything), state.Difference{Text: "a link is down"}
		pass := func(d time.Duration, storm bool) {
			for began := time.Now(); time.Since(began) < d; time.Sleep(50 * time.Millisecond) {
				if storm || !h.lacks(disputed) {
					h.undo(disputed)
					l.Trigger("somebody")
				}
			}
		}
		pass(time.Minute, false)
		for _, lasting := range []bool{false, true} {
			if lasting {
				h.mu.Lock()
				h.lasting = []state.Difference{{Text: "a link is missing, and nobody can help", Paced: true}, {Text: "a bridge is somebody else's"}}
				h.mu.Unlock()
				l.Trigger("of what lasts")
				pass(5*time.Second, true)
			}
			passes := len(h.passes())
			pass(5*time.Second, true)
			if now := len(h.passes()); now-passes > 1 {
				t.Errorf("%d passes in 5 seconds of the fight", now-passes)
			}
			h.mu.Lock()
			if h.looked > 300 {
				t.Errorf("%d looks", h.looked)
			}
			h.mu.Unlock()
			h.undo(other)
			l.Trigger("an accident")
			pass(time.Second, true)
			if h.lacks(other) {
				t.Errorf("beside a fight (something lasts: %t) a repair waits", lasting)
			}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if got := l.status.Disputed; got != disputed.Text {
			t.Errorf("in dispute: %q\n%s", got, log.text())
		}
	})
}

// TestHurry: what leaves the host open is looked at without a pause.
func TestHurry(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, _ *logBuffer) {
		h.undo(missing(everything))
		l.Hurry("a flush")
		synctest.Wait()
		if !h.whole() {
			t.Error("it waits")
		}
	})
}

func TestInspect(t *testing.T) {
	healing(t, func(l *Loop, h *held, _ *versions, _ *logBuffer) {
		passes := len(h.passes())
		h.looks = func() ([]state.Difference, error) {
			return []state.Difference{missing(everything)}, errors.Join(object(netA, epA1, "no link"), errors.New("no answer"))
		}
		found, err := l.Inspect(context.Background())
		want := []Finding{
			{"rules", missing(everything)},
			{"rules", state.Difference{Scope: state.Scope{Network: netA, Endpoint: epA1}, Text: "no link"}},
			{"rules", state.Difference{Text: "no answer"}},
		}
		if err != nil || len(found) != len(want) || found[0] != want[0] || found[1] != want[1] || found[2] != want[2] {
			t.Errorf("%v, %v", found, err)
		}
		if len(h.passes()) != passes {
			t.Error("it made a pass")
		}
		h.looks = func() ([]state.Difference, error) { panic("boom") }
		if found, err := l.Inspect(context.Background()); err != nil || len(found) != 1 || !strings.Contains(found[0].Text, "boom") {
			t.Errorf("a panic: %v, %v", found, err)
		}
		// What hangs in it is blamed before the caller's time is over, and what hangs in a pass afterwards.
		h.waits.Store(int64(time.Minute))
		h.looks = nil
		late, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		found, err = l.Inspect(late)
		cancel()
		if err != nil || len(found) != 1 || found[0].Text != "it hangs: context deadline exceeded" {
			t.Errorf("a look that hangs: %v, %v", found, err)
		}
		l.Hurry("a test")
		synctest.Wait()
		late, cancel = context.WithTimeout(context.Background(), 10*time.Second)
		_, err = l.Inspect(late)
		cancel()
		wantError(t, err, "the rules step has not finished: context deadline exceeded")
		h.waits.Store(0)
		time.Sleep(time.Minute)
		h.looks = func() ([]state.Difference, error) { return nil, nil }
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := l.Inspect(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
	})
	l := New(&source{}, nil, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Inspect(context.Background()); !errors.Is(err, errStopped) {
		t.Errorf("after the end: %v", err)
	}
}
