package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestLogByGravity: what is no trouble does not look like it in the engine's log.
func TestLogByGravity(t *testing.T) {
	var calm, grave bytes.Buffer
	log := slog.New(byGravity{slog.NewTextHandler(&calm, nil), slog.NewTextHandler(&grave, nil)}).With("part", "links").WithGroup("g")
	log.Debug("hidden")
	log.Info("serving", "a", 1)
	log.Warn("slow")
	log.Error("broken")
	if got := calm.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "msg=serving part=links g.a=1") {
		t.Errorf("calm: %s", got)
	}
	if got := grave.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "slow part=links") || !strings.Contains(got, "broken") {
		t.Errorf("grave: %s", got)
	}
}
