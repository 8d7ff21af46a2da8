package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/state"
)

// What a failing firewall step means for the pass and for those who wait.
func TestFailures(t *testing.T) {
	var (
		plain  = errors.New("iptables is missing")
		a      = object(netA, "", "network a")
		a1     = object(netA, epA1, "endpoint a1")
		a2     = object(netA, epA2, "endpoint a2")
		b      = object(netB, "", "network b")
		scopeA = state.Scope{Network: netA}
		scope1 = state.Scope{Network: netA, Endpoint: epA1}
		scopeB = state.Scope{Network: netB}
	)
	tests := []struct {
		name    string
		err     error
		publish int // passes that reached the step after it

		all, a, a1, b string // what waiters with these scopes get
	}{
		{"none", nil, 1, "", "", "", ""},
		{"plain", plain, 0, "firewall: iptables is missing", "firewall: iptables is missing", "firewall: iptables is missing", "firewall: iptables is missing"},
		{"network", a, 1, "network a", "network a", "network a", ""},
		{"endpoint", a1, 1, "endpoint a1", "", "endpoint a1", ""},
		{"wrapped endpoint", fmt.Errorf("rules: %w", a1), 1, "rules: endpoint a1", "", "rules: endpoint a1", ""},
		{"several objects", errors.Join(a1, b, a2), 1, "endpoint a1\nnetwork b\nendpoint a2", "", "endpoint a1", "network b"},
		{"joined, then wrapped", fmt.Errorf("rules: %w", errors.Join(a1, b)), 1, "endpoint a1\nnetwork b", "", "endpoint a1", "network b"},
		{"joins in joins", errors.Join(errors.Join(a1), errors.Join(b, errors.Join(a2))), 1, "endpoint a1\nnetwork b\nendpoint a2", "", "endpoint a1", "network b"},
		{"two in one sentence", fmt.Errorf("%w and %w", a1, b), 1, "endpoint a1\nnetwork b", "", "endpoint a1", "network b"},
		{"object whose cause is plain", &state.ObjectError{Network: netB, Err: plain}, 1, "iptables is missing", "", "", "iptables is missing"},
		{"object and plain", errors.Join(b, plain), 0, "network b\nfirewall: iptables is missing", "firewall: iptables is missing", "firewall: iptables is missing", "network b\nfirewall: iptables is missing"},
		{"object and plain, wrapped", fmt.Errorf("rules: %w", errors.Join(b, plain)), 0, "network b\nfirewall: iptables is missing", "firewall: iptables is missing", "firewall: iptables is missing", "network b\nfirewall: iptables is missing"},
		{"a join of nothing", strange{}, 0, "firewall: strange", "firewall: strange", "firewall: strange", "firewall: strange"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(r *rig) {
				r.rules.fails(tt.err)
				all := r.waiting(context.Background(), 0, everything)
				ca := r.waiting(context.Background(), 0, scopeA)
				c1 := r.waiting(context.Background(), 0, scope1)
				cb := r.waiting(context.Background(), 0, scopeB)
				r.run()
				r.counts(1, 1, tt.publish)
				r.answered(all, tt.all)
				r.answered(ca, tt.a)
				r.answered(c1, tt.a1)
				r.answered(cb, tt.b)
			})
		})
	}
}

// strange says that it consists of other errors, and has none.
type strange struct{}

func (strange) Error() string   { return "strange" }
func (strange) Unwrap() []error { return []error{nil} }

func TestErrorsStayRecognisable(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		cause := errors.New("cause")
		r.rules.fails(fmt.Errorf("rules: %w", cause))
		c := r.waiting(context.Background(), 0, everything)
		r.run()
		if err := <-c; !errors.Is(err, cause) {
			t.Errorf("error %v", err)
		}
	})
}

func TestFailuresOfSeveralSteps(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.link.fails(object(netA, epA1, "no link"))
		r.rules.fails(object(netA, "", "no rules"))
		r.publish.fails(errors.New("no sockets"))
		c := r.waiting(context.Background(), 0, state.Scope{Network: netA, Endpoint: epA1})
		other := r.waiting(context.Background(), 0, state.Scope{Network: netB})
		r.run()
		r.answered(c, "no link\nno rules\npublish: no sockets")
		r.answered(other, "publish: no sockets")
	})
}

