package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/naming-go/naming"
)

// DefaultReadyEvery is the default of [Options.ReadyEvery].
const DefaultReadyEvery = time.Second

const (
	minReadyEvery = 10 * time.Millisecond
	maxReadyEvery = time.Hour
	maxAnswer     = 200 // bytes of an answer that are logged
)

// checkReady returns an error for options with which the endpoint would never be
// registered, or too often.
func (o *Options) checkReady() error {
	if o.ReadyEvery < minReadyEvery || o.ReadyEvery > maxReadyEvery {
		return fmt.Errorf("%w: Options.ReadyEvery is %v: want %v to %v", naming.ErrInvalid, o.ReadyEvery, minReadyEvery, maxReadyEvery)
	}
	if o.Readiness == nil {
		return nil
	}
	if h, ok := o.Health.(*readinessHealth); ok && h.readiness == o.Readiness {
		return fmt.Errorf("Options.Health: %w", errLoop)
	}
	if r, ok := o.Ready.(*Readiness); ok && r == o.Readiness {
		return fmt.Errorf("Options.Ready: %w", errLoop)
	}
	return nil
}

// errLoop is the error of an endpoint that waits for itself.
var errLoop = fmt.Errorf("%w: the answer comes from Options.Readiness, which is ready only after the endpoint was registered", naming.ErrInvalid)

// askedFor is the value of a context within which Options.Health and Options.Ready are
// asked whether an endpoint may be registered. It finds a loop behind other handlers.
type askedFor struct {
	readiness *Readiness // that of the endpoint
	loop      atomic.Bool
}

type askedForKey struct{}

// askingFor returns a context for questions about an endpoint that r follows.
func askingFor(ctx context.Context, r *Readiness) context.Context {
	return context.WithValue(ctx, askedForKey{}, &askedFor{readiness: r})
}

// isLoop reports whether r is asked about an endpoint that r itself follows.
func (r *Readiness) isLoop(ctx context.Context) bool {
	a, ok := ctx.Value(askedForKey{}).(*askedFor)
	if !ok || a.readiness != r {
		return false
	}
	a.loop.Store(true)
	return true
}

// prober is Options.Ready as a health service, so that a healthWatch can follow it.
type prober struct {
	healthgrpc.UnimplementedHealthServer
	handler http.Handler
	every   time.Duration
	log     *slog.Logger
}

// prober returns a health service that calls Options.Ready. It returns nil without Ready.
func (o *Options) prober(service string) healthgrpc.HealthServer {
	if o.Ready == nil {
		return nil
	}
	return &prober{handler: o.Ready, every: o.ReadyEvery, log: o.Logger.With("service", service)}
}

var errSlow = errors.New("the handler has not answered in time")

// Watch calls the handler until the stream's context is done. It sends the status after
// the first call and after each change.
func (p *prober) Watch(_ *healthgrpc.HealthCheckRequest, stream healthgrpc.Health_WatchServer) error {
	ctx := stream.Context()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	last := healthgrpc.HealthCheckResponse_UNKNOWN
	for ctx.Err() == nil { // a select of two ready cases chooses at random
		callCtx, cancel := context.WithTimeout(ctx, max(p.every, time.Second))
		answer := p.call(callCtx)
		var why error
		select {
		case why = <-answer:
		case <-callCtx.Done():
			why = errSlow
		}
		if ctx.Err() == nil {
			last = p.report(stream, last, why)
		}
		if why == errSlow {
			// A second call beside one that hangs would hang as well.
			select {
			case <-answer:
			case <-ctx.Done():
			}
		}
		cancel()
		if errors.Is(why, errLoop) {
			return why
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// report sends and logs the status after a call of the handler, if the status is not the
// last one. It returns the status.
func (p *prober) report(stream healthgrpc.Health_WatchServer, last healthgrpc.HealthCheckResponse_ServingStatus, why error) healthgrpc.HealthCheckResponse_ServingStatus {
	now := healthgrpc.HealthCheckResponse_SERVING
	if why != nil {
		now = healthgrpc.HealthCheckResponse_NOT_SERVING
	}
	if now == last {
		return last
	}
	if why == nil {
		p.log.Info("naming: ready")
	} else {
		p.log.Info("naming: not ready", "reason", naming.SafeText(why.Error()))
	}
	_ = stream.Send(&healthgrpc.HealthCheckResponse{Status: now}) // fails only if ctx is done
	return now
}

// call calls the handler in a goroutine of its own. The channel gets nil if the handler
// answered 2xx, and otherwise the reason.
func (p *prober) call(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		why := errors.New("the handler ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				why = fmt.Errorf("the handler panicked: %.200s", fmt.Sprint(v))
			}
			if a, ok := ctx.Value(askedForKey{}).(*askedFor); ok && a.loop.Load() {
				why = fmt.Errorf("Options.Ready: %w", errLoop)
			}
			done <- why
		}()
		w := &answer{header: make(http.Header)}
		p.handler.ServeHTTP(w, newProbe(ctx))
		why = w.verdict()
	}()
	return done
}

// newProbe returns the request for Options.Ready, as a server would receive it.
func newProbe(ctx context.Context) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", http.NoBody)
	if err != nil {
		panic(err) // the method and the URL are constants
	}
	req.Host, req.RequestURI, req.RemoteAddr = "localhost", "/", "127.0.0.1:0"
	req.Header.Set("User-Agent", "naming")
	return req
}

// answer is an [http.ResponseWriter] that keeps the status and the beginning of the body.
type answer struct {
	header http.Header
	status int // 0: none yet
	body   []byte
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	// An informational status is not the answer (RFC 9110, section 15.2).
	if a.status == 0 && (status < 100 || status > 199) {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p[:min(len(p), maxAnswer-len(a.body))]...)
	return len(p), nil
}

// Flush implements [http.Flusher].
func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }

// verdict returns nil for a status of 200 to 299, and otherwise an error with the answer.
func (a *answer) verdict() error {
	a.WriteHeader(http.StatusOK)
	if a.status >= 200 && a.status <= 299 {
		return nil
	}
	return fmt.Errorf("the handler answered GET / with %d: %q", a.status, a.body)
}
