package iptables

import (
	"context"
	"time"

	"github.com/drawbridge-net/drawbridge/internal/periodic"
)

// watchPause is the time between two looks at what the kernel tells nobody of.
const watchPause = 400 * time.Millisecond

// Watch calls changed when somebody else changes our sets, or rules of the legacy variant, of which the kernel tells nobody, until ctx
// ends. It starts no program: it asks the kernel how many elements and rules there are, and compares that with what was left. While none of
// ours are on the host it asks nothing. Changes that leave the numbers as they were go unheard.
func (b *Backend) Watch(ctx context.Context, changed func(reason string)) error {
	return periodic.Do(ctx, watchPause, func(time.Time) {
		for _, stray := range b.strays {
			if reason := stray(); reason != "" {
				changed(reason)
			}
		}
	})
}

// Watch does the same for the rules that accept packets with the bit.
func (m *Marked) Watch(ctx context.Context, changed func(reason string)) error {
	return m.backend.Watch(ctx, changed)
}
