//go:build engine

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installedAt is what make install made at a commit of the project: the program, and the units of that time.
func installedAt(t *testing.T, commit string) string {
	t.Helper()
	if out, err := git(t, "cat-file", "-e", commit+"^{commit}"); err != nil {
		t.Fatalf("this clone of the project lacks commit %s, of which the older program is built: git fetch --unshallow (%v: %s)", commit, err, strings.TrimSpace(string(out)))
	}
	tree := filepath.Join(t.TempDir(), "tree")
	archive := tree + ".tar"
	if out, err := git(t, "archive", "--output="+archive, commit); err != nil {
		t.Fatalf("git archive %s: %v\n%s", commit, err, out)
	}
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", tree, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("unpacking commit %s: %v\n%s", commit, err, out)
	}
	return installed(t, tree)
}

// git runs git in the project. Root may do so in the clone of whom it tests for.
func git(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	dir := repository(t)
	return exec.Command("git", append([]string{"-c", "safe.directory=" + dir, "-C", dir}, args...)...).CombinedOutput()
}
