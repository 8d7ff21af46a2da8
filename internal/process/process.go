// Package process starts the programs that Drawbridge cannot do without. It is the only
// place that does: arguments are never given to a shell, the locale is fixed so that
// output can be read, and a failure carries what the program said.
package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Error is a program that could not be started or did not succeed.
type Error struct {
	Argv   []string
	Stderr string
	Err    error
}

// Error gives the program's own words, which name the cause better than its exit code.
func (e *Error) Error() string {
	said := strings.TrimSpace(e.Stderr)
	if said == "" {
		return fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Argv, " "), e.Err, said)
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// grace is how long a program has after its context ended before its pipes are
// closed, so that a child of it cannot hold the caller.
const grace = time.Second

// limit is how long a program may take. It is below the deadline of dockerd's calls, so that their answer says which program hangs.
// The largest of ours, 10,000 ports for iptables-restore, takes some seconds on a small machine.
const limit = 10 * time.Second

// hung is why a program was killed that took longer. It is a context.DeadlineExceeded: to try again would take as long again.
type hung struct {
	after time.Duration
	rest  bool // of what the caller had for it and others
}

func (h hung) Error() string {
	if h.rest {
		return fmt.Sprintf("it did not end in the %s that were left, and was killed", h.after)
	}
	return fmt.Sprintf("it did not end within %s and was killed", h.after)
}

func (hung) Is(target error) bool { return target == context.DeadlineExceeded }

// Find returns the path of a program. Where PATH does not have it, as that of a user who became root by plain su, it is looked for where
// programs of the system are. The error is that of exec.LookPath.
func Find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || filepath.Base(name) != name {
		return path, err
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// Run starts argv with stdin as its input, waits for it and returns its standard
// output. The program is found by [Find], and killed when ctx ends or it takes too long, with all that it started.
func Run(ctx context.Context, stdin string, argv ...string) (string, error) {
	return run(ctx, limit, stdin, argv...)
}

func run(ctx context.Context, limit time.Duration, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, hung{after: limit})
	defer cancel()
	path, err := Find(argv[0])
	if err != nil {
		return "", &Error{Argv: argv, Err: err}
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = grace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err = cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == context.DeadlineExceeded { // the caller's, which says nothing of the program
		err = hung{after: time.Since(began).Round(time.Millisecond), rest: true}
	}
	return "", &Error{Argv: argv, Stderr: stderr.String(), Err: err}
}
