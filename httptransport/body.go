package httptransport

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// requestBody is the body of a request over all attempts. An http.Transport closes the body
// also when it could not connect, and the caller's body must then stay open for the next
// attempt.
type requestBody struct {
	req     *http.Request
	current *streamBody // of the attempt in progress; nil: the body is empty or can be read again
	begun   bool        // there was an attempt
}

// next returns the body for the next attempt.
func (b *requestBody) next() (io.ReadCloser, error) {
	first := !b.begun
	b.begun = true
	switch {
	case b.req.Body == nil || b.req.Body == http.NoBody:
		return b.req.Body, nil
	case b.req.GetBody == nil:
		b.current = &streamBody{source: b.req.Body}
		return b.current, nil
	case first:
		return b.req.Body, nil
	}
	return b.req.GetBody()
}

// rewind ends a failed attempt, and reports whether another one can send the same body.
func (b *requestBody) rewind() bool {
	if b.current == nil {
		return true
	}
	if !b.current.detach() {
		return false
	}
	// As before the first attempt. There may be no other one.
	b.current, b.begun = nil, false
	return true
}

// settle says that no attempt follows. The body is closed if its attempt closed it, or if
// there was no attempt.
func (b *requestBody) settle() {
	switch {
	case b.current != nil:
		b.current.settle()
	case !b.begun && b.req.Body != nil:
		_ = b.req.Body.Close()
	}
}

// errDetached is what an attempt gets that reads its body after its end.
var errDetached = errors.New("naming: the request was sent to another endpoint")

// streamBody is the body of one attempt of a request whose body can be read once. Close
// has no effect before settle: another attempt may need the body.
type streamBody struct {
	mu      sync.Mutex
	source  io.ReadCloser // the caller's; nil: detached; guarded by mu
	read    bool          // Read was called; guarded by mu
	closed  bool          // Close was called; guarded by mu
	settled bool          // guarded by mu
}

func (b *streamBody) Read(p []byte) (int, error) {
	source := b.startReading()
	if source == nil {
		return 0, errDetached
	}
	return source.Read(p)
}

func (b *streamBody) startReading() io.Reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.source == nil {
		return nil
	}
	b.read = true
	return b.source
}

func (b *streamBody) Close() error {
	if source := b.markClosed(); source != nil {
		return source.Close()
	}
	return nil
}

// markClosed returns what the caller has to close, or nil.
func (b *streamBody) markClosed() io.Closer {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.closed
	b.closed = true
	if first && b.settled && b.source != nil {
		return b.source
	}
	return nil
}

// settle has Close close the caller's body from now on, and does so if Close was called.
func (b *streamBody) settle() {
	if source := b.markSettled(); source != nil {
		_ = source.Close()
	}
}

func (b *streamBody) markSettled() io.Closer {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := !b.settled
	b.settled = true
	if first && b.closed && b.source != nil {
		return b.source
	}
	return nil
}

// detach takes the caller's body away from the attempt. It reports false if the attempt
// has read from the body.
func (b *streamBody) detach() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read {
		return false
	}
	b.source = nil
	return true
}
