// Package cross applies one history of operations to every backend and compares the
// results.
//
// In the mode paced, each operation is followed by a comparison. These must be equal for
// all backends: the class of the error, the endpoints of a list, and the events that a
// watch of the store and a reader of a Client on the store show. At full speed, only the
// classes of the errors and the final state are compared: the endpoints, the names of the
// services, and the sets that the readers have.
//
// Consul makes the changes of a batch one after the other, so that it may show their
// events in several batches. Memory and etcd must show them in one batch. If a batch has
// two changes of one endpoint, or a Registration is closed, the states between may be
// shown or not. The events of such an operation are not compared.
package cross

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/hashicorp/consul/api"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
	"github.com/naming-go/naming/internal/mutant"
)

// mode applies a history to the sides and compares them.
type mode func(ctx context.Context, h *history, sides []*side) (counts, error)

// counts are the numbers of the compared values.
type counts struct{ operations, failed, listed, events, slow int }

// failure is a difference after an operation of a history.
type failure struct {
	index int
	err   error
}

func (f *failure) Error() string { return f.err.Error() }

// TestBackends applies histories to memory, etcd and Consul.
func TestBackends(t *testing.T) {
	t.Setenv("ETCD_CLIENT_DEBUG", "error") // the client warns of every lost lease
	cluster := etcdtest.Start(t, nil)
	agent := consultest.Start(t, nil)
	backends := real(cluster.Client(t), agent.Client(t))
	seeds := 3
	if mutant.Full() {
		seeds = 100
	}
	for _, m := range []struct {
		name string
		mode mode
	}{{"paced", paced}, {"full speed", fullSpeed}} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			var mu sync.Mutex
			var sum counts
			n := 0
			each(t, seeds, 6, func(seed uint64) {
				h := generate(seed)
				c, err := run(t.Context(), m.mode, h, backends)
				if err != nil {
					report(t, m.mode, h, backends, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				n++
				sum.operations += c.operations
				sum.failed += c.failed
				sum.listed += c.listed
				sum.events += c.events
				sum.slow += c.slow
			})
			t.Logf("%d histories on %d backends: %d operations on each, %d of them with an error; %d endpoints listed and %d events compared, without those of %d operations for which the machine was too slow; %v",
				n, len(backends), sum.operations, sum.failed, sum.listed, sum.events, sum.slow, time.Since(started).Round(time.Second))
		})
	}
}

// each calls f for a number of seeds, atOnce of them concurrently. If the environment has
// NAMING_SEED, each calls f for that seed only.
func each(t *testing.T, seeds, atOnce int, f func(seed uint64)) {
	start := rand.Uint64N(1 << 32)
	if s := os.Getenv("NAMING_SEED"); s != "" {
		var err error
		if start, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
		seeds = 1
	}
	t.Logf("seeds %d to %d", start, start+uint64(seeds)-1)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i := uint64(0); i < uint64(seeds) && !t.Failed(); i++ {
		g.Go(func() error { f(start + i); return nil })
	}
	_ = g.Wait() // f reports to t
}

// report fails t with the shortest failing beginning of a history.
func report(t *testing.T, m mode, h *history, backends []backend, err error) {
	t.Helper()
	short, err := shorten(t.Context(), m, h, backends, err)
	t.Errorf("seed %d: %v\nto run this history again: NAMING_SEED=%d go test -run '^%s$' ./internal/cross\nthe history up to the failure: %v", h.seed, err, h.seed, t.Name(), short)
}

// shorten returns the shortest beginning of a history that fails, and its failure.
func shorten(ctx context.Context, m mode, h *history, backends []backend, err error) (*history, error) {
	short := *h
	if f, ok := errors.AsType[*failure](err); ok {
		short.operations = h.operations[:f.index+1]
		return &short, err
	}
	n := sort.Search(len(h.operations), func(n int) bool {
		short.operations = h.operations[:n]
		_, failed := run(ctx, m, &short, backends)
		if failed != nil {
			err = failed
		}
		return failed != nil
	})
	short.operations = h.operations[:n]
	return &short, err
}

