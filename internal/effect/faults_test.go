//go:build faults

package effect

import (
	"errors"
	"slices"
	"testing"
)

func TestFail(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(DirEnv, dir)
	done := 0
	do := func() error { return Do("test", func() error { done++; return nil }) }
	if err := do(); err != nil || done != 1 {
		t.Errorf("without a plan: %v, done %d times", err, done)
	}
	for range 2 {
		done = 0
		if err := (Plan{Point: 2, Fault: Fail}).Write(dir); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Errorf("ahead of the point: %v", err)
		}
		if err := do(); !errors.Is(err, ErrInjected) || done != 1 {
			t.Errorf("at the point: %v, done %d times", err, done)
		}
		if err := do(); err != nil {
			t.Errorf("behind the point: %v", err)
		}
		if names, err := Walked(dir); err != nil || !slices.Equal(names, []string{"test", "test", "test"}) {
			t.Errorf("walked %q, %v", names, err)
		}
	}
}
