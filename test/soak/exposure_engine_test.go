//go:build engine

package soak

import (
	"sync"
	"time"
)

// heal is how long the plugin may take to bring back what was flushed. It hears of it.
const heal = time.Second

// layers are the two places in which the firewall refuses: what one lets through the other still does not.
type layers struct{ filter, mangle bool }

// exposure knows when nothing was left of the firewall, because somebody took both layers away and the plugin had no chance to
// bring one back. Only in those moments may what is closed be open.
type exposure struct {
	mu    sync.Mutex // guards all that follows
	away  bool       // the plugin
	taken map[string]time.Time
	// windows are closed moments of exposure
	windows []window
}

type window struct{ from, to time.Time }

// flushed notes that layers are taken away now.
func (e *exposure) flushed(l layers) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.taken == nil {
		e.taken = map[string]time.Time{}
	}
	now := time.Now()
	if l.filter {
		e.taken["filter"] = now
	}
	if l.mangle {
		e.taken["mangle"] = now
	}
	if e.lacks("filter", now) && e.lacks("mangle", now) {
		e.windows = append(e.windows, window{now, now.Add(heal)})
		if e.away {
			e.windows[len(e.windows)-1].to = time.Time{} // until guarded
		}
	}
}

// lacks reports whether a layer may not be back yet.
func (e *exposure) lacks(layer string, now time.Time) bool {
	at, taken := e.taken[layer]
	return taken && (e.away || now.Sub(at) < heal)
}

// unguarded notes that the plugin ends.
func (e *exposure) unguarded() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away = true
	now := time.Now()
	for layer, at := range e.taken {
		if now.Sub(at) >= heal {
			delete(e.taken, layer)
		}
	}
	for i, w := range e.windows {
		if w.to.After(now) {
			e.windows[i].to = time.Time{}
		}
	}
}

// guarded notes that the plugin has made the host as it should be.
func (e *exposure) guarded() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.away, e.taken = false, nil
	for i, w := range e.windows {
		if w.to.IsZero() {
			e.windows[i].to = time.Now()
		}
	}
}

// explains returns when an exposure began that a moment is in.
func (e *exposure) explains(at time.Time) (from time.Time, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.windows {
		if !at.Before(w.from) && (w.to.IsZero() || !at.After(w.to)) {
			return w.from, true
		}
	}
	return time.Time{}, false
}
