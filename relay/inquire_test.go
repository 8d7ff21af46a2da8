package relay

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// fakeDesk is one that may lack something.
type fakeDesk struct {
	lacks   atomic.Pointer[string]
	readied atomic.Int64
}

func (d *fakeDesk) Admits(context.Context, state.Visit) (bool, error) { return false, nil }
func (d *fakeDesk) Retire()                                           {}
func (d *fakeDesk) Close() error                                      { return nil }

func (d *fakeDesk) Missing() string {
	if text := d.lacks.Load(); text != nil {
		return *text
	}
	return ""
}

func (d *fakeDesk) Ready() error {
	d.readied.Add(1)
	if text := d.Missing(); text != "" {
		return errors.New(text)
	}
	return nil
}

// TestInquire: the relay knows of which families DOCKER-USER is to be asked as soon as that changes, though the state does not, and says what
// keeps it from asking.
func TestInquire(t *testing.T) {
	path, desk := socketPath(t), &fakeDesk{}
	r := serve(t, path, ServerOptions{Desk: desk})
	if in := r.inquire.Load(); !in.of(false) || !in.of(true) {
		t.Error("a relay that was told nothing does not ask")
	}
	var now atomic.Pointer[Inquire]
	now.Store(&Inquire{})
	c := client(t, path, Options{Inquire: func() (Inquire, bool) {
		if in := now.Load(); in != nil {
			return *in, true
		}
		return Inquire{}, false
	}})
	s := snapshot(endpoint("a", tcp(free(t))))
	must(t, c.Apply(t.Context(), s))
	want := func(what string, v4, v6 bool, unasked string) {
		t.Helper()
		if in := r.inquire.Load(); in.of(false) != v4 || in.of(true) != v6 || c.Unasked() != unasked {
			t.Errorf("%s: %+v, unasked %q", what, in, c.Unasked())
		}
	}
	nothing := state.Compare(s, s)
	want("no rules", false, false, "")
	if desk.readied.Load() > 0 {
		t.Error("where nobody has rules the desk is opened")
	}
	now.Store(&Inquire{V4: true})
	must(t, c.Follow(t.Context(), nothing))
	want("rules of IPv4", true, false, "")
	told := desk.readied.Load()
	must(t, c.Follow(t.Context(), nothing))
	if desk.readied.Load() != told {
		t.Error("the relay is told again what it knows")
	}
	lack := "CAP_BPF"
	desk.lacks.Store(&lack)
	now.Store(&Inquire{V6: true})
	must(t, c.Follow(t.Context(), nothing))
	want("rules of IPv6, and no desk", false, true, lack)
	now.Store(nil)
	must(t, c.Apply(t.Context(), s))
	want("not known", false, true, lack)
	desk.lacks.Store(nil)
	now.Store(&Inquire{})
	must(t, c.Follow(t.Context(), nothing))
	want("rules gone", false, false, "")
}

// TestHeard: who comes to a relay before it was told whether there is anything to ask about him waits for that, and not for ever.
func TestHeard(t *testing.T) {
	for _, tt := range []struct {
		name string
		told *Inquire
		v6   bool
		want bool // the desk refuses everybody
		took time.Duration
	}{
		{"nothing to ask", &Inquire{}, false, true, time.Second},
		{"nothing to ask in his family", &Inquire{V4: true}, true, true, time.Second},
		{"rules", &Inquire{V4: true}, false, false, time.Second},
		{"nobody says anything", nil, false, false, hearTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewServer(ServerOptions{Desk: &fakeDesk{}})
				began := time.Now()
				time.AfterFunc(time.Second, func() { s.prepare(tt.told) })
				at := netip.MustParseAddrPort("192.0.2.1:80")
				if tt.v6 {
					at = netip.MustParseAddrPort("[2001:db8::1]:80")
				}
				yes, err := inquirer{s}.Admits(t.Context(), state.Visit{Proto: state.TCP, At: at})
				if took := time.Since(began); err != nil || yes != tt.want || took != tt.took {
					t.Errorf("admitted: %v, %v after %v", yes, err, took)
				}
				time.Sleep(hearTime) // no timer outlives the test
			})
		})
	}
}

// TestInquireIsInherited: a relay that takes over asks as the one before did.
func TestInquireIsInherited(t *testing.T) {
	text, err := json.Marshal(inheritance{Inquire: &Inquire{V6: true}})
	must(t, err)
	var in inheritance
	must(t, decode(text, &in))
	if in.Inquire.of(false) || !in.Inquire.of(true) {
		t.Errorf("%s becomes %+v", text, in.Inquire)
	}
	var old inheritance
	must(t, decode([]byte(strings.Replace(string(text), "inquire", "other", 1)), &old))
	if !old.Inquire.of(false) || !old.Inquire.of(true) {
		t.Error("of a relay that knew nothing of it, nothing is asked")
	}
}
