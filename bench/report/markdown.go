package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge-net/drawbridge/bench/stats"
)

// Markdown is the whole of a run: what it was made with, the targets if a backend was measured, and every number. The picture may be none.
func (r *Results) Markdown(title, picture string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", title)
	b.WriteString("Written by `make bench`; how it measures is told in [README.md](README.md). A cell is the median over the rounds, the lowest and " +
		"the highest round in brackets, and the ratio of the medians to " + r.Subjects[0] + r.rangesTold() + ".\n\n")
	for _, f := range r.Facts {
		fmt.Fprintf(&b, "* %s: %s\n", f.What, f.Is)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "* %s\n", n)
	}
	if picture != "" {
		fmt.Fprintf(&b, "\n![The main numbers as a picture](%s)\n", picture)
	}
	r.writeTargets(&b)
	b.WriteString("\n## Measurements\n")
	for _, m := range Metrics {
		r.writeMetric(&b, m)
	}
	return b.String()
}

func (r *Results) writeTargets(b *strings.Builder) {
	backends := slices.DeleteFunc(slices.Clone(r.Subjects), func(s string) bool { return s != NFTables && s != IPTables })
	if len(backends) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Targets\n\nEach backend's cell: what was wanted, what was measured, and the range of the rounds' own ratios.\n\n| target | %s |\n|---|%s\n",
		strings.Join(backends, " | "), strings.Repeat("---|", len(backends)))
	for _, t := range Targets {
		what, cells := strings.ReplaceAll(t.What, "{}", "all"), []string{}
		for _, backend := range backends {
			v, ok := r.verdict(t, backend)
			if !ok {
				cells = append(cells, "–")
				continue
			}
			what = v.What
			cells = append(cells, v.text(t))
		}
		fmt.Fprintf(b, "| %s | %s |\n", what, strings.Join(cells, " | "))
	}
}

func (v Verdict) text(t Target) string {
	sign, word := "≤", "**missed**"
	if t.AtLeast {
		sign = "≥"
	}
	if v.Reached {
		word = "reached"
	}
	unit := t.Absolute
	if unit != "" {
		unit = " " + unit
	}
	text := fmt.Sprintf("%s %s%s: %s", sign, limitText(v.Limit), unit, number(v.Got))
	if v.Spread.N > 1 {
		text += fmt.Sprintf(" [%s–%s]", number(v.Spread.Min), number(v.Spread.Max))
	}
	return text + ", " + word
}

func (r *Results) writeMetric(b *strings.Builder, m Metric) {
	levels := r.levels(m.ID)
	if len(levels) == 0 {
		return
	}
	unit := ""
	if m.Unit != "" {
		unit = ", " + m.Unit
	}
	if m.More {
		unit += " (more is better)"
	}
	fmt.Fprintf(b, "\n### %s%s\n\n| %s | %s |\n|---|%s\n", m.Title, unit, m.Level,
		strings.Join(r.Subjects, " | "), strings.Repeat("---:|", len(r.Subjects)))
	for _, level := range levels {
		var cells []string
		for _, s := range r.Subjects {
			cells = append(cells, r.cell(Case{m.ID, level}, s))
		}
		fmt.Fprintf(b, "| %s | %s |\n", level, strings.Join(cells, " | "))
	}
}

func (r *Results) cell(c Case, subject string) string {
	s := stats.Summarize(r.get(c, subject))
	if s.N == 0 {
		return "–"
	}
	text := number(s.Median)
	if s.N > 1 {
		text += fmt.Sprintf(" [%s–%s]", number(s.Min), number(s.Max))
	}
	first := r.get(c, r.Subjects[0])
	ref := stats.Summarize(first)
	if subject == r.Subjects[0] || ref.N == 0 || ref.Median == 0 {
		return text
	}
	text += " ×" + number(s.Median/ref.Median)
	if own := stats.Summarize(stats.Ratios(r.get(c, subject), first)); r.Ranges && own.N > 1 {
		text += fmt.Sprintf(" [%s–%s]", number(own.Min), number(own.Max))
	}
	return text
}

func (r *Results) rangesTold() string {
	if r.Ranges {
		return " with the range of the rounds' own ratios"
	}
	return ""
}

// limitText is a limit as it was set: whole or a fraction.
func limitText(v float64) string {
	if v >= 1 || v == 0 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprintf("%.3g", v)
}

// number has three digits that count, and no more than the measurement bears.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 10000:
		return fmt.Sprintf("%.1fk", v/1000)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
