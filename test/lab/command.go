package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A Place is somewhere a command can be run: a Host, a Client or a Container.
type Place interface {
	// Command prepares a command there; it is started with exec.Cmd's own methods.
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
	// Probe is the helper program's path there.
	Probe() string
}

// Command prepares a command inside the lab. Ending ctx kills it, signals sent
// to it are passed on, and its exit code is the command's own (128 and the
// signal's number if one ended it). The environment is a fixed small one, to
// which the caller may append.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	argv := append([]string{"enter", strconv.Itoa(h.init), name}, args...)
	cmd := exec.CommandContext(ctx, h.Probe(), argv...)
	cmd.Env = environment()
	// A background child that holds the output open must not hold us. On a busy machine it takes a moment until the rest of the output is read.
	cmd.WaitDelay = 10 * time.Second
	if h.closed.Load() {
		cmd.Err = errors.New("the lab is closed")
	}
	return cmd
}

// Run runs a command inside the lab and returns its standard output.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(h.Command(ctx, name, args...), append([]string{name}, args...))
}

// A CommandError is a command that could not be run or that ended with an error.
type CommandError struct {
	Argv   []string
	Stdout string
	Stderr string
	Err    error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("%s: %v: %s", strings.Join(e.Argv, " "), e.Err, strings.TrimSpace(e.Stderr))
}

func (e *CommandError) Unwrap() error { return e.Err }

func run(cmd *exec.Cmd, argv []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &CommandError{Argv: argv, Stdout: stdout.String(), Stderr: stderr.String(), Err: err}
	}
	return stdout.String(), nil
}

// environment is the same on every machine, so that no user's DOCKER_HOST,
// proxy or language changes what a lab does.
func environment() []string {
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"LC_ALL=C",
		"DOCKER_HOST=unix:///run/docker.sock",
		"DOCKER_CONFIG=/run/docker-client",
	}
	// Coverage of programs built with -cover is the one thing passed through.
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}
