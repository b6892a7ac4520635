package httptransport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/naming-go/naming"
)

// ErrNoEndpoints is the error of a request whose service has no endpoint to send the
// request to. The text of the error says why.
var ErrNoEndpoints = errors.New("naming: no endpoints")

// ErrClosed is the error of a request after [Transport.Close].
var ErrClosed = errors.New("naming: HTTP transport closed")

// noEndpointsError is an ErrNoEndpoints with the text of package resolver, which names the
// service and the reason.
type noEndpointsError struct{ cause error }

func (e *noEndpointsError) Error() string        { return e.cause.Error() }
func (e *noEndpointsError) Is(target error) bool { return target == ErrNoEndpoints }

// dialError is an error before anything was sent.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// endpointError is the error of a request, with the endpoint that the request was sent to.
type endpointError struct {
	service, addr string
	err           error
}

func (e *endpointError) Error() string {
	return fmt.Sprintf("naming: service %q: endpoint %s: %v", naming.SafeText(e.service), naming.SafeText(e.addr), e.err)
}

func (e *endpointError) Unwrap() error { return e.err }

// Timeout reports whether the request timed out. url.Error asks for it, and does not
// unwrap.
func (e *endpointError) Timeout() bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](e.err)
	return ok && t.Timeout()
}

// isBeforeSending reports whether a request failed before any of it was sent.
func isBeforeSending(err error) bool {
	if _, ok := errors.AsType[*dialError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	// The handshake is complete before a request is sent.
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok || err.Error() == "net/http: TLS handshake timeout"
}

// isBroken reports whether a request failed because its connection broke. A timeout is
// another failure: the server may be at work.
//
// net/http does not export some of its errors. Their texts are those of Go 1.26.
func isBroken(err error) bool {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return false
	}
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE} {
		if errors.Is(err, target) {
			return true
		}
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	text := err.Error()
	for _, prefix := range []string{
		"http: server closed idle connection",
		"http2: server sent GOAWAY",
		"http2: client connection lost",
		"http2: client conn not usable",
		"http2: Transport received Server's graceful shutdown GOAWAY",
	} {
		if strings.HasPrefix(text, prefix) {
			return true
		}
	}
	return false
}

// waitError is the error of a request that ended while it waited for the first set.
type waitError struct {
	service string
	err     error
}

func (e *waitError) Error() string {
	return fmt.Sprintf("naming: service %q: no answer from the registry yet: %v", naming.SafeText(e.service), e.err)
}

func (e *waitError) Unwrap() error { return e.err }

// Timeout reports whether the request timed out. url.Error asks for it.
func (e *waitError) Timeout() bool { return errors.Is(e.err, context.DeadlineExceeded) }
