package main

import (
	"cmp"
	"context"
	"log/slog"

	"github.com/drawbridge-net/drawbridge/control"
	"github.com/drawbridge-net/drawbridge/relay"
	"github.com/drawbridge-net/drawbridge/state"
)

// inquire says in which families DOCKER-USER has to be asked about clients of the host's sockets.
func (p *planes) inquire() (relay.Inquire, bool) {
	in, known := p.rules.Inquire()
	return relay.Inquire(in), known
}

// unasked is why DOCKER-USER, where it has to be, cannot be asked, "" where it can.
func (p *planes) unasked() string {
	if p.rules == nil {
		return ""
	}
	missing := p.rules.Unshown()
	if missing != "" {
		missing = "the host lacks " + missing
	}
	return cmp.Or(missing, p.ports.Unasked())
}

// describeUnasked says at which ports nobody is served for that.
func (p *planes) describeUnasked(out *control.Publishing) {
	reason := p.unasked()
	if reason == "" {
		return
	}
	in, _ := p.inquire()
	if in.V4 {
		out.Unasked4 = reason
	}
	if in.V6 {
		out.Unasked6 = reason
	}
}

// unasked is how that is told.
const unasked = "DOCKER-USER has rules and cannot be asked about clients from outside: at ports in the modes host and learned nobody is served (drawbridge.publish=dnat works without)"

// askWarner is a plane that changes nothing: it warns when the kernel cannot show what passes DOCKER-USER. What the relay lacks it says itself.
type askWarner struct {
	planes *planes
	log    *slog.Logger
	told   string
}

// Apply implements reconcile.Plane.
func (w *askWarner) Apply(ctx context.Context, s state.Snapshot) error {
	missing := w.planes.rules.Unshown()
	if missing != "" && missing != w.told {
		w.log.WarnContext(ctx, unasked, "missing", missing)
	}
	w.told = missing
	return nil
}
