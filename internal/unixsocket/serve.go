package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// ErrNotDrained says that calls were still under way when the time to finish them
// was over; their connections were cut.
var ErrNotDrained = errors.New("calls were still under way")

// Serve answers on l until ctx is done. It then closes l at once, so that a
// successor may take the path, and gives calls under way the time drain to finish.
// It returns nil when all did, [ErrNotDrained] when not; any other error means
// that the listener failed while it was wanted. l is closed in every case.
func Serve(ctx context.Context, srv *http.Server, l net.Listener, drain time.Duration) error {
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		_ = srv.Close()
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := srv.Shutdown(bounded)
	if failed := <-ended; failed != nil && !errors.Is(failed, http.ErrServerClosed) {
		err = errors.Join(err, failed)
	}
	if bounded.Err() != nil {
		_ = srv.Close()
		return fmt.Errorf("%w after %s", ErrNotDrained, drain)
	}
	return err
}
