package legacytables

import (
	"encoding/binary"
	"testing"
)

// TestBecomes: what explains later sizes, and what does not.
func TestBecomes(t *testing.T) {
	// of returns what the kernel tells of a filter table, which has three chains of its own.
	of := func(rules, bytes uint32) (in info) {
		binary.NativeEndian.PutUint32(in[validHooks:], 0b1110)
		binary.NativeEndian.PutUint32(in[numEntries:], rules)
		binary.NativeEndian.PutUint32(in[numEntries+4:], bytes)
		return in
	}
	v4, v6 := Table{Name: "filter"}, Table{V6: true, Name: "filter"}
	before := Sizes{v4: of(10, 2000), v6: of(7, 1500)}
	for _, c := range []struct {
		name  string
		later Sizes
		added map[Table]int
		want  bool
	}{
		{"nothing", before, nil, true},
		{"ours", Sizes{v4: of(12, 2400), v6: of(7, 1500)}, map[Table]int{v4: 2}, true},
		{"ours, as many as before", Sizes{v4: of(10, 2100), v6: of(7, 1500)}, map[Table]int{v4: 0}, true},
		{"one more", Sizes{v4: of(13, 2600), v6: of(7, 1500)}, map[Table]int{v4: 2}, false},
		{"another one in the other family", Sizes{v4: of(12, 2400), v6: of(7, 1600)}, map[Table]int{v4: 2}, false},
		{"another's", Sizes{v4: of(10, 2000), v6: of(7, 1600)}, nil, false},
		{"a table is gone", Sizes{v4: of(10, 2000)}, nil, false},
	} {
		if got := before.Becomes(c.later, c.added); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	made := Sizes{v4: of(6, 900)}
	if !(Sizes{}).Becomes(made, map[Table]int{v4: 2}) {
		t.Error("a table that we made has two rules more than a blank one")
	}
	if (Sizes{}).Becomes(made, map[Table]int{v4: 1}) || (Sizes{}).Becomes(made, nil) {
		t.Error("somebody's rules, or table, are taken for ours")
	}
}
