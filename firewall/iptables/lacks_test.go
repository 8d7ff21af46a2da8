package iptables

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-net/drawbridge/firewall"
)

const probe = "iptables-nft-restore --noflush --wait " + lockWait + " --test"

// diverting wants a policy that leads to transparent sockets, where the host can.
func diverting() firewall.Wanted {
	w := wants(func(h firewall.Host) firewall.Policy {
		p := policy("br-one")
		p.V4.Divert, p.V6.Divert = !h.NoSocket, !h.NoSocket
		return p
	})
	w.Divert = true
	return w
}

// TestDivertWhereItCan: the match for sockets is asked for once, and only where it is wanted. Without it all else is written.
func TestDivertWhereItCan(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lacks error
	}{{"the kernel has it", nil}, {"the kernel has it not", errors.New("Couldn't load match `socket'")}} {
		t.Run(tt.name, func(t *testing.T) {
			h := newFakeHost()
			h.failures[probe] = []error{tt.lacks}
			b := h.backend()
			sync := func(w firewall.Wanted) {
				t.Helper()
				if err := b.Sync(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			sync(always(policy("br-one")))
			if slices.Contains(h.journal, probe) {
				t.Error("asked for what nobody wants")
			}
			sync(diverting())
			sync(diverting())
			if err := b.Follow(t.Context(), diverting()); err != nil {
				t.Fatal(err)
			}
			found, err := b.Inspect(t.Context(), diverting())
			if err != nil || len(found) > 0 {
				t.Errorf("not as wanted: %v, %v", found, err)
			}
			asked := 0
			for _, step := range h.journal {
				if step == probe {
					asked++
				}
			}
			_, there := h.v4.tables["mangle"][chainDivert]
			_, there6 := h.v6.tables["mangle"][chainDivert]
			if want := tt.lacks == nil; asked != 1 || there != want || there6 != want {
				t.Errorf("asked %d times, the chain is there: %v, %v", asked, there, there6)
			}
		})
	}
}

// TestDivertIsAskedAgain: who was too slow to answer, or had no memory for it, has said nothing.
func TestDivertIsAskedAgain(t *testing.T) {
	for _, tt := range []struct {
		said error
		told error // to who asked for the rules; nil where they do without meanwhile
	}{
		{context.DeadlineExceeded, context.DeadlineExceeded},
		{errors.New("Another app is currently holding the xtables lock. Stopped waiting after 5s."), cmpopts.AnyError},
		{errors.New("iptables-restore v1.8.9 (nf_tables): line 4: RULE_APPEND failed (Cannot allocate memory): rule in chain DRAWBRIDGE-DIVERT"), nil},
		{errors.New("iptables-restore: line 4 failed: Memory allocation problem."), nil},
		{unix.EAGAIN, nil}, // of fork(2)
	} {
		h := newFakeHost()
		h.failures[probe] = []error{tt.said}
		b := h.backend()
		if err := b.Sync(t.Context(), diverting()); !cmp.Equal(err, tt.told, cmpopts.EquateErrors()) {
			t.Errorf("%v: the error is %v, want %v", tt.said, err, tt.told)
		}
		if _, there := h.v4.tables["mangle"][chainDivert]; there {
			t.Errorf("%v: the chain is there", tt.said)
		}
		if err := b.Sync(t.Context(), diverting()); err != nil {
			t.Fatal(err)
		}
		if _, there := h.v4.tables["mangle"][chainDivert]; !there {
			t.Errorf("%v: the chain is missing when it has passed", tt.said)
		}
	}
}

// TestDivertText: nothing of it is there where nothing is wanted.
func TestDivertText(t *testing.T) {
	for _, f := range policy("br-one").Families() {
		without := Render(f).Text()
		f.Divert = true
		if with := Render(f).Text(); strings.Contains(without, chainDivert) || strings.Count(with, "-m socket --transparent") != 2 {
			t.Errorf("without:\n%s\nwith:\n%s", without, with)
		}
	}
}

// TestWhatIsMissingIsNamed: of what iptables prints only that counts which ends the restore.
func TestWhatIsMissingIsNamed(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"Warning: Extension set revision 0 not supported, missing kernel module?\nline 3: something else", ""},
		{"Warning: Extension set revision 0 not supported, missing kernel module?\nWarning: Extension set is not supported, missing kernel module?\n" +
			"iptables-restore v1.8.9 (nf_tables): Couldn't load match `set':No such file or directory", "lacks xt_set, which"},
		{"Warning: Extension MASQUERADE revision 0 not supported, missing kernel module?\nline 8: RULE_APPEND failed (No such file or directory): rule in chain X", "lacks xt_MASQUERADE, which"},
		{"Couldn't load target `NFLOG':No such file or directory\nWarning: Extension socket is not supported, missing kernel module?", "lacks xt_NFLOG, xt_socket, which"},
	} {
		err := nameExtensions(errors.New(tt.said))
		if tt.want == "" && err.Error() != tt.said || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q becomes %q", tt.said, err)
		}
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nl.IPSetError(nl.IPSET_ERR_FIND_TYPE), "lacks ip_set_hash_netiface, which"},
		{unix.EINVAL, "lacks ip_set, which"},
		{unix.EBUSY, "creating set drawbridge: device or resource busy"},
	} {
		if err := failedSet("creating", "drawbridge", hashNetIface, tt.err); !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%v becomes %q", tt.err, err)
		}
	}
}