func TestPanicBecomesAnError(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		r.rules.does(func(context.Context, state.Snapshot) error { panic("index out of range") })
		c := r.waiting(context.Background(), 0, state.Scope{Network: netA})
		r.run()
		r.answered(c, "firewall: a fault in drawbridge: index out of range")
		r.counts(1, 1, 0)
		if l := r.log.lines("ERROR"); len(l) != 1 || !strings.Contains(l[0], "pass_test.go") {
			t.Errorf("log %q, want one line with the stack", l)
		}
		r.rules.fails(nil)
		r.after(second)
		r.counts(2, 2, 1)
	})
}

func TestLog(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		check := func(when string, failures, recoveries int) {
			t.Helper()
			if e, i := r.log.lines("ERROR"), r.log.lines("INFO"); len(e) != failures || len(i) != recoveries {
				t.Errorf("%s: %d failures and %d recoveries are in the log, want %d and %d", when, len(e), len(i), failures, recoveries)
			}
		}
		r.run()
		check("healthy", 0, 0)
		r.rules.fails(errors.Join(object(netA, "", "one"), object(netB, "", "two")))
		r.after(40 * second)
		check("the same failure many times", 1, 0)
		r.rules.fails(errors.Join(object(netB, "", "two"), object(netA, "", "one")))
		r.Trigger("x")
		r.after(0)
		check("the same failures in another order", 1, 0)
		r.rules.fails(errors.New("three"))
		r.after(5 * time.Minute)
		check("another failure", 2, 0)
		r.rules.fails(nil)
		r.after(5 * time.Minute)
		check("healthy again", 2, 1)
		r.rules.fails(errors.New("three"))
		r.after(time.Minute)
		check("and again not", 3, 1)
		if n, passes := len(r.log.lines("DEBUG")), int(r.Status().Passes); n != passes {
			t.Errorf("%d debug lines for %d passes", n, passes)
		}
		if l := r.log.lines("ERROR")[0]; !strings.Contains(l, `error="one; two"`) || !strings.Contains(l, "rev=0") {
			t.Errorf("log line %s", l)
		}
	})
}

func TestSummary(t *testing.T) {
	var many []error
	for i := range 9 {
		many = append(many, fmt.Errorf("failure %d", 9-i))
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"nil", nil, ""},
		{"one", errors.New("x"), "x"},
		{"repeated", errors.Join(errors.New("x"), errors.New("y"), errors.New("x")), "x; y"},
		{"lines inside", object(netA, "", "x\ny"), "x; y"},
		{"many", errors.Join(many...), "failure 1; failure 2; failure 3; failure 4; failure 5; and 4 more"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := summary(tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	inBubble(t, Options{}, func(r *rig) {
		check := func(when string, want Status) {
			t.Helper()
			got := r.Status()
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", when, d)
			}
		}
		skipped := []StepStatus{{Name: "link", Skipped: true}, {Name: "firewall", Skipped: true}, {Name: "publish", Skipped: true}}
		check("before Run", Status{Steps: skipped})

		r.src.revision.Store(4)
		r.rules.takes(2 * second)
		r.run()
		r.waiting(context.Background(), 4, everything)
		r.waiting(context.Background(), 5, everything)
		check("in a step", Status{Running: true, Step: "firewall", Busy: r.began, Waiting: 2, Steps: skipped})

		r.src.revision.Store(5)
		r.after(4 * second)
		end := r.began.Add(4 * second)
		fine := []StepStatus{{Name: "link"}, {Name: "firewall"}, {Name: "publish"}}
		check("after two passes", Status{
			Running: true, Passes: 2, Applied: 5, AppliedAt: end,
			Revision: 5, Ended: end, Duration: 2 * second, Steps: fine,
		})

		r.link.fails(object(netA, "", "no link"))
		r.rules.fails(errors.New("no rules"))
		r.src.revision.Store(6)
		r.Trigger("x")
		r.after(0)
		bad := Status{
			Running: true, Passes: 3, Applied: 5, AppliedAt: end, Revision: 6, Ended: end,
			Steps: []StepStatus{{Name: "link", Error: "no link"}, {Name: "firewall", Error: "firewall: no rules"}, {Name: "publish", Skipped: true}},
		}
		check("after a failure", bad)
		if !r.Status().Failed() {
			t.Error("Failed() = false")
		}
		r.Status().Steps[0].Error = "spoilt"
		check("after a reader changed its copy", bad)

		r.end()
		bad.Running = false
		check("after Run", bad)
	})
}
