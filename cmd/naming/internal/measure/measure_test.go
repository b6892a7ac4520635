package measure_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/consul"
	"github.com/naming-go/naming/backend/etcd"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/backend/open"
	"github.com/naming-go/naming/cmd/naming/internal/measure"
	"github.com/naming-go/naming/internal/consultest"
	"github.com/naming-go/naming/internal/etcdtest"
)

var small = measure.Options{Registrations: 20, Concurrency: 4, Changes: 10}

// target opens a registry.
func target(t *testing.T, url string) measure.Target {
	t.Helper()
	var m measure.Target
	log := slog.New(slog.DiscardHandler)
	store, done, err := open.Store(t.Context(), url, &open.Options{
		Logger:   log,
		OnEtcd:   func(c *clientv3.Client, o etcd.Options) { m.Raw = measure.Etcd(c, o) },
		OnConsul: func(c *api.Client, o consul.Options) { m.Raw = measure.Consul(c, o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Store, m.Client = store, naming.New(store, &naming.Options{Logger: log})
	t.Cleanup(func() { m.Client.Close(); _ = done() })
	return m
}

// empty checks that the registry has no service.
func empty(t *testing.T, s naming.Store) {
	t.Helper()
	for names, err := range s.Services(t.Context()) {
		if len(names) > 0 || err != nil {
			t.Errorf("the registry has %v, error %v", names, err)
		}
		break
	}
}

// Both ways are measured on every registry, and nothing is left.
func TestRun(t *testing.T) {
	for name, url := range map[string]string{
		"memory": "memory:",
		"etcd":   "etcd://" + etcdtest.Start(t, nil).Members[0].Addr + "?prefix=/naming/",
		"consul": "consul://" + consultest.Start(t, nil).Addr + "?prefix=b-",
	} {
		t.Run(name, func(t *testing.T) {
			m := target(t, url)
			r, err := measure.Run(t.Context(), m, small)
			if err != nil {
				t.Fatal(err)
			}
			for what, p := range map[string]measure.Pair{"registrations": r.Registrations, "p50": r.P50, "p99": r.P99} {
				if p.Naming <= 0 || (p.Raw > 0) != (m.Raw != nil) || (p.Ratio > 0) != (m.Raw != nil) {
					t.Errorf("%s: %+v", what, p)
				}
			}
			if r.P50.Naming > r.P99.Naming {
				t.Errorf("p50 %v is above p99 %v", r.P50.Naming, r.P99.Naming)
			}
			empty(t, m.Store)
		})
	}
}

// Every request may be the last: a measurement that is interrupted in a request, whichever it
// is, leaves nothing, and what it has put is under a lease.
func TestInterruptedAnywhere(t *testing.T) {
	o := measure.Options{Registrations: 2, Concurrency: 1, Changes: 1}
	for at, ended := 1, false; !ended; at++ {
		m := target(t, "memory:")
		ctx, cancel := context.WithCancel(t.Context())
		store := m.Store.(*memory.Store)
		var requests atomic.Int64
		store.RefuseFunc(func(method, _ string) error {
			if (method == "Apply" || method == "Grant") && requests.Add(1) == int64(at) {
				cancel()
			}
			return nil
		})
		m.Store = &leased{store, t}
		_, err := measure.Run(ctx, m, o)
		ended = requests.Load() < int64(at)
		if ended != (err == nil) || err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted in request %d: the error is %v", at, err)
		}
		store.RefuseFunc(nil)
		empty(t, store)
		cancel()
	}
}

// leased is a store that checks that every endpoint is under a lease.
type leased struct {
	*memory.Store
	t *testing.T
}

func (l *leased) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	for _, c := range changes {
		if c.Op == naming.Add && c.Lease == nil {
			l.t.Errorf("%s in %s is under no lease", c.Endpoint.ID, service)
		}
	}
	return l.Store.Apply(ctx, service, changes...)
}

// A measurement that is interrupted, at whichever step, leaves nothing.
func TestInterrupted(t *testing.T) {
	for _, at := range []string{"registrations", "changes"} {
		m := target(t, "memory:")
		ctx, cancel := context.WithCancel(t.Context())
		o := small
		o.Progress = func(what string, done, _ int) {
			if what == at && done == 1 {
				cancel()
			}
		}
		if _, err := measure.Run(ctx, m, o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the error is %v", at, err)
		}
		empty(t, m.Store)
	}
}

func TestInvalid(t *testing.T) {
	m := target(t, "memory:")
	for _, o := range []measure.Options{{}, {Registrations: 1, Concurrency: 1}, {Registrations: 1, Changes: 1}, {Registrations: 1, Concurrency: 1, Changes: 1, Interval: -1},
		{Registrations: measure.Max + 1, Concurrency: 1, Changes: 1}, {Registrations: 1, Concurrency: 1, Changes: 1, Interval: time.Hour}} {
		if _, err := measure.Run(t.Context(), m, o); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%+v: the error is %v", o, err)
		}
	}
}

// The error of a raw client and of a store ends the measurement.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	m := target(t, "memory:")
	m.Raw = &fakeRaw{registerErr: broken}
	if _, err := measure.Run(t.Context(), m, small); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	raw := &fakeRaw{watchErr: broken}
	m.Raw = raw
	if _, err := measure.Run(t.Context(), m, small); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
	if raw.removed != 2 {
		t.Errorf("what the raw client had registered was removed %d times, want 2", raw.removed)
	}
	m.Raw = nil
	m.Store.(*memory.Store).RefuseFunc(func(method, _ string) error {
		if method == "Apply" {
			return naming.ErrPermission
		}
		return nil
	})
	if _, err := measure.Run(t.Context(), m, small); !errors.Is(err, naming.ErrPermission) {
		t.Errorf("the error is %v", err)
	}
}

// fakeRaw is a client that fails.
type fakeRaw struct {
	registerErr, watchErr error
	removed               int
}

func (f *fakeRaw) Register(context.Context, string, int, int) error { return f.registerErr }

func (f *fakeRaw) Remove(context.Context) error { f.removed++; return nil }

func (f *fakeRaw) Watch(context.Context, string, func(string)) error { return f.watchErr }
