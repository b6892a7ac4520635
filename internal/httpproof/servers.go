package httpproof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/naming-go/naming"
)

// ledger counts how often each POST request was handled.
type ledger struct {
	mu      sync.Mutex
	handled map[string]int // by the path; guarded by mu
}

func (l *ledger) handle(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handled == nil {
		l.handled = make(map[string]int)
	}
	l.handled[path]++
}

// ServeHTTP answers with the path and the body of the request.
func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller sees that the answer is wrong
	}
	if r.Method == http.MethodPost {
		l.handle(r.URL.Path)
	}
	_, _ = io.WriteString(w, r.URL.Path+string(text))
}

// server is a server that is registered.
type server struct {
	addr   string
	http   *http.Server
	served chan error
	client *naming.Client
	reg    *naming.Registration
}

// listen starts a server that is not registered.
func (r *run) listen() (*server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: lis.Addr().String(), http: &http.Server{Handler: &r.ledger}, served: make(chan error, 1)}
	go func() { s.served <- s.http.Serve(lis) }()
	return s, nil
}

// startServer starts a server, and returns when it is registered.
func (r *run) startServer(ctx context.Context) error {
	s, err := r.listen()
	if err != nil {
		return err
	}
	r.servers = append(r.servers, s)
	s.client = naming.New(r.backend.Servers, &naming.Options{Logger: quiet})
	s.reg, err = s.client.Register(ctx, service, naming.Endpoint{Addr: s.addr}, &naming.RegisterOptions{
		TTL: r.ttl(), DrainDelay: r.drainDelay(), CloseTimeout: r.drainDelay() + 4*time.Second,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return s.reg.Wait(ctx)
}

// stopServer stops the oldest server in order: it is withdrawn, which lets callers turn to
// others, and then ends the requests in progress.
func (r *run) stopServer(ctx context.Context) error {
	s := r.servers[0]
	r.servers = r.servers[1:]
	err := s.reg.Close()
	s.client.Close()
	return errors.Join(err, s.shutdown(ctx))
}

func (s *server) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("%s: %w", s.addr, errors.Join(err, s.http.Close()))
	}
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// stopAll stops what is left at the end of a run.
func (r *run) stopAll() {
	for _, s := range r.servers {
		if s.client != nil {
			s.client.Close()
		}
		_ = s.http.Close()
		<-s.served
	}
}

// rotation sends requests to fixed addresses, one after the other.
type rotation struct {
	*http.Transport
	addrs []string
	next  atomic.Uint64
}

func (r *rotation) RoundTrip(req *http.Request) (*http.Response, error) {
	out, u := *req, *req.URL
	u.Host = r.addrs[r.next.Add(1)%uint64(len(r.addrs))]
	out.URL = &u
	return r.Transport.RoundTrip(&out)
}

// startFixed starts servers that are not registered and never replaced, and returns a
// transport for them.
func (r *run) startFixed() (*rotation, func(), error) {
	var servers []*server
	stop := func() {
		for _, s := range servers {
			_ = s.http.Close()
			<-s.served
		}
	}
	fixed := &rotation{Transport: &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second}}
	for range fleetSize {
		s, err := r.listen()
		if err != nil {
			stop()
			return nil, nil, err
		}
		servers = append(servers, s)
		fixed.addrs = append(fixed.addrs, s.addr)
	}
	return fixed, stop, nil
}
