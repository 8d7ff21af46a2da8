package unixsocket

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestClaim(t *testing.T) {
	name := fmt.Sprintf("drawbridge-test-%d", os.Getpid())
	first, err := Claim(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(name); !errors.Is(err, ErrClaimed) {
		t.Errorf("the second claim: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Claim(name)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestClaimFile(t *testing.T) {
	path := tempPath(t)
	first, err := ClaimFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v %v", info, err)
	}
	if _, err := ClaimFile(path); !errors.Is(err, ErrClaimed) {
		t.Errorf("the second claim: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
	write(t, path) // as a process that was killed leaves it
	again, err := ClaimFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Errorf("giving up a claim whose file is gone: %v", err)
	}
}

// TestClaimOfSilent: a name whose holder does not say who it is keeps nobody off for good.
func TestClaimOfSilent(t *testing.T) {
	name := fmt.Sprintf("drawbridge-test-silent-%d", os.Getpid())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(name); !errors.Is(err, ErrForeign) {
		t.Errorf("claiming a name that somebody has and does not listen on: %v", err)
	}
}
