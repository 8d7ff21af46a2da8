//go:build engine

package docs

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
)

// goal is a goal of make's that a sentence names.
var goal = regexp.MustCompile(`^make( [a-z-]+)+$`)

// single is a command for one test of a package.
var single = regexp.MustCompile(`go test .* -run (\S+) \./(\S+)$`)

// bench is how make starts the benchmarks.
var bench = regexp.MustCompile(`(?m)go run \./bench (.*)$`)

// TestRehearsed: make knows the goals, packages have the tests, and our programs the flags, of commands that nobody types in a test.
func TestRehearsed(t *testing.T) {
	lines := map[string]bool{}
	for line := range rehearsed {
		lines[line] = true
	}
	for _, text := range texts(t) {
		for _, span := range Spans(text) {
			if goal.MatchString(span) {
				lines[span] = true
			}
		}
	}
	for line := range lines {
		t.Run(line, func(t *testing.T) {
			if m := single.FindStringSubmatch(line); m != nil {
				if !has(t, m[2], "func "+m[1]) {
					t.Errorf("%s has no test that begins with %s", m[2], m[1])
				}
				return
			}
			if m := bench.FindStringSubmatch(rehearse(t, line)); m != nil {
				rehearse(t, "go run ./bench "+m[1]+" -help")
			}
		})
	}
}

// rehearse has a shell run a line in the project's folder, in which make only says what it would do, and not where: it may itself be started by make.
func rehearse(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", line)
	cmd.Dir, cmd.Env = folder(t), append(os.Environ(), "MAKEFLAGS=n --no-print-directory")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}