// run applies a history to a new store of each backend.
func run(ctx context.Context, m mode, h *history, backends []backend) (counts, error) {
	var sides []*side
	defer func() {
		together(sides, func(s *side) error { s.close(); return nil })
	}()
	for _, b := range backends {
		limited, cancel := context.WithTimeout(ctx, patience)
		s, err := newSide(limited, b, h.services)
		cancel()
		sides = append(sides, s)
		if err != nil {
			return counts{}, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return m(ctx, h, sides)
}

// together calls f for all sides concurrently, and returns the error of each side.
func together(sides []*side, f func(*side) error) []error {
	errs := make([]error, len(sides))
	var wg sync.WaitGroup
	for i, s := range sides {
		wg.Go(func() { errs[i] = f(s) })
	}
	wg.Wait()
	return errs
}

// paced compares the sides after each operation.
func paced(ctx context.Context, h *history, sides []*side) (counts, error) {
	var c counts
	for i, op := range h.operations {
		if i%10 == 0 {
			op.service = all
		}
		if err := c.compareAfter(ctx, op, sides); err != nil {
			return c, &failure{i, fmt.Errorf("operation %d: %s\n%w", i, op.text, err)}
		}
		if i%20 == 0 {
			if err := c.names(ctx, sides); err != nil {
				return c, &failure{i, fmt.Errorf("after operation %d: %w", i, err)}
			}
		}
	}
	if err := c.end(ctx, sides); err != nil {
		return c, &failure{len(h.operations) - 1, fmt.Errorf("at the end: %w", err)}
	}
	return c, nil
}

// compareAfter applies one operation to all sides and compares them.
func (c *counts) compareAfter(ctx context.Context, op operation, sides []*side) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for _, s := range sides {
		s.slow = false
	}
	errs := together(sides, func(s *side) error { return op.do(ctx, s) })
	if err := c.classes(sides, errs); err != nil {
		return err
	}
	if err := c.sets(ctx, op.service, sides); err != nil {
		return err
	}
	return c.same(op, sides)
}

// classes compares the errors of the sides.
func (c *counts) classes(sides []*side, errs []error) error {
	want := class(errs[0])
	for i, s := range sides {
		if got := class(errs[i]); got != want || !expected(got) {
			return fmt.Errorf("error of %s: %v; of %s: %v", sides[0].name, errs[0], s.name, errs[i])
		}
	}
	c.operations++
	if want != classNone {
		c.failed++
	}
	return nil
}

// sets compares the lists of one service or of all services, and waits until the readers
// have the same sets.
func (c *counts) sets(ctx context.Context, service int, sides []*side) error {
	want := make([]set, len(sides[0].subjects))
	for j, sub := range sides[0].subjects {
		lists := make([]set, len(sides))
		for i, err := range together(sides, func(s *side) (err error) {
			i := slices.Index(sides, s)
			if i == 0 || service == all || service == j {
				lists[i], err = s.list(ctx, j)
			}
			return err
		}) {
			if err != nil {
				return fmt.Errorf("list of %s: %q: %w", sides[i].name, sub.name, err)
			}
		}
		want[j] = lists[0]
		for i, s := range sides {
			if lists[i] == nil {
				continue
			}
			if d := diff(lists[i], want[j]); d != "" {
				return fmt.Errorf("list of %s: %q is %s, compared with %s", s.name, sub.name, d, sides[0].name)
			}
			c.listed += len(lists[i])
		}
	}
	return errors.Join(together(sides, func(s *side) error {
		return s.until(ctx, "watch", func() string { return s.differ(want) })
	})...)
}

// same compares the events of an operation.
func (c *counts) same(op operation, sides []*side) error {
	slow := false
	for _, s := range sides {
		slow = slow || s.slow
	}
	if slow {
		c.slow++
	}
	for j, sub := range sides[0].subjects {
		var want []event
		for i, s := range sides {
			ofStore, ofClient, batches := s.subjects[j].events()
			if op.loose || slow {
				continue
			}
			if i == 0 {
				want = ofStore
			}
			if !sameEvents(ofStore, want) {
				return fmt.Errorf("events of %s: %q has %v, compared with %s: %v", s.name, sub.name, ofStore, sides[0].name, want)
			}
			if !sameEvents(ofClient, want) {
				return fmt.Errorf("events of a Client on %s: %q has %v, compared with %s: %v", s.name, sub.name, ofClient, sides[0].name, want)
			}
			if s.batches && batches > 1 {
				return fmt.Errorf("events of %s: %q has %v in %d batches", s.name, sub.name, ofStore, batches)
			}
			c.events += len(ofStore) + len(ofClient)
		}
	}
	return nil
}

// names compares the lists of services.
func (c *counts) names(ctx context.Context, sides []*side) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var want []string
	for i, s := range sides {
		got, err := s.names(ctx)
		if err != nil {
			return fmt.Errorf("services of %s: %w", s.name, err)
		}
		if i == 0 {
			want = got
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("services of %s: %q, compared with %s: %q", s.name, got, sides[0].name, want)
		}
	}
	return nil
}

