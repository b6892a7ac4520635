package serve_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/serve"
)

// replicas is how many servers a restarts has.
const replicas = 3

// restarts is a service whose servers restart under traffic.
type restarts struct {
	*testing.T
	client  *naming.Client
	listen  func() net.Listener
	agent   *http.Client
	delay   time.Duration // the drain delay
	pause   time.Duration // between two requests of a caller
	current atomic.Pointer[[]string]
	sent    atomic.Int64
	mu      sync.Mutex
	lost    []error // guarded by mu
}

// instance is a running server.
type instance struct {
	cancel context.CancelFunc
	ended  chan error
}

func (r *restarts) start() instance {
	ctx, cancel := context.WithCancel(context.Background())
	i := instance{cancel, make(chan error, 1)}
	// A handler reads the body, so that a request that was begun is a request that counts.
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(r.pause / 3)
		_, _ = w.Write(body)
	})}
	lis := r.listen()
	o := &serve.Options{Register: &naming.RegisterOptions{DrainDelay: r.delay}}
	go func() { i.ended <- serve.RunHTTP(ctx, r.client, service, s, lis, o) }()
	return i
}

// follow keeps the addresses of the registry that a client calls: those that do not drain.
func (r *restarts) follow(ctx context.Context) {
	for v, err := range r.client.Watch(ctx, service) {
		if err != nil {
			return
		}
		var addrs []string
		for _, e := range v.Endpoints {
			if !e.Info().Draining {
				addrs = append(addrs, e.Addr)
			}
		}
		r.current.Store(&addrs)
	}
}

// full waits until all servers are in the client's set.
func (r *restarts) full() {
	r.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if a := r.current.Load(); a != nil && len(*a) == replicas {
			return
		}
		if time.Now().After(end) {
			r.Fatal("a server is missing")
		}
	}
}

// call sends POST requests until ctx is done, to each server in turn.
func (r *restarts) call(ctx context.Context, caller int) {
	for n := 0; ctx.Err() == nil; n++ {
		addrs := *r.current.Load()
		err := r.post(addrs[n%len(addrs)], fmt.Sprintf("request %d of %d", n, caller))
		r.sent.Add(1)
		if err != nil {
			r.mu.Lock()
			r.lost = append(r.lost, err)
			r.mu.Unlock()
		}
		time.Sleep(r.pause)
	}
}

// post sends a request that the transport does not send again: a POST, with a body that
// cannot be read twice.
func (r *restarts) post(addr, text string) error {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/", io.NopCloser(strings.NewReader(text)))
	if err != nil {
		return err
	}
	resp, err := r.agent.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != 200 || string(body) != text) {
		err = fmt.Errorf("%s %q to %q", resp.Status, body, text)
	}
	return err
}

// restart restarts n servers, one after the other, while callers send requests.
func (r *restarts) restart(n, callers int) {
	ctx, cancel := context.WithCancel(r.Context())
	var running sync.WaitGroup
	running.Go(func() { r.follow(ctx) })
	var all []instance
	for range replicas {
		all = append(all, r.start())
	}
	r.full()
	for i := range callers {
		running.Go(func() { r.call(ctx, i) })
	}
	for range n {
		all[0].cancel()
		if err := <-all[0].ended; err != nil {
			r.Error(err)
		}
		all = slices.Concat(all[1:], []instance{r.start()})
		r.full()
	}
	cancel()
	running.Wait()
	for _, i := range all {
		i.cancel()
	}
	for _, i := range all {
		if err := <-i.ended; err != nil {
			r.Error(err)
		}
	}
	r.Logf("%d requests during %d restarts, %d lost", r.sent.Load(), n, len(r.lost))
	for _, err := range r.lost[:min(len(r.lost), 5)] {
		r.Errorf("lost: %v", err)
	}
}

func newRestarts(t *testing.T, delay, pause time.Duration) *restarts {
	r := &restarts{T: t, client: naming.New(new(memory.Store), quiet), delay: delay, pause: pause}
	t.Cleanup(r.client.Close)
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	r.agent = &http.Client{Transport: transport}
	return r
}

// TestRestartsLoseNothing: under continuous requests on kept connections, restarts lose no
// request of a client that follows the registry.
func TestRestartsLoseNothing(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRestarts(t, 100*time.Millisecond, 3*time.Millisecond)
			p := new(pipes)
			r.listen, r.agent.Transport.(*http.Transport).DialContext = p.listen, p.dial
			r.restart(40, 8)
			if r.sent.Load() < 8*40*10 {
				t.Errorf("only %d requests", r.sent.Load())
			}
		})
	})
	t.Run("sockets", func(t *testing.T) {
		// A client that sleeps for the drain delay on a busy machine would lose requests.
		r := newRestarts(t, 2*time.Second, 0)
		r.listen = func() net.Listener { return listen(t, "127.0.0.1:0") }
		r.restart(2, 4)
		if r.sent.Load() == 0 {
			t.Error("no requests")
		}
	})
}
