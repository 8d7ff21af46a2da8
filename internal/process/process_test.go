package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestFind: programs of the system are found without their folders in PATH.
func TestFind(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if path, err := Find("ldconfig"); err != nil || filepath.Base(path) != "ldconfig" {
		t.Errorf("%q, %v", path, err)
	}
	if out, err := Run(t.Context(), "", "ldconfig", "--version"); err != nil || !strings.HasPrefix(out, "ldconfig") {
		t.Errorf("%q, %v", out, err)
	}
	for _, name := range []string{"drawbridge-no-such-program", "../sbin/ldconfig", ""} {
		if path, err := Find(name); err == nil {
			t.Errorf("%q is found at %s", name, path)
		}
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
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // in which a busy machine has started it
	defer cancel()
	_, err := Run(ctx, "", "sh", "-c", "sleep 60 & sleep 60")
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), "ms that were left, and was killed") {
		t.Errorf("%v", err)
	}
}

// TestHungProgramIsKilled: a program that ignores every signal that can be ignored ends, with its children, and is told by name.
func TestHungProgramIsKilled(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := fmt.Sprintf("trap '' TERM INT HUP; sleep 60 & echo $$ $! > %s; while :; do sleep 60; done", pids)
	began := time.Now()
	_, err := run(t.Context(), time.Second, "", "sh", "-c", script)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "sh -c") || !strings.HasSuffix(err.Error(), "it did not end within 1s and was killed") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > 20*time.Second { // and not the minute for which its children live
		t.Errorf("it took %v", took)
	}
	var parent, child int
	text, _ := os.ReadFile(pids)
	if _, err := fmt.Sscan(string(text), &parent, &child); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprint("/proc/", parent)); err == nil {
		t.Errorf("process %d is left", parent)
	}
	for deadline := time.Now().Add(5 * time.Second); running(child); time.Sleep(time.Millisecond) { // its new parent reaps it
		if time.Now().After(deadline) {
			t.Fatalf("its child %d is left", child)
		}
	}
}

// running reports whether a process is there and no zombie, which is its new parent's.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}
