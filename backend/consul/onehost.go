package consul

import (
	"context"
	"net/http/httptrace"
	"sync"
)

// oneHost keeps one request on the host that it was made for, also with a client that
// the caller made. It learns from an httptrace which host each connection is for, and
// closes a connection to another host before the request is written. Transports
// without httptrace are not covered, nor is a redirect that changes only the scheme.
type oneHost struct {
	// mu guards the fields below.
	mu   sync.Mutex
	host string // of the first connection
	left bool   // a connection to another host was asked for
}

// onOneHost returns a context for one request, and what to call with its error.
func onOneHost(ctx context.Context) (context.Context, func(error) error) {
	h := new(oneHost)
	ctx, cancel := context.WithCancelCause(ctx)
	trace := &httptrace.ClientTrace{
		GetConn: func(host string) {
			if h.leavesFor(host) {
				cancel(errRedirect)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if h.hasLeft() {
				_ = info.Conn.Close()
			}
		},
	}
	return httptrace.WithClientTrace(ctx, trace), func(err error) error {
		cancel(nil)
		if err != nil && h.hasLeft() {
			return errRedirect
		}
		return err
	}
}

func (h *oneHost) leavesFor(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.host == "" {
		h.host = host
	}
	h.left = h.left || host != h.host
	return h.left
}

func (h *oneHost) hasLeft() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left
}
