package process

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		stdin string
		argv  []string
		out   string
		err   string // part of the error; empty for none
	}{
		"output":                 {"", []string{"printf", "%s", "a b"}, "a b", ""},
		"input":                  {"through", []string{"cat"}, "through", ""},
		"no shell":               {"", []string{"printf", "%s", "$HOME; `id`"}, "$HOME; `id`", ""},
		"locale":                 {"", []string{"printenv", "LC_ALL"}, "C\n", ""},
		"fails and says why":     {"", []string{"ls", "/does/not/exist"}, "", "No such file"},
		"fails and says nothing": {"", []string{"false"}, "", "false: exit status 1"},
		"is not installed":       {"", []string{"drawbridge-no-such-program"}, "", "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := Run(t.Context(), c.stdin, c.argv...)
			if out != c.out || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

func TestErrorTellsTheCause(t *testing.T) {
	_, err := Run(t.Context(), "", "false")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	if _, err := Run(t.Context(), "", "drawbridge-no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// A child that outlives its parent must not hold the caller by the pipe it inherited.
func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Run(ctx, "", "sh", "-c", "sleep 60 & sleep 60")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
