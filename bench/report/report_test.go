package report

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

// sample is a run in which everything was measured once or twice.
func sample() *Results {
	r := &Results{Subjects: []string{Bridge, Floor, IPTables, NFTables}, Facts: []Fact{{"Machine", "a <fast> one & two"}}}
	r.Note("said once")
	r.Note("said once")
	for subject, v := range map[string][]float64{Bridge: {800, 1000, 900}, Floor: {1, 2, 3}, IPTables: {30, 20, 10}, NFTables: {9, 11, 10}} {
		for round, v := range v {
			r.Add(Case{Connect, "100"}, subject, round, v)
			r.Add(Case{PortsRate, Again}, subject, round, 100)
		}
	}
	for _, s := range []string{IPTables, NFTables} {
		r.Add(Case{PortsRate, "10000"}, s, 0, 90)
		r.Add(Case{PortExecs, "connect"}, s, 0, 0)
	}
	return r
}

func TestVerdicts(t *testing.T) {
	r := sample()
	for _, tt := range []struct {
		name, backend, what string
		target              Target
		got                 float64
		reached, ok         bool
	}{
		{"bridge over ours", NFTables, "x, bridge / ours", faster("x", Connect, "100", 80, 40), 90, true, true},
		{"other limit", IPTables, "x, bridge / ours", faster("x", Connect, "100", 80, 40), 45, true, true},
		{"missed", IPTables, "x, bridge / ours", faster("x", Connect, "100", 80, 46), 45, false, true},
		{"ours over bridge", IPTables, "x, ours / bridge", atMost("x", Connect, "100", 0, 0.05), 20.0 / 900, true, true},
		{"highest level", IPTables, "last of 10000", own("last of {}", Case{PortsRate, top}, Case{PortsRate, Again}, true, 0.95, 0.85), 0.9, true, true},
		{"highest level, missed", NFTables, "last of 10000", own("last of {}", Case{PortsRate, top}, Case{PortsRate, Again}, true, 0.95, 0.85), 0.9, false, true},
		{"zero is a median", NFTables, "x", absolute("x", PortExecs, "connect", "", limits(0, 0)), 0, true, true},
		{"not asked", IPTables, "", absolute("x", PortExecs, "connect", "", map[string]float64{NFTables: 0}), 0, false, false},
		{"not measured", NFTables, "", faster("x", Disconnect, "100", 1, 1), 0, false, false},
		{"nothing to compare with", NFTables, "", bare("x", PortsRate, true, 0.9), 0, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, ok := r.verdict(tt.target, tt.backend)
			if ok != tt.ok || ok && (v.Got != tt.got || v.Reached != tt.reached || v.What != tt.what) {
				t.Errorf("%+v, %v", v, ok)
			}
		})
	}
}

func TestTargetsAreOfKnownMetrics(t *testing.T) {
	for _, target := range Targets {
		for _, c := range []Case{target.Of, target.Per} {
			if c != (Case{}) && metric(c.Metric).Unit == "" && !strings.Contains(c.Metric, "execs") {
				t.Errorf("%s: metric %q is unknown", target.What, c.Metric)
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	text := sample().Markdown("Results", "results.svg")
	for _, want := range []string{
		"# Results\n", "* Machine: a <fast> one & two\n", "](results.svg)",
		"| connect with 100 ports, bridge / ours | ≥ 40: 45.0 [26.7–90.0], reached | ≥ 80: 90.0 [88.9–90.9], reached |\n",
		"| connections to the last of 10000 ports / to 1 | ≥ 0.85: 0.90, reached | ≥ 0.95: 0.90, **missed** |\n",
		"### Connect a running container, ms\n",
		"| 100 | 900 [800–1000] | 2.00 [1.00–3.00] ×0.0022 | 20.0 [10.0–30.0] ×0.022 | 10.0 [9.00–11.0] ×0.011 |\n",
		"| 10000 | – | – | 90.0 | 90.0 |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "said once"); n != 1 {
		t.Errorf("a note is told %d times", n)
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	for name, r := range map[string]*Results{"sample": sample(), "empty": {Subjects: []string{"a<b"}}} {
		d := xml.NewDecoder(strings.NewReader(r.SVG()))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, r.SVG())
			}
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.00222: "0.0022", 0.125: "0.12", 1: "1.00", 12.34: "12.3", 123.4: "123", 1234: "1234", 12345: "12.3k",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}
