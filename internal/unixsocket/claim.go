package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// ErrClaimed says that another process has the name.
var ErrClaimed = errors.New("another process has it")

// Claim takes a name of which there is one in each network namespace (the abstract names of unix(7)), until it is closed or
// the process ends. If another process has it the error is ErrClaimed.
func Claim(name string) (io.Closer, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "unix", "@"+name)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("claiming %s: %w", name, ErrClaimed)
	}
	return l, err
}
