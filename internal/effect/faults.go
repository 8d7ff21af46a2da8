//go:build faults

package effect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// DirEnv names the environment variable with the folder of the plan and of what was walked. Without it Do is a plain call.
const DirEnv = "EFFECT_FAULTS"

// Files in the folder.
const (
	planFile   = "plan"
	walkedFile = "walked"
)

// Fault is what is to happen at a point.
type Fault string

// The faults.
const (
	KillBefore Fault = "kill before"
	KillAfter  Fault = "kill after"
	Fail       Fault = "fail" // the effect is not tried, and its error is ErrInjected
)

// ErrInjected is the error of an effect that was made to fail.
var ErrInjected = errors.New("a fault that a test injected")

// Plan says at which point what is to happen. Points are counted from one since the plan was written; a plan for point 0 only
// has them counted.
type Plan struct {
	Point int
	Fault Fault
}

// Write puts the plan into the folder, for the process that is about to read it or is reading it at each point. Who is passing a point
// meanwhile counts it by the plan before.
func (p Plan) Write(dir string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	walked, err := openWalked(dir, os.O_CREATE)
	if err != nil {
		return err
	}
	defer walked.Close()
	if err := walked.Truncate(0); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, planFile), text, 0o600)
}

// openWalked opens the file of what was walked, and locks both files until it is closed.
func openWalked(dir string, flag int) (*os.File, error) {
	walked, err := os.OpenFile(filepath.Join(dir, walkedFile), flag|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(walked.Fd()), syscall.LOCK_EX); err != nil {
		walked.Close()
		return nil, err
	}
	return walked, nil
}

// Walked returns the names of the points that were passed since the plan was written.
func Walked(dir string) ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, walkedFile))
	var names []string
	for line := range bytes.Lines(raw) {
		names = append(names, string(bytes.TrimSpace(line)))
	}
	return names, err
}

// Do carries out an effect of the kind name, and returns its error, unless the plan has something else in mind.
func Do(name string, act func() error) error {
	switch fault := pass(name); fault {
	case KillBefore:
		die()
	case Fail:
		return fmt.Errorf("%s: %w", name, ErrInjected)
	case KillAfter:
		_ = act()
		die()
	}
	return act()
}

// pass counts a point, writes it down and returns what is to happen there. The daemon and its relay count together: a point is a line of
// the file, which one process at a time writes.
func pass(name string) Fault {
	dir := os.Getenv(DirEnv)
	if dir == "" {
		return ""
	}
	walked, err := openWalked(dir, 0)
	if err != nil {
		return ""
	}
	defer walked.Close()
	raw, err := os.ReadFile(filepath.Join(dir, planFile))
	var plan Plan
	if err != nil || json.Unmarshal(raw, &plan) != nil {
		return ""
	}
	before, err := io.ReadAll(walked)
	if err != nil {
		return ""
	}
	fmt.Fprintln(walked, name)
	if bytes.Count(before, []byte("\n"))+1 == plan.Point {
		return plan.Fault
	}
	return ""
}

// die ends the process as a crash does: nothing is closed, flushed or told.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing more happens in this goroutine
}
