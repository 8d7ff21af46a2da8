package lab

import (
	"crypto/sha256"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Trixie is Debian 13, with docker.io 26.1 and firewalld 2.3, as a root of a lab.
const Trixie = "trixie"

// Own is the machine's own root, and all of it private: for tests that install something.
const Own = "own"

// rootScript makes the root. Which one is whole and of today's making is told by the sum of its text.
//
//go:embed root.sh
var rootScript []byte

// rootDir is the directory that root.sh makes.
func rootDir(name string) (string, error) {
	switch name {
	case "":
		return "", nil
	case Own:
		return "/", nil
	case Trixie:
	default:
		return "", fmt.Errorf("root %q is neither empty, for the machine's own, nor %s or %s", name, Own, Trixie)
	}
	sum := sha256.Sum256(rootScript)
	dir := fmt.Sprintf("/var/cache/drawbridge-lab/%s-%x", name, sum[:6])
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("the lab's root %s is not there; run make deps", dir)
	}
	return dir, nil
}

// rootArgs are what guard is told about the root.
func rootArgs(dir string, share []string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	// The one thing that programs write outside the lab, see environment.
	if coverage := os.Getenv("GOCOVERDIR"); coverage != "" {
		share = append(slices.Clip(share), coverage)
	}
	args := []string{"-root", dir}
	for _, path := range share {
		if !filepath.IsAbs(path) || strings.HasPrefix(path, "/run/") {
			return nil, fmt.Errorf("%s cannot be shared with the lab: it must be an absolute path and not below /run", path)
		}
		args = append(args, "-share", path)
	}
	return args, nil
}
