package plugin

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The drivers are nil: a table that calls one before the arguments are checked panics here.
func TestRoutesAreTheContract(t *testing.T) {
	routes := Routes(nil, nil)
	var got []string
	for _, rt := range routes {
		got = append(got, rt.Path)
		if isAsk := slices.Contains(asks, rt.Path); rt.early != isAsk {
			t.Errorf("%s: answered before the state is loaded: %v, want %v", rt.Path, rt.early, isAsk)
		}
	}
	want := append(slices.Clone(paths), asks...)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRoutesRefuseEmptyBodies(t *testing.T) {
	r := serve(t, Routes(nil, nil), Options{})
	for _, p := range paths {
		a := r.post(p, "")
		if text := a.text(t); a.status != 400 || !strings.Contains(text, p[1:]+" came without its arguments") {
			t.Errorf("%s: got %d %q", p, a.status, text)
		}
	}
}
