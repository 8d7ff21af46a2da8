package unixsocket

import (
	"errors"
	"fmt"
	"os"
	"testing"
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
