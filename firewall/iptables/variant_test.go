package iptables

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/firewall"
)

func TestChoose(t *testing.T) {
	const with, without = "*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n", "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
	all := []string{"iptables-save", "iptables-nft-save", "iptables-legacy-save"}
	tests := []struct {
		name        string
		installed   []string
		nft, legacy string // what they print; "" where the kernel lacks the variant
		want        string
		wantErr     error
	}{
		{name: "in nft", installed: all, nft: with, legacy: without, want: "iptables-nft"},
		{name: "in legacy", installed: all, nft: without, legacy: with, want: "iptables-legacy"},
		{name: "in both", installed: all, nft: with, legacy: with, want: "iptables"},
		{name: "in none", installed: all, nft: without, legacy: without, want: "iptables"},
		{name: "the kernel lacks nft", installed: all, legacy: with, want: "iptables-legacy"},
		{name: "the kernel lacks legacy", installed: all, nft: with, want: "iptables-nft"},
		{name: "the kernel lacks both", installed: all, want: "iptables"},
		{name: "one variant's programs", installed: all[:2], nft: with, legacy: with, want: "iptables-nft"},
		{name: "no variant's programs", installed: all[:1], nft: with, legacy: with, want: "iptables"},
		{name: "nothing is installed", want: "iptables", wantErr: ErrNotInstalled},
		{name: "no default", installed: all[1:], nft: with, want: "iptables", wantErr: ErrNotInstalled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBackend(func(_ context.Context, _ string, argv ...string) (string, error) {
				printed := map[string]string{
					"iptables-save": without, "ip6tables-save": without,
					"iptables-nft-save": test.nft, "ip6tables-nft-save": test.nft,
					"iptables-legacy-save": test.legacy, "ip6tables-legacy-save": test.legacy,
				}[argv[0]]
				if printed == "" {
					return "", errors.New("exit status 1")
				}
				return printed, nil
			}, newFakeHost(), unlisted)
			b.lookPath = programs(test.installed...)
			if err := b.Sync(t.Context(), always(nothing)); !errors.Is(err, test.wantErr) {
				t.Errorf("error %v, want %v", err, test.wantErr)
			}
			if got := b.Variant(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestChooseOnce: what was found once is kept, though the host changes.
func TestChooseOnce(t *testing.T) {
	h := newFakeHost()
	b := newBackend(h.run, h, unlisted)
	b.lookPath = programs("iptables-save", "iptables-nft-save")
	for i, want := range [][]string{{save4, "ip6tables-save", "iptables-save"}, {"ip6tables-save", "iptables-save"}} {
		h.journal = nil
		if err := b.Sync(t.Context(), always(nothing)); err != nil {
			t.Fatal(err)
		}
		slices.Sort(h.journal[len(h.journal)-2:]) // both families are read at the same time
		if diff := cmp.Diff(want, h.journal); diff != "" {
			t.Errorf("sync %d: steps (-want +got):\n%s", i, diff)
		}
		h.v4.tables = parse("*filter\n:DOCKER-USER - [0:0]\n")
	}
}

// TestStuckProgram: a program that hangs holds neither the start nor who asks for the variant. Its end
// is not taken for an answer: the next Sync looks again.
func TestStuckProgram(t *testing.T) {
	started, stuck := make(chan struct{}), true
	b := newBackend(func(ctx context.Context, _ string, argv ...string) (string, error) {
		if argv[0] == "iptables-nft-save" && stuck {
			close(started)
			<-ctx.Done()
			return "", errors.New("killed")
		}
		return "*filter\n:DOCKER-USER - [0:0]\n", nil
	}, newFakeHost(), unlisted)
	b.lookPath = programs("iptables-save", "iptables-nft-save")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- b.Sync(ctx, wants(func(firewall.Host) firewall.Policy { t.Error("rendered"); return nothing }))
	}()
	<-started
	if got := b.Variant(); got != "iptables" {
		t.Errorf("got %s while unknown", got)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	stuck = false
	if err := b.Sync(t.Context(), always(nothing)); err != nil {
		t.Fatal(err)
	}
	if got := b.Variant(); got != "iptables-nft" {
		t.Errorf("got %s at last", got)
	}
}
