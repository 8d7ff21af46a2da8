package firewalld

import (
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/state"
)

// TestDifferences: what is not as it should be is told by a look, which writes nothing, and by the Apply that mends it.
func TestDifferences(t *testing.T) {
	rows := []struct {
		name  string
		given []with
		state state.Snapshot
		want  string
	}{
		{"all is well", []with{withDocker("br-four")}, want(only4), ""},
		{"bridge in no zone", []with{withDocker()}, want(only4), "firewalld: bridge br-four is not in zone docker"},
		{"bridge of a network that is gone", []with{withDocker("br-old")}, retired(want(), "br-old"), "firewalld: bridge br-old, whose network was removed, is in zone docker"},
		{"no zone", nil, want(), "firewalld: there is no zone docker; firewalld: there is no policy docker-forwarding"},
	}
	texts := func(found []state.Difference) string {
		var out []string
		for _, d := range found {
			out = append(out, d.Text)
		}
		return strings.Join(out, "; ")
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b := startBus(t)
			f, p := b.firewalld(row.given...), b.plane()
			found, err := p.Inspect(t.Context(), row.state)
			if err != nil || texts(found) != row.want {
				t.Errorf("a look: %q, %v", texts(found), err)
			}
			if writes := f.taken(); len(writes) > 0 {
				t.Errorf("a look wrote %v", writes)
			}
			if err := p.Apply(t.Context(), row.state); err != nil {
				t.Fatal(err)
			}
			for _, d := range p.Found() {
				if !slices.Contains(found, d) {
					t.Errorf("mended %q, which a look did not tell", d.Text)
				}
			}
			if found, err := p.Inspect(t.Context(), row.state); err != nil || len(found) > 0 {
				t.Errorf("afterwards: %q, %v", texts(found), err)
			}
		})
	}
	t.Run("bridge in the admin's zone", func(t *testing.T) {
		b := startBus(t)
		b.firewalld(withDocker(), zone("dmz", "br-four"))
		if _, err := b.plane().Inspect(t.Context(), want(only4)); err == nil || !strings.Contains(err.Error(), "--zone=dmz --remove-interface=br-four") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no firewalld", func(t *testing.T) {
		if found, err := startBus(t).plane().Inspect(t.Context(), want(only4)); err != nil || len(found) > 0 {
			t.Errorf("%v, %v", found, err)
		}
	})
	t.Run("repairs", func(t *testing.T) {
		b := startBus(t)
		f, p := b.firewalld(), b.plane()
		if err := p.Apply(t.Context(), want(only4)); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		delete(f.zones, "docker")
		f.mu.Unlock()
		if err := p.Apply(t.Context(), want(only4)); err != nil || texts(p.Found()) != "firewalld: there is no zone docker; firewalld: bridge br-four is not in zone docker" {
			t.Errorf("%q, %v", texts(p.Found()), err)
		}
	})
	t.Run("repairs after a reload", func(t *testing.T) {
		b := startBus(t)
		f, p := b.firewalld(withDocker()), b.plane()
		w := watch(t, p)
		w.expect("connected to the system bus")
		for _, reloaded := range []bool{true, false} {
			f.mu.Lock()
			f.zones["docker"] = []string{}
			f.mu.Unlock()
			if reloaded {
				if err := f.emit("Reloaded"); err != nil {
					t.Fatal(err)
				}
				w.expect("firewalld was reloaded")
			}
			err := p.Apply(t.Context(), want(only4))
			if found := p.Found(); err != nil || len(found) != 1 || found[0].Paced != reloaded {
				t.Errorf("reloaded %t: %+v, %v", reloaded, found, err)
			}
		}
	})
}
