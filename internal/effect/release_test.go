//go:build !faults

package effect

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReleaseHasNoFaults: a plan means nothing to the released program.
func TestReleaseHasNoFaults(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("EFFECT_FAULTS", dir)
	if err := os.WriteFile(filepath.Join(dir, "plan"), []byte(`{"ID":"1","Point":1,"Fault":"kill before"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	if err := Do("test", func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "walked")); err == nil {
		t.Error("the point was noted")
	}
}
