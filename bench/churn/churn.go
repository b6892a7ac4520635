// Package churn measures whether memory and goroutines stay flat while endpoints,
// registrations and consumers come and go.
package churn

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// Registry changes endpoints that the peer did not register itself.
type Registry interface {
	Put(ctx context.Context, service string, e peer.Endpoint) error
	Delete(ctx context.Context, service string, e peer.Endpoint) error
}

// Options are the options of [Run]. Zero fields have the defaults given.
type Options struct {
	// Changes is the number of changes. In one of twenty the peer itself registers or
	// deregisters an endpoint. The default of 720,000 takes an hour.
	Changes int
	// Rate bounds the changes per second, 200 by default. A negative rate means no
	// limit.
	Rate int
	// Consumers is the number of consumers at any time, 1,000 by default. One consumer
	// is replaced with every 200th change.
	Consumers int
	// Services is the number of services that they consume, 10 by default. Endpoints
	// is the number of endpoints that each service has first, 100 by default.
	Services, Endpoints int
	// Samples is the number of samples, spread evenly, 60 by default.
	Samples int
	// Settle bounds the time from the end of changes until every consumer has the
	// right set. The default is one minute.
	Settle time.Duration
	// Logf, if not nil, logs every sample.
	Logf func(format string, args ...any)
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Changes, 720_000}, {&o.Rate, 200}, {&o.Consumers, 1000}, {&o.Services, 10}, {&o.Endpoints, 100}, {&o.Samples, 60}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Settle == 0 {
		o.Settle = time.Minute
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	return o
}

// Sample is the memory and the goroutines of the process at one moment. Garbage was
// collected, no change was in progress, and every consumer had the right set.
type Sample struct {
	After      time.Duration `json:"after_ns"`
	Changes    int           `json:"changes"`
	Updates    int64         `json:"updates"` // sets that consumers got so far
	Heap       uint64        `json:"heap_bytes"`
	Stack      uint64        `json:"stack_bytes"`
	Goroutines int           `json:"goroutines"`
}

// Result is the result of a run.
type Result struct {
	Changes   int           `json:"changes"`
	Consumers int           `json:"consumers"`
	Took      time.Duration `json:"took_ns"`
	Samples   []Sample      `json:"samples"`
	// Flat is the verdict. Why has the figures behind it, which are the medians of the
	// first and of the last quarter of the samples.
	Flat bool   `json:"flat"`
	Why  string `json:"why"`
}

// Run makes changes and takes samples in between. It returns an error if it cannot go on,
// or a consumer does not have the right set. The Result then has what was found before.
func Run(ctx context.Context, client peer.Client, reg Registry, opts Options) (*Result, error) {
	r := &run{Options: opts.withDefaults(), client: client, reg: reg}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res := &Result{Consumers: r.Consumers}
	start := time.Now()
	defer func() { res.Took = time.Since(start) }()
	defer r.stop()
	if err := r.start(ctx); err != nil {
		return res, err
	}
	begin := time.Now()
	for i := range r.Samples {
		for res.Changes < r.Changes*(i+1)/r.Samples {
			if r.Rate > 0 {
				// Changes that a sample or the registry delayed are made up for.
				pace(ctx, begin.Add(time.Duration(res.Changes)*time.Second/time.Duration(r.Rate)))
			}
			if err := r.change(ctx, res.Changes); err != nil {
				return res, err
			}
			res.Changes++
		}
		if err := r.settle(ctx); err != nil {
			return res, err
		}
		s := r.sample()
		s.After, s.Changes = time.Since(start), res.Changes
		res.Samples = append(res.Samples, s)
		r.Logf("%8v %7d changes %9d updates: heap %6.2f MB, stack %5.2f MB, %d goroutines",
			s.After.Round(time.Second), s.Changes, s.Updates, float64(s.Heap)/1e6, float64(s.Stack)/1e6, s.Goroutines)
	}
	res.judge()
	if !res.Flat {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		r.Logf("%s\n%s", res.Why, b.String())
	}
	return res, nil
}

