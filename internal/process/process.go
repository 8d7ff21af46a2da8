// Package process starts the programs that Drawbridge cannot do without. It is the only
// place that does: arguments are never given to a shell, the locale is fixed so that
// output can be read, and a failure carries what the program said.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
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

// Run starts argv with stdin as its input, waits for it and returns its standard
// output. The program is killed when ctx ends.
func Run(ctx context.Context, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = grace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.String(), nil
	}
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return "", &Error{Argv: argv, Stderr: stderr.String(), Err: err}
}
