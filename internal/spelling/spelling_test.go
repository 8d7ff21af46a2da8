package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"name", "link", "internal"}
	tests := []struct {
		word, want string
		near       bool
	}{
		{"name", "name", true},
		{"nam", "name", true},
		{"lnik", "link", true},
		{"internl", "internal", true},
		{"vxlanid_list", "internal", false},
		{strings.Repeat("x", 100_000), "internal", false},
	}
	for _, tt := range tests {
		got, near := Nearest(tt.word, known)
		if near != tt.near || near && got != tt.want {
			t.Errorf("%.20s: %s, near %t; want %s, %t", tt.word, got, near, tt.want, tt.near)
		}
	}
	if got, near := Nearest("name", nil); near {
		t.Errorf("%q among no words", got)
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "adc", 1}, {"abc", "bc", 1}, {"kitten", "sitting", 3}} {
		if got, back := Distance(tt.a, tt.b), Distance(tt.b, tt.a); got != tt.want || back != tt.want {
			t.Errorf("%q and %q: %d and %d, want %d", tt.a, tt.b, got, back, tt.want)
		}
	}
}