// pace waits until it is time for the next change.
func pace(ctx context.Context, at time.Time) {
	d := time.Until(at)
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// judge compares the first and the last quarter. The tolerance is the noise of a heap after
// a collection. A leak of more than about one pointer for each change of an hour exceeds
// it.
func (r *Result) judge() {
	n := max(len(r.Samples)/4, 1)
	first, last := r.Samples[:n], r.Samples[len(r.Samples)-n:]
	memory := func(s Sample) float64 { return float64(s.Heap + s.Stack) }
	goroutines := func(s Sample) float64 { return float64(s.Goroutines) }
	m0, m1 := median(first, memory), median(last, memory)
	g0, g1 := median(first, goroutines), median(last, goroutines)
	r.Flat = m1 <= m0*1.1+1e6 && g1 <= g0*1.02+10
	r.Why = fmt.Sprintf("first to last quarter: heap + stack %.2f to %.2f MB, goroutines %.0f to %.0f", m0/1e6, m1/1e6, g0, g1)
}

func median(samples []Sample, of func(Sample) float64) float64 {
	var v []float64
	for _, s := range samples {
		v = append(v, of(s))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

type run struct {
	Options
	client peer.Client
	reg    Registry

	// Owned by the goroutine of Run.
	next      int // makes addresses
	services  []*service
	consumers []*consumer
	pending   sync.WaitGroup // registrations that begin or end

	mu      sync.Mutex // guards the fields below
	updates int64      // of consumers that have left
	err     error      // the first error of pending
	mine    []registration
	owed    int // registrations to end as soon as they have begun
}

type service struct {
	name string

	mu   sync.Mutex
	have map[string]peer.Endpoint // the endpoints in the registry, by address; guarded by mu
	own  map[string]bool          // those that the peer registered; guarded by mu
}

type registration struct {
	*service
	addr       string
	deregister func(context.Context) error
}

func (r *run) start(ctx context.Context) error {
	for i := range r.Services {
		s := &service{name: fmt.Sprintf("churn/%d", i), have: make(map[string]peer.Endpoint), own: make(map[string]bool)}
		r.services = append(r.services, s)
		for range r.Endpoints {
			if err := r.put(ctx, s); err != nil {
				return err
			}
		}
	}
	for i := range r.Consumers {
		if err := r.consume(i); err != nil {
			return err
		}
	}
	return r.settle(ctx)
}

// endpoint returns a new endpoint.
func (r *run) endpoint() peer.Endpoint {
	r.next++
	addr := fmt.Sprintf("10.%d.%d.%d:9000", r.next>>16&255, r.next>>8&255, r.next&255)
	return peer.Endpoint{ID: fmt.Sprintf("%d@%s", r.next, addr), Addr: addr, Metadata: map[string]string{"zone": "a"}}
}

func (r *run) put(ctx context.Context, s *service) error {
	e := r.endpoint()
	s.mu.Lock()
	s.have[e.Addr] = e
	s.mu.Unlock()
	return r.reg.Put(ctx, s.name, e)
}

// change makes the i-th change.
func (r *run) change(ctx context.Context, i int) error {
	if err := r.failed(); err != nil {
		return err
	}
	if i%200 == 100 {
		// The oldest consumer leaves.
		n := i / 200 % len(r.consumers)
		r.leave(r.consumers[n])
		if err := r.consume(n); err != nil {
			return err
		}
	}
	s := r.services[i%len(r.services)]
	switch i % 40 {
	case 18:
		r.register(ctx, s)
		return nil
	case 39:
		r.deregister(ctx)
		return nil
	}
	e, ok := s.surplus(r.Endpoints)
	if !ok {
		return r.put(ctx, s)
	}
	return r.reg.Delete(ctx, s.name, e)
}

// surplus removes and returns an endpoint that the peer did not register, if there are more
// than n of them.
func (s *service) surplus(n int) (peer.Endpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.have)-len(s.own) <= n {
		return peer.Endpoint{}, false
	}
	for addr, e := range s.have {
		if !s.own[addr] {
			delete(s.have, addr)
			return e, true
		}
	}
	return peer.Endpoint{}, false
}

// register has the peer register an endpoint. It does not wait for the registration.
func (r *run) register(ctx context.Context, s *service) {
	e := r.endpoint()
	r.pending.Go(func() {
		deregister, err := r.client.Register(ctx, s.name, e)
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if err != nil {
			r.fail(fmt.Errorf("register %s: %w", e.Addr, err))
			return
		}
		s.mu.Lock()
		s.have[e.Addr], s.own[e.Addr] = e, true
		s.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.mine = append(r.mine, registration{s, e.Addr, deregister})
		if r.owed > 0 {
			r.owed--
			r.endOldest(ctx)
		}
	})
}

// deregister ends the oldest registration.
func (r *run) deregister(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mine) == 0 {
		r.owed++ // the number of registrations must not grow
		return
	}
	r.endOldest(ctx)
}

// endOldest ends the oldest registration. The caller holds r.mu.
func (r *run) endOldest(ctx context.Context) {
	g := r.mine[0]
	r.mine = slices.Delete(r.mine, 0, 1)
	r.pending.Go(func() {
		if err := g.deregister(ctx); err != nil {
			r.fail(fmt.Errorf("deregister %s: %w", g.addr, err))
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.have, g.addr)
		delete(g.own, g.addr)
	})
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}

func (r *run) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// settle waits until no change is in progress and every consumer has the endpoints of the
// registry.
func (r *run) settle(ctx context.Context) error {
	r.pending.Wait()
	if err := r.failed(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Settle)
	defer cancel()
	want := make(map[*service]set)
	for _, s := range r.services {
		var w set
		for addr := range s.have {
			w.add(addr)
		}
		want[s] = w
	}
	for i, c := range r.consumers {
		if err := c.await(ctx, want[c.service]); err != nil {
			return fmt.Errorf("consumer %d of %s: %w", i, c.service.name, err)
		}
	}
	return nil
}

func (r *run) sample() Sample {
	r.mu.Lock()
	updates := r.updates
	r.mu.Unlock()
	for _, c := range r.consumers {
		c.mu.Lock()
		updates += c.updates
		c.mu.Unlock()
	}
	// Objects in pools survive one collection.
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Sample{Updates: updates, Heap: m.HeapAlloc, Stack: m.StackInuse, Goroutines: runtime.NumGoroutine()}
}

func (r *run) stop() {
	for _, c := range r.consumers {
		r.leave(c)
	}
	r.pending.Wait()
	for _, g := range r.mine {
		_ = g.deregister(context.Background())
	}
}

// set stands for a set of addresses.
type set struct {
	n   int
	sum uint64 // of the hashes, so that the order does not matter
}

var seed = maphash.MakeSeed()

func (s *set) add(addr string) {
	s.n++
	s.sum += maphash.String(seed, addr)
}

type consumer struct {
	service *service
	stop    func()

	mu      sync.Mutex
	given   *sync.Cond // signals a change of have
	have    set        // guarded by mu
	updates int64      // guarded by mu
}

// consume starts the i-th consumer.
func (r *run) consume(i int) error {
	c := &consumer{service: r.services[i%len(r.services)]}
	c.given = sync.NewCond(&c.mu)
	stop, err := r.client.Resolve(c.service.name, func(n int, addr func(int) string) {
		var s set
		for i := range n {
			s.add(addr(i))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.have = s
		c.updates++
		c.given.Broadcast()
	})
	if err != nil {
		return fmt.Errorf("consumer of %s: %w", c.service.name, err)
	}
	c.stop = stop
	if i < len(r.consumers) {
		r.consumers[i] = c
	} else {
		r.consumers = append(r.consumers, c)
	}
	return nil
}

func (r *run) leave(c *consumer) {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates += c.updates
}

// await waits until the consumer has a set.
func (c *consumer) await(ctx context.Context, want set) error {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.given.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.have != want {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("it does not have the registry's set of %[2]d endpoints, but one of %[1]d: %[3]w", c.have.n, want.n, err)
		}
		c.given.Wait()
	}
	return nil
}
