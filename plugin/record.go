package plugin

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"time"
)

// subjects are the ids by which a log line says what a call was about.
type subjects struct{ NetworkID, EndpointID, PoolID string }

// record writes the call's line into the log: every call, so that the order in
// which dockerd did things can be read there.
func (s *Server) record(path string, body []byte, took time.Duration, err error) {
	level := slog.LevelInfo
	if err != nil {
		level = slog.LevelWarn
	}
	ctx := context.Background() // handlers of slog do not block on it
	if !s.log.Enabled(ctx, level) {
		return
	}
	var about subjects
	_ = json.Unmarshal(body, &about) // a malformed body is about nothing
	attrs := []slog.Attr{slog.String("call", clip(strings.TrimPrefix(path, "/")))}
	for _, a := range []slog.Attr{
		slog.String("network", short(about.NetworkID)),
		slog.String("endpoint", short(about.EndpointID)),
		slog.String("pool", clip(about.PoolID)),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, slog.Duration("duration", took))
	if err != nil {
		attrs = append(attrs, slog.String("error", oneLine(err)))
	}
	s.log.LogAttrs(ctx, level, "call", attrs...)
}

// short returns the part of an id that docker shows.
func short(id string) string { return id[:min(len(id), 12)] }

// clip keeps a hostile value from filling the log.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
