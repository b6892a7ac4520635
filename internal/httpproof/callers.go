package httpproof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lane is a transport with what its requests found.
type lane struct {
	name         string            // constant
	transport    http.RoundTripper // constant
	sent, failed atomic.Int64
	found        found
}

type found struct {
	mu    sync.Mutex
	took  []time.Duration // of the requests that succeeded; guarded by mu
	posts []string        // the paths of the POST requests that succeeded; guarded by mu
	errs  []error         // the first ones; guarded by mu
}

// requestLimit is the time after which a request has failed.
const requestLimit = 10 * time.Second

// mostErrors is how many errors of a lane are reported.
const mostErrors = 10

// startCallers starts the closed loops. The function that it returns ends them, and waits.
func (r *run) startCallers(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { r.call(ctx, i, done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// call sends requests with one transport after the other.
func (r *run) call(ctx context.Context, caller int, done <-chan struct{}) {
	var tick <-chan time.Time
	if r.opts.Rate > 0 {
		t := time.NewTicker(callers * time.Second / time.Duration(r.opts.Rate))
		defer t.Stop()
		tick = t.C
	}
	for n := 0; ; n++ {
		for k := range r.lanes {
			l := r.lanes[(n+k)%len(r.lanes)]
			path := fmt.Sprintf("/%s/%d/%d", strings.ReplaceAll(l.name, " ", "-"), caller, n)
			l.send(ctx, path, n%2 == 1)
		}
		if tick != nil {
			select {
			case <-tick:
			case <-done:
				return
			}
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// send sends a request, and notes what came of it.
func (l *lane) send(ctx context.Context, path string, post bool) {
	start := time.Now()
	err := l.exchange(ctx, path, post)
	took := time.Since(start)
	if ctx.Err() != nil {
		return // the run was interrupted
	}
	l.sent.Add(1)
	if err != nil {
		l.failed.Add(1)
	}
	l.found.note(path, post, took, err)
}

func (f *found) note(path string, post bool, took time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.took = append(f.took, took)
		if post {
			f.posts = append(f.posts, path)
		}
	case len(f.errs) < mostErrors:
		f.errs = append(f.errs, err)
	}
}

// exchange sends a request and checks the response. The body of a POST request can be read
// once only.
func (l *lane) exchange(ctx context.Context, path string, post bool) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	method, want, body := http.MethodGet, path, io.Reader(nil)
	if post {
		method, want = http.MethodPost, path+"hello"
		body = io.MultiReader(strings.NewReader("hello"))
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+service+path, body)
	if err != nil {
		return err
	}
	resp, err := l.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || string(text) != want {
		return fmt.Errorf("%s %s: got %s and %q", method, path, resp.Status, text)
	}
	return nil
}

// Latency is a summary of the times that requests took until the end of the response.
type Latency struct{ P50, P99, Max time.Duration }

// Lane is what the requests with one transport found.
type Lane struct {
	Name         string
	Requests     int64
	Failed       int64
	HandledAmiss int // POST requests that were not handled exactly once
	Latency      Latency
	FirstErrors  []error
}

func (l *lane) report(handled map[string]int) Lane {
	f := &l.found
	f.mu.Lock()
	defer f.mu.Unlock()
	out := Lane{Name: l.name, Requests: l.sent.Load(), Failed: l.failed.Load(), FirstErrors: f.errs}
	for _, p := range f.posts {
		if handled[p] != 1 {
			out.HandledAmiss++
		}
	}
	if n := len(f.took); n > 0 {
		slices.Sort(f.took)
		out.Latency = Latency{f.took[n/2], f.took[n*99/100], f.took[n-1]}
	}
	return out
}
