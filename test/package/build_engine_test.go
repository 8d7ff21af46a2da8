//go:build engine

package debian

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// top is the directory of the project.
const top = "../.."

// Versions of the packages that are installed and upgraded. The first is one that comes before its release.
const (
	older = "7.0.0-rc1"
	newer = "7.0.0"
)

// built is where packages are that several tests install.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "drawbridge-package-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// packages builds both versions, once, and returns their files.
var packages = sync.OnceValues(func() (files [2]string, err error) {
	for i, version := range []string{older, newer} {
		env := []string{"OUT=" + built, "VERSION=" + version, "SOURCE_DATE_EPOCH=1700000000"}
		made, err := build(top, env, runtime.GOARCH)
		if err != nil {
			return files, err
		}
		files[i] = made[0]
	}
	return files, nil
})

// build runs the build in a tree of the project and returns the files that it made.
func build(tree string, env []string, arches ...string) ([]string, error) {
	cmd := exec.Command("packaging/debian/build.sh", arches...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), env...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s%s", cmd, err, out, complaints.Bytes())
	}
	return strings.Fields(string(out)), nil
}

// TestTwoBuildsAreEqual builds in another directory too, with files that bear other times and permissions, and in another time zone.
func TestTwoBuildsAreEqual(t *testing.T) {
	env := []string{"VERSION=" + newer, "SOURCE_DATE_EPOCH=1700000000"}
	first, err := build(top, append(slices.Clone(env), "OUT="+t.TempDir()), "amd64", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	tree := copyOfProject(t)
	second, err := build(tree, append(slices.Clone(env), "OUT="+filepath.Join(tree, "dist"), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS="), "amd64", "arm64")
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 2 || len(second) != 2 {
		t.Fatalf("built %v and %v, want two packages each", first, second)
	}
	for i := range first {
		if filepath.Base(first[i]) != filepath.Base(second[i]) {
			t.Errorf("%s and %s have different names", first[i], second[i])
		}
		if a, b := read(t, first[i]), read(t, second[i]); !bytes.Equal(a, b) {
			t.Errorf("%s differs between two builds: %d and %d bytes", filepath.Base(first[i]), len(a), len(b))
		}
	}
}

// copyOfProject has what git knows of, as it is now.
func copyOfProject(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = top
	names, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(top, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// copyFile leaves no right to anybody else.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, info.Mode()&0o700)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
