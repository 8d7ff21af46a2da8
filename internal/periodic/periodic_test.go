package periodic

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began, calls := time.Now(), 0
		err := Do(ctx, time.Second, func(now time.Time) {
			calls++
			if at := now.Sub(began); at != time.Duration(calls)*time.Second {
				t.Errorf("call %d after %v", calls, at)
			}
			if calls == 3 {
				cancel()
			}
		})
		if err != nil || calls != 3 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}
