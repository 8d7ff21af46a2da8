package outage

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSum(t *testing.T) {
	began := time.UnixMilli(1_000_000)
	at := func(ms int64) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	var requests []Request
	for ms := int64(0); ms <= 1000; ms += 10 {
		six := Request{Began: at(ms), Addr: "[::1]:80", Outcome: "ok"}
		four := Request{Began: at(ms), Addr: "127.0.0.1:80", Outcome: "ok"}
		if ms >= 300 && ms < 420 {
			four.Outcome = "timeout"
		}
		requests = append(requests, six, four)
	}
	s := sum(requests, at(0), at(1000))
	if s.Requests != 202 || s.Lost() != 12 || s.Failed["timeout"] != 12 || s.Longest != 130*time.Millisecond {
		t.Errorf("%v", s)
	}
	if s := sum(nil, at(0), at(1000)); s.Requests != 0 || s.Longest != 0 {
		t.Errorf("without requests: %v", s)
	}
	if s := sum([]Request{{Began: at(500), Addr: "127.0.0.1:80", Outcome: "refused"}}, at(0), at(1000)); s.Longest != time.Second {
		t.Errorf("never let in: %v", s)
	}
}

func TestLongest(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	moments := []time.Time{at(0), at(10), at(200), at(210), at(900)}
	for _, tt := range []struct {
		name     string
		from, to int64
		want     int64 // ms
	}{
		{"inner", 0, 210, 190},
		{"what was before does not count", 205, 220, 10},
		{"until the end", 0, 2000, 1100},
		{"from the beginning", 300, 900, 600},
		{"nothing at all", 1000, 5000, 4000},
	} {
		if got := Longest(moments, at(tt.from), at(tt.to)); got != time.Duration(tt.want)*time.Millisecond {
			t.Errorf("%s: %v, want %d ms", tt.name, got, tt.want)
		}
	}
}

// TestMoment: what a process reads of the clock that nobody sets lies between what this one reads of the time around it.
func TestMoment(t *testing.T) {
	for range 100 {
		var at unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &at); err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		const doubt = time.Millisecond
		if got := moment(at.Nano() / 1000); got.Before(before.Add(-doubt)) || got.After(after.Add(doubt)) {
			t.Errorf("%v is not between %v and %v", got, before, after)
		}
	}
}

func TestParse(t *testing.T) {
	r, ok := parse("1000000 250 198.51.100.1:8080 ok web\n")
	if !ok || !r.Began.Equal(moment(1_000_000)) || r.Took != 250*time.Microsecond || r.Outcome != "ok" || r.Server != "web" {
		t.Errorf("%+v %t", r, ok)
	}
	if _, ok := parse("refused\n"); ok {
		t.Error("a line that is none")
	}
	if r, ok := parse("1 2 [::1]:80 timeout\n"); !ok || r.Outcome != "timeout" {
		t.Errorf("%+v %t", r, ok)
	}
}
