//go:build engine

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// installedAt is what make install made at a commit of the project: the program, and the units of that time. Its source is in testdata, since
// neither an archive of the project nor a shallow clone has history.
func installedAt(t *testing.T, commit string) string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-C", tree, "-xJf", filepath.Join("testdata", commit+".tar.xz")).CombinedOutput(); err != nil {
		t.Fatalf("unpacking the source of commit %s: %v\n%s", commit, err, out)
	}
	return installed(t, tree)
}
