package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
)

// probe is the ID of the endpoint that changes.
const probe = "probe"

// seenTimeout bounds the time until a change is seen.
const seenTimeout = 30 * time.Second

// sight is that a watch shows an address.
type sight struct {
	addr string
	at   time.Time
}

// watcher follows the probe.
type watcher struct {
	sights chan sight
	delays []time.Duration
}

func newWatcher() *watcher { return &watcher{sights: make(chan sight, 64)} }

// see returns a function that reports what a watch shows.
func (w *watcher) see(ctx context.Context) func(string) {
	return func(addr string) {
		select {
		case w.sights <- sight{addr, time.Now()}:
		case <-ctx.Done():
		}
	}
}

// wait waits until the watch shows an address, and returns when it did.
func (w *watcher) wait(ctx context.Context, addr string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	for {
		select {
		case s := <-w.sights:
			if s.addr == addr {
				return s.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// propagation measures how long a change takes to a watch. Both watches follow the same
// changes.
func (m *measurement) propagation(ctx context.Context) (p50, p99 Pair, err error) {
	service := m.name + "-probe"
	lease, err := m.Store.Grant(ctx, probeTTL)
	if err != nil {
		return p50, p99, err
	}
	defer func() { err = errors.Join(err, cleanUp(ctx, lease.Revoke)) }()
	g, gctx := errgroup.WithContext(ctx)
	watchCtx, stop := context.WithCancel(gctx)
	ours, raw := newWatcher(), newWatcher()
	watchers := []*watcher{ours}
	g.Go(func() error { return ended(watchCtx, m.follow(watchCtx, service, ours.see(watchCtx))) })
	if m.Raw != nil {
		watchers = append(watchers, raw)
		g.Go(func() error { return ended(watchCtx, m.Raw.Watch(watchCtx, service, raw.see(watchCtx))) })
	}
	g.Go(func() error {
		defer stop()
		return m.change(watchCtx, service, lease, watchers)
	})
	if err := g.Wait(); err != nil {
		return p50, p99, err
	}
	return pair(quantile(ours.delays, 0.5), quantile(raw.delays, 0.5)), pair(quantile(ours.delays, 0.99), quantile(raw.delays, 0.99)), nil
}

// ended returns the error of a watch, unless ctx has ended the watch.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow watches a service with the Client.
func (m *measurement) follow(ctx context.Context, service string, seen func(string)) error {
	for v, err := range m.Client.Watch(ctx, service) {
		if err != nil {
			return err
		}
		for _, e := range v.Endpoints {
			if e.ID == probe {
				seen(e.Addr)
			}
		}
	}
	return ctx.Err()
}

// change changes the probe and waits for all watchers each time. The first change is not
// counted: the watches may only start with it. The lease is renewed between two changes.
func (m *measurement) change(ctx context.Context, service string, lease naming.Lease, watchers []*watcher) error {
	renewed := time.Now()
	for i := range m.opts.Changes + 1 {
		m.opts.Progress("changes", i, m.opts.Changes)
		if time.Since(renewed) > lease.TTL()/3 {
			if err := lease.Renew(ctx); err != nil {
				return err
			}
			renewed = time.Now()
		}
		e := naming.Endpoint{ID: probe, Addr: addr(i)}
		begin := time.Now()
		if err := m.put(ctx, service, naming.Change{Endpoint: e, Lease: lease}); err != nil {
			return err
		}
		for _, w := range watchers {
			at, err := w.wait(ctx, e.Addr)
			if err != nil {
				return fmt.Errorf("change %d was not seen: %w", i, err)
			}
			if i > 0 {
				w.delays = append(w.delays, at.Sub(begin))
			}
		}
		select {
		case <-time.After(m.opts.Interval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (m *measurement) put(ctx context.Context, service string, c naming.Change) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return m.Store.Apply(ctx, service, c)
}

// quantile returns a quantile of delays, in milliseconds.
func quantile(delays []time.Duration, q float64) float64 {
	if len(delays) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(delays))
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[i]) / float64(time.Millisecond)
}
