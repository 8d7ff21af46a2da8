// Package transcript keeps what a program or a logger under test writes, to be read while it does.
package transcript

import (
	"log/slog"
	"strings"
	"sync"
)

// Text is an io.Writer that several goroutines may write to and read from. Its zero value is empty.
type Text struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (t *Text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

// String returns what was written since the last Reset.
func (t *Text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Reset forgets it.
func (t *Text) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Reset()
}

// Logger returns one that writes there, all levels.
func (t *Text) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(t, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