// fullSpeed compares the sides after the last operation.
func fullSpeed(ctx context.Context, h *history, sides []*side) (counts, error) {
	var c counts
	errs := make([][]error, len(sides))
	together(sides, func(s *side) error {
		i := slices.Index(sides, s)
		for _, op := range h.operations {
			ctx, cancel := context.WithTimeout(ctx, 2*patience)
			err := op.do(ctx, s)
			cancel()
			errs[i] = append(errs[i], err)
			if !expected(class(err)) {
				break // later operations may depend on this one
			}
		}
		return nil
	})
	for n, op := range h.operations {
		now := make([]error, len(sides))
		for i := range sides {
			now[i] = errs[i][n]
		}
		if err := c.classes(sides, now); err != nil {
			return c, &failure{n, fmt.Errorf("operation %d: %s\n%w", n, op.text, err)}
		}
	}
	if err := c.end(ctx, sides); err != nil {
		return c, fmt.Errorf("at the end: %w", err)
	}
	return c, nil
}

// end compares the final state of the sides.
func (c *counts) end(ctx context.Context, sides []*side) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if err := c.sets(ctx, all, sides); err != nil {
		return err
	}
	if err := c.names(ctx, sides); err != nil {
		return err
	}
	// A program that watches a service sees the same set.
	for _, s := range sides {
		for j, sub := range s.subjects {
			var view set
			for v, err := range s.client.Watch(ctx, sub.name) {
				if err != nil {
					return fmt.Errorf("view of %s: %w", s.name, err)
				}
				view.applyBatch(naming.Batch{Put: v.Endpoints})
				break
			}
			if d := diff(view, sides[0].subjects[j].set); d != "" {
				return fmt.Errorf("view of %s: %q is %s", s.name, sub.name, d)
			}
		}
	}
	return nil
}

var opened atomic.Int64

// inMemory returns the backend of package memory.
func inMemory(ttl, patience time.Duration) backend {
	return backend{"memory", true, func() (store, other naming.Store) { return new(memory.Store), new(memory.Store) }, ttl, patience}
}

// real returns the backends. The others are compared with the first.
func real(etcdClient *clientv3.Client, consulClient *api.Client) []backend {
	const ttl = 3 * time.Second // the minimum of etcd is two
	return []backend{
		inMemory(ttl, patience),
		{"etcd", true, func() (store, other naming.Store) {
			prefix := fmt.Sprintf("/history/%d/", opened.Add(1))
			return etcd.New(etcdClient, &etcd.Options{Prefix: prefix}), etcd.New(etcdClient, &etcd.Options{Prefix: prefix})
		}, ttl, patience},
		{"consul", false, func() (store, other naming.Store) {
			prefix := fmt.Sprintf("history%d.", opened.Add(1))
			return consul.New(consulClient, &consul.Options{Prefix: prefix}), consul.New(consulClient, &consul.Options{Prefix: prefix})
		}, ttl, patience},
	}
}
