package plugin

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// variable are the parts of a log line that differ from run to run.
var variable = regexp.MustCompile(`time=\S+ |(duration=)\S+`)

func TestOneLinePerCall(t *testing.T) {
	rows := []struct{ name, path, body, want string }{
		{
			"success", "/NetworkDriver.Join", someNetwork,
			`level=INFO msg=call call=NetworkDriver.Join network=abcdef012345 endpoint=0123456789ab duration=`,
		},
		{
			"failure", "/NetworkDriver.Leave", someNetwork,
			`level=WARN msg=call call=NetworkDriver.Leave network=abcdef012345 endpoint=0123456789ab duration= error="no such luck"`,
		},
		{
			"pool", "/NetworkDriver.Join", `{"PoolID":"10.0.0.0/8"}`,
			`level=INFO msg=call call=NetworkDriver.Join pool=10.0.0.0/8 duration=`,
		},
		{
			"no arguments", "/IpamDriver.GetCapabilities", "",
			`level=INFO msg=call call=IpamDriver.GetCapabilities duration=`,
		},
		{
			"unknown", "/Volume.List", "",
			`level=WARN msg=call call=Volume.List duration= error="drawbridge does not know the call /Volume.List"`,
		},
		{
			"an id with line ends", "/NetworkDriver.Join", `{"NetworkID":"a\nlevel=X"}`,
			`level=INFO msg=call call=NetworkDriver.Join network="a\nlevel=X" duration=`,
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r := serve(t, []Route{
				echo("/NetworkDriver.Join", &counter{}),
				callNoReply("/NetworkDriver.Leave", func(context.Context, *request) error { return errors.New("no such luck") }),
				ask("/IpamDriver.GetCapabilities", func(context.Context) (*response, error) { return nil, nil }),
			}, Options{})
			r.post(row.path, row.body)
			r.finish()
			got := variable.ReplaceAllString(strings.TrimSpace(r.log.String()), "$1")
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClip(t *testing.T) {
	if got := clip(strings.Repeat("x", 1000)); len(got) > 90 {
		t.Errorf("%d characters remain", len(got))
	}
	if got := short("abc"); got != "abc" {
		t.Errorf("short of a short id is %q", got)
	}
}
