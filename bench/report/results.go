// Package report keeps what was measured and writes it down: tables in Markdown, a picture in SVG, and which targets
// are reached. It measures nothing itself.
package report

import (
	"slices"
	"sync"

	"github.com/drawbridge-net/drawbridge/bench/stats"
)

// A Case is a metric with how much there was of what it depends on.
type Case struct {
	Metric string // an ID of Metrics
	Level  string
}

// A Fact says what a run was made on or with.
type Fact struct{ What, Is string }

// Results are those of one run.
type Results struct {
	Subjects []string // in the order in which they are shown; the first is what the others are compared with
	Facts    []Fact
	Notes    []string // what a reader must know to judge the numbers
	Ranges   bool     // whether the range of the rounds' own ratios is told in each cell

	mu     sync.Mutex // guards what follows, and Notes; what reads is called when the run is over
	cases  []Case     // in the order in which they were first measured
	series map[key]*stats.Series
}

type key struct {
	Case
	subject string
}

// Add enters the number of a round.
func (r *Results) Add(c Case, subject string, round int, v float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.cases, c) {
		r.cases = append(r.cases, c)
	}
	if r.series == nil {
		r.series = map[key]*stats.Series{}
	}
	k := key{c, subject}
	if r.series[k] == nil {
		r.series[k] = &stats.Series{}
	}
	r.series[k].Set(round, v)
}

// Note enters a sentence once.
func (r *Results) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// get returns a series, empty if there is none.
func (r *Results) get(c Case, subject string) stats.Series {
	if s := r.series[key{c, subject}]; s != nil {
		return *s
	}
	return nil
}

// levels are those of a metric, in order.
func (r *Results) levels(metric string) []string {
	var out []string
	for _, c := range r.cases {
		if c.Metric == metric {
			out = append(out, c.Level)
		}
	}
	return out
}

// last is the highest level at which a subject was measured, "" if none.
func (r *Results) last(metric, subject string) string {
	for _, level := range slices.Backward(r.levels(metric)) {
		if level != Again && len(r.get(Case{metric, level}, subject)) > 0 {
			return level
		}
	}
	return ""
}
