package link

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSettingsOfOthers: each setting has its turn, however few are read at a time; what somebody changed is told once, and again when it
// was set and changed again; what is forgotten or gone is not.
func TestSettingsOfOthers(t *testing.T) {
	settings := map[string]string{}
	for i := range 5 {
		settings[fmt.Sprintf("conf/br%d/accept_ra", i)] = "1"
	}
	s := newSysctl(t, settings)
	l := &Links{sysctl: s}
	set := func(key string) {
		t.Helper()
		if err := l.set("", key, "0"); err != nil {
			t.Fatal(err)
		}
	}
	harm := func(key string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.Root, key), []byte("1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	told := func() (all []string) {
		for range 3 {
			all = append(all, l.changedSettings(2)...)
		}
		slices.Sort(all)
		return all
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if got := told(); !slices.Equal(got, want) {
			t.Errorf("%s: told %q, want %q", what, got, want)
		}
	}
	expect("nothing is set")
	for key := range settings {
		set(key)
	}
	set("conf/none/accept_ra") // which the kernel lacks
	expect("nothing changed")
	for key := range settings {
		harm(key)
	}
	expect("all changed", "conf/br0/accept_ra", "conf/br1/accept_ra", "conf/br2/accept_ra", "conf/br3/accept_ra", "conf/br4/accept_ra")
	expect("told before")
	for key := range settings {
		set(key)
	}
	harm("conf/br1/accept_ra")
	l.switches.forget("br1")
	if l.switches.holds("conf/br1/accept_ra") || !l.switches.holds("conf/br2/accept_ra") {
		t.Error("the settings of br1 were to be forgotten, and those alone")
	}
	harm("conf/br2/accept_ra")
	if err := os.Remove(filepath.Join(s.Root, "conf/br3/accept_ra")); err != nil {
		t.Fatal(err)
	}
	expect("one of three", "conf/br2/accept_ra")
	set("conf/br1/accept_ra")
	harm("conf/br1/accept_ra")
	expect("set again", "conf/br1/accept_ra")
	set("conf/br2/accept_ra")
	if err := l.giveBack("br2", "conf/br2/accept_ra", "2"); err != nil {
		t.Error(err)
	}
	harm("conf/br2/accept_ra")
	expect("given back")
	if n := l.switches.count(); n > 5 {
		t.Errorf("%d settings are kept", n)
	}
}
