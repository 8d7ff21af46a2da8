// Package environ reads what whoever runs tests may set by variables of the environment.
package environ

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Program is the program under test, as DRAWBRIDGE_BIN names it. Where that is missing the test ends, with the goal of make's that sets it.
func Program(t testing.TB, goal string) string {
	t.Helper()
	return built(t, "DRAWBRIDGE_BIN", "program", goal)
}

// Plugin is the folder that make plugin made, as DRAWBRIDGE_PLUGIN names it.
func Plugin(t testing.TB, goal string) string {
	t.Helper()
	return built(t, "DRAWBRIDGE_PLUGIN", "plugin", goal)
}

func built(t testing.TB, name, what, goal string) string {
	t.Helper()
	path := os.Getenv(name)
	if path == "" {
		t.Fatalf("%s does not name the built %s: use make %s", name, what, goal)
	}
	return path
}

// Number is a number that is not below the least, otherwise where the variable is not set.
func Number(t testing.TB, name string, least, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		t.Fatalf("%s is %q, not a number from %d on", name, text, least)
	}
	return n
}

// Duration is a time above 0, otherwise where the variable is not set.
func Duration(t testing.TB, name string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q, not a time as 90s or 5m", name, text)
	}
	return d
}
