// Package measure measures a live registry through package naming and, side by side, through
// the registry's own client.
package measure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
)

// Max is the most of Registrations and of Changes.
const Max = 1_000_000

// Options says how much is measured.
type Options struct {
	// Registrations is how many endpoints are registered, and Concurrency how many at once.
	Registrations, Concurrency int
	// Changes is how many changes are followed, one after the other, Interval apart.
	Changes  int
	Interval time.Duration
	// Progress, if not nil, is called while the measurement runs.
	Progress func(what string, done, of int)
}

// Target is a registry to measure.
type Target struct {
	Store  naming.Store
	Client *naming.Client
	// Raw is the registry's own client. Nil means that the registry has none.
	Raw Raw
}

// Raw is the client of a registry, without package naming.
type Raw interface {
	// Register puts n endpoints of a service under a lease, some of them at once, as a
	// program without package naming would.
	Register(ctx context.Context, service string, n, concurrency int) error
	// Remove removes what Register has put.
	Remove(ctx context.Context) error
	// Watch calls seen with the address of the endpoint "probe" of a service whenever it
	// changes, and once at the start, until ctx is done. It returns ctx.Err() or what went
	// wrong.
	Watch(ctx context.Context, service string, seen func(addr string)) error
}

// Result is what was measured.
type Result struct {
	// Registrations is in registrations per second: higher is better.
	Registrations Pair `json:"registrationsPerSecond"`
	// P50 and P99 are in milliseconds, from before the request that changes an endpoint
	// until a watch shows the change: lower is better.
	P50 Pair `json:"propagationP50Milliseconds"`
	P99 Pair `json:"propagationP99Milliseconds"`
}

// Pair is one quantity, measured twice.
type Pair struct {
	// Ratio is Naming divided by Raw, 0 without Raw.
	Ratio  float64 `json:"ratio"`
	Naming float64 `json:"naming"`
	Raw    float64 `json:"raw"`
}

func pair(naming, raw float64) Pair {
	p := Pair{Naming: naming, Raw: raw}
	if raw > 0 {
		p.Ratio = naming / raw
	}
	return p
}

// Run measures a registry. Everything is put under services with a random name and under leases,
// and removed at the end, also if ctx is done. What a process that is killed leaves behind ends
// with its lease.
func Run(ctx context.Context, t Target, o Options) (Result, error) {
	if o.Registrations < 1 || o.Concurrency < 1 || o.Changes < 1 || o.Interval < 0 {
		return Result{}, fmt.Errorf("%w: the numbers of a measurement must be positive", naming.ErrInvalid)
	}
	if o.Registrations > Max || o.Changes > Max || o.Concurrency > maxConcurrency || o.Interval > maxInterval {
		return Result{}, fmt.Errorf("%w: at most %d registrations and changes, %d at once, %v apart", naming.ErrInvalid, Max, maxConcurrency, maxInterval)
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	m := &measurement{Target: t, opts: o, name: "naming-bench-" + rand.Text()}
	var r Result
	err := m.try(ctx)
	if err != nil {
		return r, err
	}
	if r.Registrations, err = m.registrations(ctx); err != nil {
		return r, err
	}
	r.P50, r.P99, err = m.propagation(ctx)
	return r, err
}

// measurement is one call of Run.
type measurement struct {
	Target
	opts Options
	name string // the beginning of the names of services
}

// requestTimeout bounds a single request.
const requestTimeout = 30 * time.Second

const (
	maxConcurrency = 10_000
	maxInterval    = time.Minute // the lease of the probe outlives the time between two changes
	probeTTL       = 10 * time.Minute
)

// try puts an endpoint and removes it. A Registration would try again and again what the
// registry refuses.
func (m *measurement) try(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease, err := m.Store.Grant(ctx, probeTTL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp(ctx, lease.Revoke)) }()
	e := naming.Endpoint{ID: probe, Addr: addr(0)}
	if err := m.Store.Apply(ctx, m.name+"-try", naming.Change{Endpoint: e, Lease: lease}); err != nil {
		return err
	}
	return m.Store.Apply(ctx, m.name+"-try", naming.Change{Op: naming.Delete, Endpoint: e})
}

// cleanUp calls a function that removes something, also if ctx is done.
func cleanUp(ctx context.Context, remove func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return remove(ctx)
}

// registrations measures registrations, each way in turn: half of them, the other way, and
// the other half, so that a registry that becomes slower harms both.
func (m *measurement) registrations(ctx context.Context) (Pair, error) {
	var took, rawTook time.Duration
	half := max(m.opts.Registrations/2, 1)
	for turn := range 2 {
		m.opts.Progress("registrations", turn, 2)
		if m.Raw != nil {
			d, err := m.registerRaw(ctx, fmt.Sprintf("%s-raw%d", m.name, turn), half)
			if err != nil {
				return Pair{}, err
			}
			rawTook += d
		}
		d, err := m.register(ctx, fmt.Sprintf("%s-%d", m.name, turn), half)
		if err != nil {
			return Pair{}, err
		}
		took += d
	}
	perSecond := func(d time.Duration) float64 {
		if d <= 0 {
			return 0
		}
		return float64(2*half) / d.Seconds()
	}
	return pair(perSecond(took), perSecond(rawTook)), nil
}

// addr returns an address of its own for each number. Nobody listens there.
func addr(i int) string {
	return fmt.Sprintf("127.%d.%d.%d:%d", i>>16&0xff, i>>8&0xff, i&0xff, 1024+i%60000)
}

// registerTimeout bounds the registrations of one turn: a registry that fails meanwhile would
// be tried again and again.
const registerTimeout = 5 * time.Minute

// cleanupTimeout bounds the removal of what was measured.
const cleanupTimeout = 30 * time.Second

// register registers endpoints with the Client, and returns how long that took.
func (m *measurement) register(ctx context.Context, service string, n int) (took time.Duration, err error) {
	var held registrations
	defer func() { err = errors.Join(err, cleanUp(ctx, held.withdraw)) }()
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	g, gctx := errgroup.WithContext(bounded)
	g.SetLimit(m.opts.Concurrency)
	for i := range n {
		g.Go(func() error {
			r, err := m.Client.Register(gctx, service, naming.Endpoint{Addr: addr(i)}, nil)
			if err != nil {
				return err
			}
			held.add(r)
			return r.Wait(gctx)
		})
	}
	err = g.Wait()
	return time.Since(begin), err
}

// registrations are the registrations to end. Its methods may be called concurrently.
type registrations struct {
	mu   sync.Mutex
	list []*naming.Registration // guarded by mu
}

func (r *registrations) add(g *naming.Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, g)
}

// withdraw ends all registrations.
func (r *registrations) withdraw(ctx context.Context) error {
	r.mu.Lock()
	list := slices.Clone(r.list)
	r.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(64)
	for _, one := range list {
		g.Go(func() error { return one.Withdraw(ctx) })
	}
	return g.Wait()
}

func (m *measurement) registerRaw(ctx context.Context, service string, n int) (took time.Duration, err error) {
	defer func() { err = errors.Join(err, cleanUp(ctx, m.Raw.Remove)) }()
	begin := time.Now()
	bounded, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	err = m.Raw.Register(bounded, service, n, m.opts.Concurrency)
	return time.Since(begin), err
}
