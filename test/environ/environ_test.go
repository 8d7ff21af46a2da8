package environ

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// failure is a test that notes why it ended.
type failure struct {
	testing.TB
	why string
}

func (f *failure) Helper()                           {}
func (f *failure) Fatalf(format string, args ...any) { f.why = fmt.Sprintf(format, args...) }

// TestSettings: what is not set is as it was otherwise, and what is set wrongly ends the test in words.
func TestSettings(t *testing.T) {
	const name = "DRAWBRIDGE_TEST_SETTING"
	for _, tt := range []struct {
		text   string
		number int
		why    string
	}{
		{"", 7, ""},
		{"3", 3, ""},
		{"2", 2, name + ` is "2", not a number from 3 on`},
		{"a few", 0, name + ` is "a few", not a number from 3 on`},
	} {
		t.Setenv(name, tt.text)
		var f failure
		if got := Number(&f, name, 3, 7); got != tt.number || f.why != tt.why {
			t.Errorf("%q: %d, %q", tt.text, got, f.why)
		}
	}
	for _, tt := range []struct {
		text string
		time time.Duration
		why  string
	}{
		{"", time.Minute, ""},
		{"90s", 90 * time.Second, ""},
		{"0s", 0, name + ` is "0s", not a time as 90s or 5m`},
		{"90", 0, name + ` is "90", not a time as 90s or 5m`},
	} {
		t.Setenv(name, tt.text)
		var f failure
		if got := Duration(&f, name, time.Minute); got != tt.time || f.why != tt.why {
			t.Errorf("%q: %v, %q", tt.text, got, f.why)
		}
	}
}

// TestBuilt: what is under test is what the variable names, and a test without it ends with what to type.
func TestBuilt(t *testing.T) {
	for name, read := range map[string]func(testing.TB, string) string{"DRAWBRIDGE_BIN": Program, "DRAWBRIDGE_PLUGIN": Plugin} {
		t.Setenv(name, "/built")
		var f failure
		if got := read(&f, "test-engine"); got != "/built" || f.why != "" {
			t.Errorf("%s: %q, %q", name, got, f.why)
		}
		t.Setenv(name, "")
		read(&f, "test-engine")
		if !strings.HasPrefix(f.why, name+" does not name the built p") || !strings.HasSuffix(f.why, ": use make test-engine") {
			t.Errorf("%s is missing: %q", name, f.why)
		}
	}
}
