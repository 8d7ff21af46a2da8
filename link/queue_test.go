package link

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestQueue: what is added while a round runs shares the next one; Settle waits for it.
func TestQueue(t *testing.T) {
	begun, goOn := make(chan int), make(chan struct{})
	q := &queue{do: func(e []ending) error { begun <- len(e); <-goOn; return nil }, failed: func(err error) { t.Error(err) }}
	q.add(ending{})
	if n := <-begun; n != 1 {
		t.Errorf("the first round has %d", n)
	}
	var adding sync.WaitGroup
	for range 20 {
		adding.Go(func() { q.add(ending{}) })
	}
	adding.Wait()
	settled := make(chan error)
	go func() { settled <- q.settle(t.Context()) }()
	goOn <- struct{}{}
	if n := <-begun; n != 20 {
		t.Errorf("the second round has %d", n)
	}
	select {
	case <-settled:
		t.Error("settled too early")
	case <-time.After(10 * time.Millisecond):
	}
	goOn <- struct{}{}
	if err := <-settled; err != nil {
		t.Error(err)
	}
}

// TestQueueFails: what failed is kept and told until it succeeds, without trying on and on.
func TestQueueFails(t *testing.T) {
	fault := errors.New("no memory")
	rounds, failures := []int{}, 0
	var failing error = fault
	q := &queue{do: func(e []ending) error { rounds = append(rounds, len(e)); return failing }, failed: func(error) { failures++ }}
	q.add(ending{})
	for range 2 {
		if err := q.settle(t.Context()); !errors.Is(err, fault) {
			t.Errorf("settled with %v", err)
		}
	}
	failing = nil
	q.add(ending{})
	if err := q.settle(t.Context()); err != nil {
		t.Error(err)
	}
	if last := rounds[len(rounds)-1]; last != 2 && len(rounds) < 4 || failures == 0 || len(q.waiting) > 0 {
		t.Errorf("rounds %v, %d failures told, %d wait", rounds, failures, len(q.waiting))
	}
}

// TestQueueWaits: rounds begin after the delay, and at once for who settles.
func TestQueueWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds []time.Duration
		began := time.Now()
		q := &queue{do: func([]ending) error { rounds = append(rounds, time.Since(began)); return nil }, delay: time.Second}
		q.add(ending{})
		time.Sleep(500 * time.Millisecond)
		q.add(ending{})
		time.Sleep(time.Second)
		q.add(ending{})
		time.Sleep(100 * time.Millisecond)
		if err := q.settle(t.Context()); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{time.Second, 1600 * time.Millisecond}; !slices.Equal(rounds, want) {
			t.Errorf("rounds at %v, want %v", rounds, want)
		}
	})
}

// TestQueueGivesUp: who waits goes with its context.
func TestQueueGivesUp(t *testing.T) {
	goOn := make(chan struct{})
	q := &queue{do: func([]ending) error { <-goOn; return nil }, failed: func(error) {}}
	q.add(ending{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.settle(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(goOn)
	if err := q.settle(t.Context()); err != nil {
		t.Error(err)
	}
}
