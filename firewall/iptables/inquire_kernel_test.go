//go:build kernel

package iptables

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/test/statetest"
)

// TestInquiryComesAndGoes: rules for inquiries are there while DOCKER-USER of the family has rules, are left alone when they are, and are
// mended and removed like all others.
func TestInquiryComesAndGoes(t *testing.T) {
	for _, variant := range []string{"-nft", "-legacy"} {
		t.Run(variant, func(t *testing.T) {
			l := newLab(t, variant)
			_, parts := readArchive(t, filepath.Join("testdata", "inquiry.txtar"))
			s := readState(t, parts)
			plane := firewall.NewPlane(l.backend, firewall.Settings{Latch: l.Latch, Divert: statetest.Diverts})
			apply := func() {
				t.Helper()
				l.In(func() { must(t, plane.Apply(t.Context(), s)) })
			}
			run := func(command string) {
				t.Helper()
				for _, v6 := range []bool{false, true} {
					argv := strings.Fields(command)
					if argv[0] == "4" && v6 || argv[0] == "6" && !v6 {
						continue
					}
					_, err := l.Run(t.Context(), "", append([]string{program(v6) + variant}, argv[1:]...)...)
					must(t, err)
				}
			}
			want := func(what string, v4, v6 bool) {
				t.Helper()
				for _, family := range []bool{false, true} {
					save, err := l.Run(t.Context(), "", program(family)+variant+"-save")
					must(t, err)
					if there := strings.Contains(save, chainInquiry); there != (firewall.Both{V4: v4, V6: v6}).Of(family) {
						t.Errorf("%s: IPv6 %v: the rules are there: %v", what, family, there)
					}
				}
				l.In(func() {
					if found, err := plane.Inspect(t.Context(), s); err != nil || len(found) > 0 {
						t.Errorf("%s: not as wanted: %v %v", what, found, err)
					}
				})
			}
			apply()
			want("no rules", false, false)
			run("4 -A DOCKER-USER -s 192.0.2.1 -j DROP")
			apply()
			want("rules of IPv4", true, false)
			inner := l.backend.run
			l.backend.run = func(ctx context.Context, stdin string, argv ...string) (string, error) {
				if strings.HasSuffix(argv[0], "-restore") && !slices.Contains(argv, "--test") {
					t.Errorf("a pass with nothing to do wrote:\n%s", stdin)
				}
				return inner(ctx, stdin, argv...)
			}
			apply()
			l.backend.run = inner
			run("6 -A DOCKER-USER -s 2001:db8::1 -j DROP")
			run("4 -t mangle -D POSTROUTING 1")
			run("4 -t filter -F " + chainInquiry)
			apply()
			want("rules of both, mended", true, true)
			run("46 -F DOCKER-USER")
			apply()
			want("no rules any more", false, false)
		})
	}
}
