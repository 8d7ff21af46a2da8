// Package periodic does something from time to time.
package periodic

import (
	"context"
	"time"
)

// Do calls work after each pause until ctx ends, and returns nil then. A call that takes longer than the pause is followed by the next
// one at once, and by no more for the pauses that it missed.
func Do(ctx context.Context, pause time.Duration, work func(now time.Time)) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			work(now)
		}
	}
}
