package stats

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var nan = math.NaN()

func TestSummarize(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Series
		want Summary
	}{
		{"nothing", nil, Summary{}},
		{"only gaps", Series{nan, nan}, Summary{}},
		{"one", Series{3}, Summary{1, 3, 3, 3}},
		{"odd", Series{9, 1, 5}, Summary{3, 5, 1, 9}},
		{"even", Series{4, 1, 2, 100}, Summary{4, 3, 1, 100}},
		{"with a gap", Series{4, nan, 2}, Summary{2, 3, 2, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Summarize(tt.in)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestSummarizeLeavesTheSeriesAlone(t *testing.T) {
	s := Series{3, nan, 1}
	Summarize(s)
	if s[0] != 3 || !math.IsNaN(s[1]) || s[2] != 1 {
		t.Errorf("the series is %v now", s)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	got := Ratios(Series{2, nan, 9, 8}, Series{4, 1, 3, 0})
	if d := cmp.Diff(Series{0.5, nan, 3}, got, cmpopts.EquateNaNs()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSetFillsGaps(t *testing.T) {
	var s Series
	s.Set(2, 7)
	s.Set(0, 1)
	if d := cmp.Diff(Series{1, nan, 7}, s, cmpopts.EquateNaNs()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
