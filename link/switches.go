package link

import (
	"context"
	"path"
	"sync"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/periodic"
)

// The kernel tells nobody that one of its settings was changed. So those that were set are read again and again, a bounded number
// at a time: that costs the same on a host of five hundred networks as on one of fifty.
const (
	switchPause = 250 * time.Millisecond
	switchShare = 200
)

// WatchSettings calls changed when somebody else changed a kernel setting that a pass made, until ctx ends.
func (l *Links) WatchSettings(ctx context.Context, changed func(reason string)) error {
	return periodic.Do(ctx, switchPause, func(time.Time) {
		for _, key := range l.changedSettings(switchShare) {
			changed("sysctl " + dotted(key) + " was changed")
		}
	})
}

// switches are settings of the kernel as they were last set, or found to be.
type switches struct {
	mu     sync.Mutex         // held over a write, which is not to be taken for somebody else's
	values map[string]*string // by key, nil for one that is forgotten; guarded by mu
	keys   []string           // those of values, in the order in which they are read; guarded by mu
	next   int                // of keys; guarded by mu
}

// keep notes a value; the caller holds mu.
func (w *switches) keep(key, value string) {
	if _, known := w.values[key]; !known {
		w.keys = append(w.keys, key)
	}
	if w.values == nil {
		w.values = map[string]*string{}
	}
	w.values[key] = &value
}

// drop leaves a setting to others; the caller holds mu.
func (w *switches) drop(key string) {
	if _, known := w.values[key]; known {
		w.values[key] = nil
	}
}

// forget leaves the settings of a link to others.
func (w *switches) forget(link string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.values {
		if path.Base(path.Dir(key)) == link {
			w.values[key] = nil
		}
	}
}

// holds reports whether a setting is ours to keep.
func (w *switches) holds(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.values[key] != nil
}

// changedSettings reads up to n settings, each time the next ones, and returns those that are not as they were set. Each of them is told
// once: the pass that sets it notes it anew.
func (l *Links) changedSettings(n int) (keys []string) {
	for range min(n, l.switches.count()) {
		if key := l.compareNext(); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

func (w *switches) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.keys)
}

// compareNext reads one setting, and returns its key if somebody changed it. What is gone, as with its link, is forgotten.
func (l *Links) compareNext() (changed string) {
	w := &l.switches
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.keys) == 0 {
		return ""
	}
	w.next %= len(w.keys)
	key := w.keys[w.next]
	set := w.values[key]
	if set == nil {
		delete(w.values, key)
		last := len(w.keys) - 1
		w.keys[w.next] = w.keys[last]
		w.keys = w.keys[:last]
		return ""
	}
	w.next++
	now, err := l.sysctl.get(key)
	if err == nil && now == *set {
		return ""
	}
	w.values[key] = nil
	if err != nil {
		return ""
	}
	return key
}
