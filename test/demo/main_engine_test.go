//go:build engine

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/test/environ"
)

// TestDemo: the demo runs to its end, which checks itself who is served and who is not, and shows what it is there to show.
func TestDemo(t *testing.T) {
	plugin := environ.Program(t, "test-engine")
	var out strings.Builder
	if err := run(t.Context(), plugin, &out); err != nil {
		t.Fatalf("%v, after\n%s", err, out.String())
	}
	for _, want := range []string{
		`host# ufw allow 8080/tcp`,
		`0\.0\.0\.0:8080/tcp .* learned .* --publish is auto: ufw is active`,
		`\[::\]:8080/tcp .* learned .* --publish is auto: ufw is active`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("nothing like %s in\n%s", want, out.String())
		}
	}
}
