// Package stats is the little arithmetic that measurements need: medians and spreads of rounds.
package stats

import (
	"math"
	"slices"
)

// A Series is one number per round; NaN stands for a round without one.
type Series []float64

// Set puts the number of a round, counted from 0.
func (s *Series) Set(round int, v float64) {
	for len(*s) <= round {
		*s = append(*s, math.NaN())
	}
	(*s)[round] = v
}

// A Summary is what is told of a series. Median and range are told, not mean and deviation: a
// machine that does something else for a moment makes a few rounds very slow.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summarize leaves out rounds without a number. Without any, N is 0.
func Summarize(s Series) Summary {
	known := slices.DeleteFunc(slices.Clone(s), math.IsNaN)
	if len(known) == 0 {
		return Summary{}
	}
	slices.Sort(known)
	n := len(known)
	return Summary{N: n, Median: (known[(n-1)/2] + known[n/2]) / 2, Min: known[0], Max: known[n-1]}
}

// Ratios divides two series round by round. What happened to the machine in a round happened to both.
func Ratios(num, den Series) Series {
	var out Series
	for i := range min(len(num), len(den)) {
		if den[i] != 0 {
			out.Set(i, num[i]/den[i])
		}
	}
	return out
}
