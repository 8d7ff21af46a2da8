package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"
)

// grace is what a handler gets beyond its deadline to return the error it noticed,
// which says more than ours.
const grace = 250 * time.Millisecond

// outcome is what a handler ended with.
type outcome struct {
	body []byte
	err  error
}

// errVanished is the outcome of a handler whose goroutine ended without returning.
var errVanished = errors.New("drawbridge gave no answer to this call")

// run executes the call on a goroutine of its own, so that the caller is answered at
// the deadline even if the handler ignores it, and a panic costs this call only.
func (s *Server) run(ctx context.Context, rt Route, body []byte) ([]byte, error) {
	done := make(chan outcome, 1)
	s.running.Go(func() {
		defer s.calls.enter(rt.name())()
		out := outcome{err: errVanished}
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic in a call", "call", rt.name(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				out = outcome{err: fmt.Errorf("drawbridge failed in %s (%v): this is a bug, and its log has the details", rt.name(), p)}
			}
			done <- out
		}()
		out = s.perform(ctx, rt, body)
	})
	return s.await(ctx, rt, done)
}

// perform waits for the state if the call needs it, and calls the handler.
func (s *Server) perform(ctx context.Context, rt Route, body []byte) outcome {
	if !rt.early {
		if err := s.options.Ready(ctx); err != nil {
			return outcome{err: s.notReady(err)}
		}
	}
	reply, err := rt.handle(ctx, body)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = fmt.Errorf("%s did not finish within %s: %w", rt.name(), s.options.Deadline, err)
	}
	return outcome{reply, err}
}

func (s *Server) notReady(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return refuse(http.StatusServiceUnavailable, "drawbridge is still starting and has not loaded its state within %s: try again", s.options.Deadline)
	}
	return refuse(http.StatusServiceUnavailable, "drawbridge cannot serve: %v", err)
}

// await returns the handler's outcome, or an error shortly after the deadline.
func (s *Server) await(ctx context.Context, rt Route, done <-chan outcome) ([]byte, error) {
	select {
	case out := <-done:
		return out.body, out.err
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case out := <-done:
		return out.body, out.err
	case <-late.C:
		return nil, refuse(http.StatusGatewayTimeout, "drawbridge did not finish %s within %s: the host may be overloaded, try again", rt.name(), s.options.Deadline)
	}
}
