package report

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/drawbridge-net/drawbridge/bench/stats"
)

// panels are the metrics in the picture.
var panels = []string{Connect, Disconnect, NetworkCreate, DisconnectRate, PortsRate, PortsNew, NetsRate, NetsFlow}

// colors tell subjects apart, in the order in which they are shown.
var colors = []string{"#5b6770", "#b0b7bc", "#e07b39", "#1f77b4", "#2ca02c", "#9467bd"}

const (
	panelWidth, panelHeight = 520, 240
	marginLeft, marginTop   = 58, 34
	marginRight, marginDown = 14, 40
	columns                 = 2
	legendHeight            = 34
)

// SVG is a picture of medians and ranges: a panel for each of the main metrics, with a logarithmic axis, since subjects
// differ by factors.
func (r *Results) SVG() string {
	var shown []Metric
	for _, id := range panels {
		if len(r.levels(id)) > 0 {
			shown = append(shown, metric(id))
		}
	}
	rows := (len(shown) + columns - 1) / columns
	width, height := columns*panelWidth, rows*panelHeight+legendHeight
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for i, s := range r.Subjects {
		x := marginLeft + i*130
		fmt.Fprintf(&b, `<rect x="%d" y="12" width="12" height="12" fill="%s"/><text x="%d" y="22">%s</text>`+"\n", x, color(i), x+17, html.EscapeString(s))
	}
	for i, m := range shown {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", i%columns*panelWidth, legendHeight+i/columns*panelHeight)
		r.panel(&b, m)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func color(i int) string { return colors[i%len(colors)] }

// axis is a logarithmic one, from low to high, both powers of ten.
type axis struct{ low, high int }

func (a axis) y(v float64) float64 {
	inner := float64(panelHeight - marginTop - marginDown)
	share := (math.Log10(v) - float64(a.low)) / float64(a.high-a.low)
	return marginTop + inner*(1-share)
}

// axisOf spans what is positive; zero has no place on it.
func axisOf(all []stats.Summary) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range all {
		if s.N > 0 && s.Min > 0 {
			low, high = min(low, math.Log10(s.Min)), max(high, math.Log10(s.Max))
		}
	}
	if low > high {
		return axis{0, 1}
	}
	a := axis{int(math.Floor(low)), int(math.Ceil(high))}
	if a.low == a.high {
		a.high++
	}
	return a
}

func (r *Results) panel(b *strings.Builder, m Metric) {
	levels := r.levels(m.ID)
	var all []stats.Summary
	for _, level := range levels {
		for _, s := range r.Subjects {
			all = append(all, stats.Summarize(r.get(Case{m.ID, level}, s)))
		}
	}
	a := axisOf(all)
	frame(b, m, a)
	step := float64(panelWidth-marginLeft-marginRight) / float64(len(levels))
	bar := step * 0.8 / float64(len(r.Subjects))
	for i, level := range levels {
		left := marginLeft + step*(float64(i)+0.1)
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", left+step*0.4, panelHeight-marginDown+14, html.EscapeString(level))
		for j := range r.Subjects {
			if s := all[i*len(r.Subjects)+j]; s.N > 0 && s.Min > 0 {
				drawBar(b, a, left+bar*float64(j), bar*0.9, s, color(j))
			}
		}
	}
}

// frame draws what a panel has beside its bars.
func frame(b *strings.Builder, m Metric, a axis) {
	title := m.Title + ", " + m.Unit
	if m.More {
		title += " (more is better)"
	}
	fmt.Fprintf(b, `<text x="%d" y="20" font-size="11" font-weight="bold">%s</text>`+"\n", 8, html.EscapeString(title))
	for e := a.low; e <= a.high; e++ {
		y := a.y(math.Pow10(e))
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			marginLeft, panelWidth-marginRight, y, y, marginLeft-5, y+4, number(math.Pow10(e)))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		(panelWidth+marginLeft-marginRight)/2, panelHeight-10, html.EscapeString(m.Level))
}

// drawBar draws the median as a bar and the rounds' range as a line.
func drawBar(b *strings.Builder, a axis, x, width float64, s stats.Summary, fill string) {
	bottom, y := a.y(math.Pow10(a.low)), a.y(s.Median)
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, x, y, width, bottom-y, fill)
	middle := x + width/2
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="black" stroke-width="0.7"/>`+"\n", middle, middle, a.y(s.Min), a.y(s.Max))
}
