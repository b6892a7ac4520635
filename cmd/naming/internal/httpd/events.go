package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Stream is an answer of server-sent events.
type Stream struct {
	w       *bufio.Writer
	control *http.ResponseController
}

// NewStream begins an answer of server-sent events. It returns nil for a request of the method
// HEAD, whose answer is complete then: a stream that never ends would block the connection.
func NewStream(w http.ResponseWriter, r *http.Request) *Stream {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // A proxy must not collect events.
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	return &Stream{bufio.NewWriterSize(w, 16<<10), http.NewResponseController(w)}
}

// Write writes events at once.
func (s *Stream) Write(events func(*bufio.Writer) error) error {
	if err := events(s.w); err != nil {
		return err
	}
	return s.flush()
}

// Run writes events until ctx is done or the client is gone. next waits for events and writes
// them. It gets a context that ends after the time keepAlive, and Run then writes a comment
// and calls next again. The error is never nil.
func (s *Stream) Run(ctx context.Context, keepAlive time.Duration, next func(context.Context, *bufio.Writer) error) error {
	// A client that lost the connection waits for this time.
	if _, err := s.w.WriteString("retry: 1000\n\n"); err != nil {
		return err
	}
	for {
		if err := s.flush(); err != nil {
			return err
		}
		err := s.next(ctx, keepAlive, next)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			_, err = s.w.WriteString(":\n\n")
		}
		if err != nil {
			return err
		}
	}
}

func (s *Stream) next(ctx context.Context, wait time.Duration, next func(context.Context, *bufio.Writer) error) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return next(ctx, s.w)
}

func (s *Stream) flush() error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.control.Flush()
}

// WriteEvent writes an event. data must have no line end, as JSON has none. An event without
// an ID does not change the Last-Event-ID of the client.
func WriteEvent(w *bufio.Writer, event, id string, data []byte) error {
	if id != "" {
		fmt.Fprintf(w, "id: %s\n", id)
	}
	fmt.Fprintf(w, "event: %s\ndata: ", event)
	_, _ = w.Write(data)
	_, err := w.WriteString("\n\n")
	return err
}
