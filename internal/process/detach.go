package process

import (
	"os"
	"os/exec"
	"syscall"
)

// Detached is a program that lives on when the one that started it ends.
type Detached struct {
	Pid int
	// Ended gets how it ended, nil for well, while the starter lives.
	Ended <-chan error
}

// Kill ends it without a last word.
func (d *Detached) Kill() { _ = syscall.Kill(d.Pid, syscall.SIGKILL) }

// Detach starts the program at a path, which may say nothing to people, under the name argv begins with, in a session of its own, so that no signal to the starter's terminal or group reaches it. It
// reads and writes nothing: a pipe whose other end goes with the starter would kill it. The files are its descriptors from 3 on.
func Detach(path string, argv []string, files ...*os.File) (*Detached, error) {
	cmd := &exec.Cmd{Path: path, Args: argv, ExtraFiles: files, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := cmd.Start(); err != nil {
		return nil, &Error{Argv: cmd.Args, Err: err}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return &Detached{cmd.Process.Pid, ended}, nil
}
