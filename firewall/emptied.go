package firewall

import "time"

// emptied is since when DOCKER-USER is without rules in a family in which it is still asked, zero where it is not. Who replaces rules takes
// them away for a moment. If nobody were asked any more from then on, the new ones would decide about clients of sockets only when they had
// been heard of.
type emptied struct{ v4, v6 time.Time }

// after returns what holds from now on, and where to ask on a host on which rules were found in some families. A
// kernel that cannot be asked is not: clients are kept out for that.
func (e emptied) after(last *applied, found Both, now time.Time, askOn time.Duration) (next emptied, asked Both) {
	was := Both{}
	if last != nil && !last.host.NoInquiry {
		was = last.host.UserRules
	}
	next.v4, asked.V4 = stillAsked(e.v4, was.V4, found.V4, now, askOn)
	next.v6, asked.V6 = stillAsked(e.v6, was.V6, found.V6, now, askOn)
	return next, asked
}

func stillAsked(since time.Time, was, found bool, now time.Time, askOn time.Duration) (next time.Time, asked bool) {
	switch {
	case found:
		return time.Time{}, true
	case !was:
		return time.Time{}, false
	case since.IsZero():
		since = now
	}
	if now.Sub(since) < askOn {
		return since, true
	}
	return time.Time{}, false
}

// stillAsking adds the families in which DOCKER-USER is asked as things are.
func (a *applied) stillAsking(h Host) Host {
	if a != nil && !a.host.NoInquiry {
		h.UserRules.V4 = h.UserRules.V4 || a.host.UserRules.V4
		h.UserRules.V6 = h.UserRules.V6 || a.host.UserRules.V6
	}
	return h
}
