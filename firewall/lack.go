package firewall

// Lack is whether the host lacks something that a backend can do without. The zero Lack has not asked yet. It is not for use by several at once.
type Lack struct {
	known bool
	why   error
}

// Ask returns why the host lacks it, nil if it does not. It asks until the answer is one for good: the host has it, or lasts says so of the
// error. Any other failure passes, as one for want of memory does, and means only that nobody can count on it now.
func (l *Lack) Ask(ask func() error, lasts func(error) bool) error {
	if !l.known {
		l.why = ask()
		l.known = l.why == nil || lasts(l.why)
	}
	return l.why
}

// Never says of no failure that it lasts: somebody may load a module.
func Never(error) bool { return false }
