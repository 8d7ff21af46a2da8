package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
)

// helper is the static helper program (folder probe), built once per process.
var helper = sync.OnceValues(buildHelper)

func buildHelper() ([]byte, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return nil, errors.New("the lab's sources cannot be found: it must be built without -trimpath")
	}
	dir, err := os.MkdirTemp("", "drawbridge-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Dir = filepath.Join(filepath.Dir(file), "probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the lab's helper program: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

// writeProgram makes an executable file of a program. A child writes it: were
// it this process, a child that another goroutine forks meanwhile would hold
// the file open for writing until its own exec, and for so long the kernel
// refuses to run it (ETXTBSY). All writers have ended when this returns.
func writeProgram(program []byte, path string) error {
	cmd := exec.Command("/bin/sh", "-c", `umask 022 && cat >"$0" && chmod 755 "$0"`, path)
	cmd.Stdin = bytes.NewReader(program)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("writing %s: %w\n%s", path, err, text)
	}
	return nil
}
