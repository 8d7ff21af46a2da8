package firewall

import "time"

// emptied is since when DOCKER-USER is without rules in a family in which it is still asked, zero where it is not. Who replaces rules takes
// them away for a moment. If nobody were asked any more from then on, the new ones would decide about clients of sockets only when they had
// been heard of.
type emptied struct{ v4, v6 time.Time }

// after returns what holds from now on, and where to ask on a host on which DOCKER-USER was asked, and rules were found now, in some families.
func (e emptied) after(was, found Both, now time.Time, askOn time.Duration) (next emptied, asked Both) {
	next.v4, asked.V4 = goesOn(e.v4, was.V4, found.V4, now, askOn)
	next.v6, asked.V6 = goesOn(e.v6, was.V6, found.V6, now, askOn)
	return next, asked
}

// goesOn is after for one family.
func goesOn(since time.Time, was, found bool, now time.Time, askOn time.Duration) (next time.Time, asked bool) {
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

// asks returns in which families DOCKER-USER is asked. A kernel that cannot be asked is not: clients are kept out for that.
func (a *applied) asks() Both {
	if a == nil || a.host.NoInquiry {
		return Both{}
	}
	return a.host.UserRules
}
