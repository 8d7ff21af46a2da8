package relay

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// feed takes what is logged to the daemon that watches, if one does.
type feed struct {
	mu       sync.Mutex
	watchers map[chan []byte]slog.Level
}

func newFeed() *feed { return &feed{watchers: map[chan []byte]slog.Level{}} }

// attach adds a watcher.
func (f *feed) attach(level slog.Level) chan []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := make(chan []byte, 256)
	f.watchers[lines] = level
	return lines
}

func (f *feed) detach(lines chan []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, lines)
}

// Write implements io.Writer for a log handler. A watcher that does not keep up misses lines: nobody's connection waits for it.
func (f *feed) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for lines := range f.watchers {
		select {
		case lines <- slices.Clone(line):
		default:
		}
	}
	return len(line), nil
}

// watched reports whether somebody watches, and from which level on.
func (f *feed) watched() (lowest slog.Level, any bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, level := range f.watchers {
		if !any || level < lowest {
			lowest, any = level, true
		}
	}
	return lowest, any
}

// logHandler logs to the watcher, and by another handler while there is none.
type logHandler struct {
	feed        *feed
	there, here slog.Handler
}

func newLogHandler(f *feed, here slog.Handler) slog.Handler {
	return logHandler{f, slog.NewJSONHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}), here}
}

func (h logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	if wanted, watched := h.feed.watched(); watched {
		return level >= wanted
	}
	return h.here.Enabled(ctx, level)
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if _, watched := h.feed.watched(); watched {
		return h.there.Handle(ctx, r)
	}
	return h.here.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.feed, h.there.WithAttrs(attrs), h.here.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{h.feed, h.there.WithGroup(name), h.here.WithGroup(name)}
}
