package iptables

import (
	"sync"

	"github.com/drawbridge-net/drawbridge/internal/legacytables"
)

// legacy tells whether rules of the legacy variant are as they were left. Each change there is the exchange of a whole table, of which
// the kernel tells the number of rules and their size for a system call. Nil is for who watches nothing.
type legacy struct {
	kernel *legacytables.Tables

	mu   sync.Mutex
	left legacytables.Sizes // what was there when we were last done; nil while we are at work, and for who does not use it; guarded by mu
	seen legacytables.Sizes // what was there before somebody looked; guarded by mu
}

func newLegacy() *legacy { return &legacy{kernel: legacytables.Open()} }

func (l *legacy) close() {
	if l != nil {
		l.kernel.Close()
	}
}

// begin says that we look at the rules, and may change them. What somebody changes from now on is news.
func (l *legacy) begin() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.seen = nil, l.look()
}

// end says that the rules are as we want them, and how many more there are now by our changes, in the tables in which we made any. Where
// there are not so many somebody has made changes beside ours, and what is there now is news too.
func (l *legacy) end(added map[legacytables.Table]int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = l.seen
	if now := l.look(); l.seen.Becomes(now, added) {
		l.left = now
	}
}

// stray says that somebody changed rules, once.
func (l *legacy) stray() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == nil || l.left.Equal(l.look()) {
		return ""
	}
	l.left = nil
	return "rules of legacy iptables were changed"
}

// look returns what the kernel tells of the tables in which rules of ours may be.
func (l *legacy) look() legacytables.Sizes { return l.kernel.Sizes(tables...) }
