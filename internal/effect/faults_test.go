//go:build faults

package effect

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
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

// TestPlanBesideEffects: the plan is kept at the first point that is walked behind it, though effects go on while it is written.
func TestPlanBesideEffects(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(DirEnv, dir)
	met := make(chan error)
	var doing sync.WaitGroup
	defer doing.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		doing.Go(func() {
			for ctx.Err() == nil {
				if err := Do("test", func() error { return nil }); err != nil {
					select {
					case met <- err:
					case <-ctx.Done():
					}
				}
			}
		})
	}
	for plan := range 500 {
		if err := (Plan{Point: 1, Fault: Fail}).Write(dir); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-met:
			if !errors.Is(err, ErrInjected) {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			names, err := Walked(dir)
			t.Fatalf("plan %d was not kept, though %d points were walked (%v)", plan+1, len(names), err)
		}
	}
}
