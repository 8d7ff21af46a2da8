package main

import (
	"context"
	"io"
	"log/slog"
	"os"
)

// newLog writes to standard error. An engine takes each line there of a managed plugin for an error, and those of standard output for
// information: in a container, news that are neither a warning nor an error go to the latter.
func newLog(level slog.Level, inContainer bool) *slog.Logger {
	to := func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}) }
	if inContainer {
		return slog.New(byGravity{to(os.Stdout), to(os.Stderr)})
	}
	return slog.New(to(os.Stderr))
}

// byGravity has two handlers, of the same level.
type byGravity struct{ calm, grave slog.Handler }

func (h byGravity) Enabled(ctx context.Context, l slog.Level) bool { return h.grave.Enabled(ctx, l) }

func (h byGravity) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.calm.Handle(ctx, r)
	}
	return h.grave.Handle(ctx, r)
}

func (h byGravity) WithAttrs(a []slog.Attr) slog.Handler {
	return byGravity{h.calm.WithAttrs(a), h.grave.WithAttrs(a)}
}

func (h byGravity) WithGroup(name string) slog.Handler {
	return byGravity{h.calm.WithGroup(name), h.grave.WithGroup(name)}
}
