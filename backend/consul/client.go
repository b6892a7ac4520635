package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// The limits of one answer of an agent, which a client that [NewClient] made keeps.
// They leave room for the largest service that there may be: 200,000 entries of
// 1.3 kB each.
const (
	// MaxAnswer is the largest body of an answer, in bytes, after it was
	// decompressed. The request fails when a body turns out to be larger.
	MaxAnswer = 256 << 20
	// MaxErrorAnswer is how much is read of an answer whose status is an error,
	// in bytes.
	MaxErrorAnswer = 64 << 10
	// maxValues is the largest number of values in an answer. A value of two
	// bytes can take a hundred times as much memory.
	maxValues = 100 * naming.MaxEndpoints
	// maxRun is the longest string in an answer, or anything else that no comma
	// and no bracket interrupts, in bytes.
	maxRun = 2 * naming.MaxMetadata
	// maxNested is how deep lists and objects may be nested in an answer, as in
	// encoding/json.
	maxNested = 10_000
)

var (
	errRedirect = errors.New("the agent redirects to another host, port, scheme or method, which is refused")
	errAnswer   = errors.New("an answer is too large")
)

// NewClient returns a client for a [Store]. It is what api.NewClient returns for the
// same configuration, and keeps two rules besides:
//
//   - It follows a redirect to the same scheme, host and port only, and only if the
//     method stays the same. Any other redirect makes the request fail. The client
//     of the api package follows all, and sends the token to wherever they lead.
//   - It reads at most [MaxAnswer] bytes of an answer. The client of the api package
//     reads whatever comes into memory.
//
// A nil config means api.DefaultConfig(). NewClient does not change config, nor an
// HttpClient in it, whose CheckRedirect is asked about the redirects that are left.
func NewClient(config *api.Config) (*api.Client, error) {
	if config == nil {
		config = api.DefaultConfig()
	}
	c := *config
	if c.HttpClient != nil {
		h := *c.HttpClient
		c.HttpClient = &h
	}
	client, err := api.NewClient(&c)
	if err != nil {
		return nil, err
	}
	// The client has the same pointer, which it made if there was none.
	h := c.HttpClient
	h.CheckRedirect = stay(h.CheckRedirect)
	if h.Transport == nil {
		h.Transport = http.DefaultTransport
	}
	h.Transport = limited{h.Transport}
	return client, nil
}

// stay returns a CheckRedirect that refuses to go elsewhere.
func stay(next func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if first := via[0]; req.Method != first.Method || origin(req.URL) != origin(first.URL) {
			return fmt.Errorf("%w: to %s", errRedirect, naming.SafeText(origin(req.URL)))
		}
		if next != nil {
			return next(req, via)
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
}

// origin returns the scheme, host and port of a URL.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// limited is a transport whose answers have limits.
type limited struct{ base http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body = &body{ReadCloser: resp.Body, left: MaxErrorAnswer, over: io.EOF}
		return resp, nil
	}
	if resp.ContentLength > MaxAnswer {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%w: %d bytes, at most %d are read", errAnswer, resp.ContentLength, MaxAnswer)
	}
	resp.Body = &body{
		ReadCloser: resp.Body, left: MaxAnswer, count: true,
		over: fmt.Errorf("%w: more than %d bytes", errAnswer, MaxAnswer),
	}
	return resp, nil
}

// CloseIdleConnections lets [http.Client.CloseIdleConnections] pass.
func (l limited) CloseIdleConnections() {
	if c, ok := l.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// body is the body of an answer up to a limit.
type body struct {
	io.ReadCloser
	left int64
	over error // of reading beyond it

	count  bool // whether to count values of JSON
	err    error
	values int // commas outside of strings
	top    int // those of the outermost list or object
	depth  int
	run    int // bytes since a comma, a bracket, or an end of a string
	quoted bool
	escape bool
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left <= 0 {
		// The limit itself is allowed.
		if n, err := b.ReadCloser.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		b.err = b.over
		return 0, b.err
	}
	n, err = b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if b.count {
		if b.scan(p[:n]); b.values > maxValues || b.top >= naming.MaxEndpoints || b.run > maxRun || b.depth > maxNested {
			b.err = fmt.Errorf("%w: more than %d values, %d in its list, %d levels, or %d bytes in a value", errAnswer, maxValues, naming.MaxEndpoints, maxNested, maxRun)
			return 0, b.err
		}
	}
	return n, err
}

// scan counts values. The decoder reports what is not JSON.
func (b *body) scan(p []byte) {
	for _, c := range p {
		b.run++
		switch {
		case b.escape:
			b.escape = false
			continue
		case b.quoted:
			b.quoted, b.escape = c != '"', c == '\\'
			if b.quoted {
				continue
			}
		case c == '"':
			b.quoted = true
		case c == ',':
			b.values++
			if b.depth == 1 {
				b.top++
			}
		case c == '[' || c == '{':
			b.depth++
		case c == ']' || c == '}':
			b.depth--
		default:
			continue
		}
		b.run = 0
	}
}

// staying keeps one request on the host that it was made for, also with a client
// that the caller made. It learns from an httptrace which host each connection is
// for, and closes a connection to another host before the request is written.
// Transports without httptrace are not covered, nor is a redirect that changes only
// the scheme.
type staying struct {
	mu   sync.Mutex
	host string // of the first connection
	left bool   // another was asked for
}

// stays returns a context for one request, and what to call with its error.
func stays(ctx context.Context) (context.Context, func(error) error) {
	s := new(staying)
	ctx, cancel := context.WithCancelCause(ctx)
	trace := &httptrace.ClientTrace{
		GetConn: func(host string) {
			if s.leaves(host) {
				cancel(errRedirect)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) {
			if s.hasLeft() {
				_ = info.Conn.Close()
			}
		},
	}
	return httptrace.WithClientTrace(ctx, trace), func(err error) error {
		cancel(nil)
		if err != nil && s.hasLeft() {
			return errRedirect
		}
		return err
	}
}

func (s *staying) leaves(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host == "" {
		s.host = host
	}
	s.left = s.left || host != s.host
	return s.left
}

func (s *staying) hasLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}
