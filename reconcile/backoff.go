package reconcile

import "time"

const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// backoff is the time until a failed pass is tried again; zero after a success.
type backoff time.Duration

// next returns the time to wait after a failure. Only a failed retry doubles it: many
// requests that fail within a second say no more than one.
func (b *backoff) next(retry bool) time.Duration {
	switch d := time.Duration(*b); {
	case d == 0:
		*b = backoff(minBackoff)
	case retry:
		*b = backoff(min(2*d, maxBackoff))
	}
	return time.Duration(*b)
}

func (b *backoff) reset() { *b = 0 }
