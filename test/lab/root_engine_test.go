//go:build engine

package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestTrixieIsWhatItIsSaidToBe: tests choose it for these versions.
func TestTrixieIsWhatItIsSaidToBe(t *testing.T) {
	h := Up(t, Options{Root: Trixie})
	for _, row := range []struct {
		argv []string
		want string
	}{
		{[]string{"cat", "/etc/os-release"}, "VERSION_CODENAME=trixie\n"},
		{[]string{"/usr/sbin/dockerd", "--version"}, "Docker version 26.1."},
		{[]string{"/usr/bin/docker", "--version"}, "Docker version 26.1."},
		{[]string{"dpkg-query", "--show", "firewalld"}, "firewalld\t2.3."},
	} {
		if out, err := h.Run(t.Context(), row.argv[0], row.argv[1:]...); err != nil || !strings.Contains(out, row.want) {
			t.Errorf("%v says %q (%v), want %q", row.argv, out, err, row.want)
		}
	}
}

// TestLabsShareARootAndNothingElse: what one lab writes, anywhere, neither another nor the directory itself has.
func TestLabsShareARootAndNothingElse(t *testing.T) {
	dir, err := rootDir(Trixie)
	if err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	one, other := Up(t, Options{Root: Trixie}), Up(t, Options{Root: Trixie})
	const script = "echo mine >/etc/debian_version; echo mine >/usr/bin/mine; echo mine >/srv/mine; rm /usr/bin/curl"
	if _, err := one.Run(t.Context(), "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	if out, err := one.Run(t.Context(), "cat", "/etc/debian_version", "/usr/bin/mine", "/srv/mine"); err != nil || out != "mine\nmine\nmine\n" {
		t.Errorf("the writer reads %q, %v", out, err)
	}
	if out, err := other.Run(t.Context(), "cat", "/etc/debian_version"); err != nil || out == "mine\n" {
		t.Errorf("the other lab reads %q, %v", out, err)
	}
	if _, err := other.Run(t.Context(), "sh", "-c", "test -x /usr/bin/curl && ! test -e /usr/bin/mine && ! test -e /srv/mine"); err != nil {
		t.Errorf("the other lab sees what was written: %v", err)
	}
	if after := listing(t, dir); after != before {
		t.Error("the directory that labs share was written to")
	}
}

// listing is every file with its size and times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%p %y %m %s %T@ %C@\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestSharedFilesKeepTheirPaths, and nothing else of the machine is seen.
func TestSharedFilesKeepTheirPaths(t *testing.T) {
	shared, alone, hidden := t.TempDir(), t.TempDir(), t.TempDir()
	for _, path := range []string{shared + "/in", alone + "/file", alone + "/neighbour", hidden + "/out"} {
		if err := os.WriteFile(path, []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	coverage := t.TempDir()
	t.Setenv("GOCOVERDIR", coverage)
	h := Up(t, Options{Root: Trixie, Share: []string{shared, alone + "/file"}})
	for _, path := range []string{shared + "/in", alone + "/file"} {
		if out, err := h.Run(t.Context(), "cat", path); err != nil || out != path {
			t.Errorf("%s has %q, %v", path, out, err)
		}
	}
	for _, path := range []string{alone + "/neighbour", hidden} {
		if out, err := h.Run(t.Context(), "ls", path); err == nil {
			t.Errorf("the lab sees %s: %s", path, out)
		}
	}
	if _, err := h.Run(t.Context(), "sh", "-c", "echo counted >"+coverage+"/one; echo log >"+h.Dir()+"/two"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{coverage + "/one", h.Dir() + "/two"} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("what the lab wrote is not outside: %v", err)
		}
	}
}

// TestTheMachinesMountsAreOutOfSight: a root is a root, not a view of the machine's.
func TestTheMachinesMountsAreOutOfSight(t *testing.T) {
	h := Up(t, Options{Root: Trixie})
	out, err := h.Run(t.Context(), "cat", "/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		point := strings.Fields(line)[1]
		known := point == "/" || point == h.Dir()
		for _, tree := range []string{"/proc", "/sys", "/run", "/dev", "/lib/modules", "/usr/lib/modules"} {
			known = known || point == tree || strings.HasPrefix(point, tree+"/")
		}
		if !known {
			t.Errorf("mounted in the lab: %s", line)
		}
	}
}
