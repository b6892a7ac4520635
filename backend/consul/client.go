package consul

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
)

// The limits of one answer of an agent, which a client that [NewClient] made keeps.
// They leave room for the largest possible service: 200,000 entries of 1.3 kB each.
const (
	// MaxAnswer is the largest body of an answer, in bytes, after decompression. The
	// request fails when a body turns out to be larger.
	MaxAnswer = 256 << 20
	// MaxErrorAnswer is how much of an answer is read whose status is an error, in
	// bytes.
	MaxErrorAnswer = 64 << 10
	// maxValues is the largest number of values in an answer. A value of two
	// bytes can take a hundred times as much memory.
	maxValues = 100 * naming.MaxEndpoints
	// maxRun is the longest string in an answer, or the longest stretch of anything
	// else without a comma or a bracket, in bytes.
	maxRun = 2 * naming.MaxMetadata
	// maxNested is how deep lists and objects may be nested in an answer, as in
	// encoding/json.
	maxNested = 10_000
)

var (
	errRedirect = errors.New("the agent redirects to another host, port, scheme or method, which is refused")
	errAnswer   = errors.New("an answer is too large")
)

// NewClient returns a client for a [Store]: the client that api.NewClient returns for
// the same configuration, with two more rules.
//
//   - It follows a redirect only to the same scheme, host and port, and only with the
//     same method. Any other redirect makes the request fail. The client of the api
//     package follows every redirect, and sends the token wherever it leads.
//   - It reads at most [MaxAnswer] bytes of an answer. The client of the api package
//     reads an answer of any size into memory.
//
// A nil config means api.DefaultConfig(). NewClient changes neither config nor its
// HttpClient. The CheckRedirect of an HttpClient decides about the redirects that are
// left.
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
	// api.NewClient sets c.HttpClient if it is nil, and uses the same pointer.
	h := c.HttpClient
	h.CheckRedirect = refuseElsewhere(h.CheckRedirect)
	if h.Transport == nil {
		h.Transport = http.DefaultTransport
	}
	h.Transport = limited{h.Transport}
	return client, nil
}

// refuseElsewhere returns a CheckRedirect that refuses to go to another host, port,
// scheme or method, and asks next about other redirects.
func refuseElsewhere(next func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
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

// CloseIdleConnections lets [http.Client.CloseIdleConnections] reach the transport.
func (l limited) CloseIdleConnections() {
	if c, ok := l.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
