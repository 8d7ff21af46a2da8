package plugin

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/ipam"
	"github.com/drawbridge-net/drawbridge/store"
)

type emptyHost struct{}

func (emptyHost) OccupiedPrefixes(context.Context, bool) ([]netip.Prefix, error) { return nil, nil }

// oddBodies are arguments that no engine sends.
func oddBodies() []string {
	const pool = "drawbridge/10.1.0.0/24"
	huge := strings.Repeat("9", 500_000)
	var out []string
	for _, field := range []string{"Pool", "SubPool", "PoolID", "Address", "AddressSpace", "V6", "Options"} {
		for _, value := range []string{
			`null`, `5`, `-1e99`, `true`, `[]`, `{}`, `{"a":1}`, `""`, `" "`, `"\u0000"`, `"10.1.0.0/24\n"`, "\"\xff\xfe\"",
			`"` + huge + `"`, `"../../etc"`, `"10.1.0.0/24/10.1.0.0/25"`, `"0.0.0.0/0"`, `"::/0"`, `"fe80::1%eth0"`, `"999.1.1.1"`,
			`"10.1.0.999"`, `"` + pool + `"`, `{"RequestAddressType":"com.docker.network.gateway","x":"` + huge + `"}`,
		} {
			out = append(out, `{"`+field+`":`+value+`}`, `{"PoolID":"`+pool+`","Address":"10.1.0.1","Pool":"10.1.0.0/24","`+field+`":`+value+`}`)
		}
	}
	return append(out, `null`, `[]`, `"x"`, `{`, `{}{}`, `nonsense`, strings.Repeat(`{"a":`, 20_000),
		`{"Options":{`+strings.Repeat(`"k":"v",`, 50_000)+`"k":"v"}}`)
}

// TestOddIPAMCalls: each of the six calls answers whatever it gets with success or one sentence,
// the same when it gets it again, and works as before afterwards.
func TestOddIPAMCalls(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := serve(t, Routes(nil, ipam.New(s, emptyHost{}, nil)), Options{})
	if a := r.post("/IpamDriver.RequestPool", `{"Pool":"10.1.0.0/24"}`); a.status != 200 {
		t.Fatal(a)
	}
	for _, p := range []string{
		"/IpamDriver.GetCapabilities", "/IpamDriver.GetDefaultAddressSpaces",
		"/IpamDriver.RequestAddress", "/IpamDriver.ReleaseAddress", "/IpamDriver.ReleasePool", "/IpamDriver.RequestPool",
	} {
		for _, body := range oddBodies() {
			before := s.Snapshot().Revision
			a := r.post(p, body)
			text := a.body
			if len(text) > 700 || strings.Contains(strings.TrimSpace(text), "\n") || strings.Contains(text, "goroutine") {
				t.Errorf("%s %.80s: answer %d %.200s", p, body, a.status, text)
			}
			switch {
			case strings.Contains(p, "Get") && a.status != 200:
				t.Errorf("%s %.80s: %d %s", p, body, a.status, text)
			case a.status != 200 && s.Snapshot().Revision != before:
				t.Errorf("%s %.80s: the refused call left a trace", p, body)
			case a.status == 200 && strings.Contains(p, "Request"):
				continue // asks for another pool or address each time
			}
			if again := r.post(p, body); again.status != a.status || again.body != a.body {
				t.Errorf("%s %.80s: %d %.200s, then %d %.200s", p, body, a.status, text, again.status, again.body)
			}
		}
	}
	r.post("/IpamDriver.ReleasePool", `{"PoolID":"drawbridge/10.1.0.0/24"}`)
	want := `{"PoolID":"drawbridge/10.1.0.0/24","Pool":"10.1.0.0/24"}`
	if a := r.post("/IpamDriver.RequestPool", `{"Pool":"10.1.0.0/24","Options":null,"New":1}`); a.status != 200 || !strings.HasPrefix(a.body, want[:len(want)-1]) {
		t.Errorf("RequestPool: %d %s, want %s", a.status, a.body, want)
	}
	for range 2 {
		a := r.post("/IpamDriver.RequestAddress", `{"PoolID":"drawbridge/10.1.0.0/24","Options":{"RequestAddressType":"com.docker.network.gateway"}}`)
		if a.status != 200 || !strings.Contains(a.body, `"10.1.0.1/24"`) {
			t.Errorf("RequestAddress: %d %s", a.status, a.body)
		}
	}
}
