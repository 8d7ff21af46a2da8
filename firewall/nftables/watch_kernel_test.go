//go:build kernel

package nftables

import (
	"context"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/test/firewalltest"
)

// TestWatch: changes by nft and by iptables-nft are heard, with the name of who made them.
func TestWatch(t *testing.T) {
	l := newLab(t, "-nft")
	heard := make(chan string, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	l.In(func() {
		// The socket belongs to the namespace in which it was opened, and the lab's thread is there.
		conn, err := subscribe()
		must(t, err)
		go func() { ended <- listen(ctx, conn, func(program string) { heard <- program }) }()
	})
	l.sync(firewalltest.State())
	l.nft("add", "table", "inet", "theirs")
	l.expect(heard, "nft")
	l.Both("-t filter -N THEIRS")
	l.expect(heard, "iptables-nft", "ip6tables-nft")
	stop()
	if err := <-ended; err == nil {
		t.Error("the end was not told")
	}
	select {
	case reason := <-heard:
		t.Errorf("heard %q", reason)
	default:
	}
}

// expect takes what was heard.
func (l *lab) expect(heard chan string, want ...string) {
	l.T.Helper()
	for _, w := range want {
		for {
			select {
			case reason := <-heard:
				if reason != w {
					continue // iptables, when we had it tell what it has
				}
			case <-time.After(10 * time.Second):
				l.T.Errorf("%q was not heard", w)
			}
			break
		}
	}
}
