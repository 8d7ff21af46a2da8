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
	left *string // what was there when we were last done; nil while we are at work, and for who does not use it; guarded by mu
	seen string  // what was there before somebody looked; guarded by mu
}

func newLegacy() *legacy { return &legacy{kernel: legacytables.Open()} }

func (l *legacy) close() {
	if l != nil {
		l.kernel.Close()
	}
}

// begin says that we look at the rules, and may change them. What somebody changes from now on is news, unless we write.
func (l *legacy) begin() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.seen = nil, l.look()
}

// end says that the rules are as we want them, and whether we wrote any.
func (l *legacy) end(wrote bool) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.seen
	if wrote {
		now = l.look()
	}
	l.left = &now
}

// stray says that somebody changed rules, once.
func (l *legacy) stray() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == nil || *l.left == l.look() {
		return ""
	}
	l.left = nil
	return "rules of legacy iptables were changed"
}

// look returns what the kernel tells of the tables in which rules of ours may be.
func (l *legacy) look() string { return l.kernel.Sizes(tables...) }
