//go:build kernel

package link

import (
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestRoutedBySource: a routing rule by source is found, and that one came or went is told. Ours and those by anything else are none.
func TestRoutedBySource(t *testing.T) {
	l := newLab(t)
	l.links.Mode = asSaid
	l.apply(snapshot(exposed(network(1), state.PublishHost))) // for which there are rules of ours
	changed := make(chan struct{}, 100)
	l.links.RoutingChanged = func() { changed <- struct{}{} }
	l.listening()
	heard := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Errorf("%s is not heard", what)
		}
	}
	for _, tt := range []struct{ rule, want string }{
		{"-4 rule pref 99 iif lo lookup 100", ""},
		{"-4 rule pref 99 fwmark 7 lookup 100", ""},
		{"-4 rule pref 99 not from all fwmark 7 lookup 100", ""},
		{"-4 rule pref 99 to 192.0.2.1 lookup 100", ""},
		{"-6 rule pref 99 from all lookup main suppress_prefixlength 0", ""},
		{"-4 rule pref 99 from 192.0.2.1 lookup 100", "99: from 192.0.2.1"},
		{"-4 rule pref 99 from 192.0.2.0/24 iif lo lookup 100", "99: from 192.0.2.0/24"},
		{"-4 rule pref 99 not from 192.0.2.0/24 lookup 100", "99: from 192.0.2.0/24"},
		{"-6 rule pref 98 from 2001:db8::1 lookup 100", "98: from 2001:db8::1"},
		{"-4 rule pref 99 ipproto tcp sport 80 lookup 100", "99: from all sport 80-80"},
	} {
		words := strings.Fields(tt.rule)
		edit := func(how string) {
			t.Helper()
			l.ip(append([]string{words[0], "rule", how}, words[2:]...)...)
			heard(how + ": " + tt.rule)
		}
		edit("add")
		if got, err := l.links.RoutedBySource(); err != nil || got != tt.want {
			t.Errorf("%s: found %q, %v, want %q", tt.rule, got, err, tt.want)
		}
		edit("del")
		if got, err := l.links.RoutedBySource(); err != nil || got != "" {
			t.Errorf("%s is gone: found %q, %v", tt.rule, got, err)
		}
	}
}
