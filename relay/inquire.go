package relay

import (
	"context"
	"time"

	"github.com/drawbridge-net/drawbridge/state"
)

// hearTime is how long after the start of a relay clients wait for a daemon to say whether there is anything to ask about them.
const hearTime = 5 * time.Second

// hear notes of which families DOCKER-USER is asked; nil leaves that as it is.
func (s *Server) hear(in *Inquire) {
	if in != nil {
		s.inquire.Store(in)
		s.told()
	}
}

// inquirer asks for a server's sockets. A relay that took over from one that knew nothing of questions has clients before its daemon says
// whether there is anything to ask. It may lack what asking takes, as it runs under the unit of that time: it would turn them away, though there
// is mostly nothing to ask. So they wait for the word.
type inquirer struct{ *Server }

// Admits implements publish.Inquirer.
func (s inquirer) Admits(ctx context.Context, v state.Visit) (bool, error) {
	select {
	case <-s.heard.Done():
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if !s.inquire.Load().of(v.At.Addr().Is6()) {
		return true, nil
	}
	return s.desk.Admits(ctx, v)
}
