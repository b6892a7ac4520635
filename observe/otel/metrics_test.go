package otelnaming_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	otelnaming "github.com/naming-go/naming/observe/otel"
	"github.com/naming-go/naming/resolver"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

var errTest = errors.New("error of the test")

// meter is a meter provider and its reader.
type meter struct {
	*sdkmetric.MeterProvider
	reader *sdkmetric.ManualReader
}

func newMeter(views ...sdkmetric.View) meter {
	r := sdkmetric.NewManualReader()
	return meter{sdkmetric.NewMeterProvider(sdkmetric.WithReader(r), sdkmetric.WithResource(resource.Empty()), sdkmetric.WithView(views...)), r}
}

// read returns everything that is reported, one line for each series, sorted.
func (m meter) read() (list []string) {
	for md := range m.metrics() {
		switch data := md.Data.(type) {
		case metricdata.Sum[int64]:
			list = append(list, lines(md.Name, data.DataPoints)...)
		case metricdata.Gauge[int64]:
			list = append(list, lines(md.Name, data.DataPoints)...)
		case metricdata.Gauge[float64]:
			list = append(list, lines(md.Name, data.DataPoints)...)
		default:
			panic(fmt.Sprintf("%s has %T", md.Name, md.Data))
		}
	}
	slices.Sort(list)
	return list
}

func (m meter) metrics() iter.Seq[metricdata.Metrics] {
	return func(yield func(metricdata.Metrics) bool) {
		var all metricdata.ResourceMetrics
		if err := m.reader.Collect(context.Background(), &all); err != nil {
			panic(err)
		}
		for _, scope := range all.ScopeMetrics {
			if scope.Scope.Name != otelnaming.ScopeName {
				panic("unexpected scope " + scope.Scope.Name)
			}
			for _, md := range scope.Metrics {
				if !yield(md) {
					return
				}
			}
		}
	}
}

func lines[N int64 | float64](name string, points []metricdata.DataPoint[N]) (list []string) {
	for _, p := range points {
		var attrs []string
		for _, kv := range p.Attributes.ToSlice() {
			attrs = append(attrs, string(kv.Key)+"="+kv.Value.String())
		}
		list = append(list, fmt.Sprintf("%s{%s} %v", name, strings.Join(attrs, " "), p.Value))
	}
	return list
}

// only returns the lines of metrics whose names begin with one of prefixes.
func only(list []string, prefixes ...string) []string {
	return slices.DeleteFunc(list, func(line string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	})
}

// uncounted replaces the number of failed attempts to register by "some". The client
// makes the attempts at random times.
func uncounted(list []string) []string {
	for i, line := range list {
		series, count, _ := strings.Cut(line, "} ")
		if strings.HasPrefix(series, "naming.endpoint.registration.failures{") && count != "0" {
			list[i] = series + "} some"
		}
	}
	return list
}

// compare compares lines with a text.
func compare(t *testing.T, when string, got []string, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("%s:\n%s\nwant:\n%s", when, strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func newMetrics(t testing.TB, opts *otelnaming.Options) *otelnaming.Metrics {
	t.Helper()
	m, err := otelnaming.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newClient(store naming.Store, hooks *naming.Hooks) *naming.Client {
	return naming.New(store, &naming.Options{Logger: quiet, Hooks: hooks})
}

func register(t *testing.T, c *naming.Client, service string, ttl time.Duration, addrs ...string) (list []*naming.Registration) {
	t.Helper()
	for _, addr := range addrs {
		g, err := c.Register(context.Background(), service, naming.Endpoint{Addr: addr}, &naming.RegisterOptions{TTL: ttl, Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, g)
	}
	return list
}

// apply makes changes on behalf of another program.
func apply(t *testing.T, store *memory.Store, service string, op naming.Operation, addrs ...string) {
	t.Helper()
	var changes []naming.Change
	for _, addr := range addrs {
		changes = append(changes, naming.Change{Op: op, Endpoint: naming.Endpoint{Addr: addr}})
	}
	if err := store.Apply(context.Background(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

// TestStory makes everything happen that a hook reports, and reads all metrics after
// each event.
func TestStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		check := func(when, want string) {
			t.Helper()
			synctest.Wait()
			compare(t, when, uncounted(meter.read()), want)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var reader sync.WaitGroup
		defer reader.Wait()
		defer cancel()
		reader.Go(func() {
			for range c.Watch(ctx, "batch") {
			}
		})

		check("in the beginning", `
			naming.watch.stale{} 0`)

		registrations := register(t, c, "greeter", time.Hour, "a:1", "b:1", "c:1")
		check("registered", `
			naming.endpoint.registered{naming.service.name=greeter} 3
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.watch.stale{} 0`)

		store.Wipe()
		check("wiped", `
			naming.endpoint.held{naming.service.name=greeter} 3
			naming.endpoint.holds{naming.service.name=greeter} 3
			naming.endpoint.losses{error.type=deleted naming.service.name=greeter} 3
			naming.endpoint.registered{naming.service.name=greeter} 0
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.watch.stale{} 0`)

		time.Sleep(time.Minute)
		// Each registration tries its old lease first and fails.
		check("registered again", `
			naming.endpoint.held{naming.service.name=greeter} 0
			naming.endpoint.holds{naming.service.name=greeter} 3
			naming.endpoint.losses{error.type=deleted naming.service.name=greeter} 3
			naming.endpoint.registered{naming.service.name=greeter} 3
			naming.endpoint.registration.failures{error.type=lease_lost naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=greeter} 3
			naming.endpoint.releases{naming.release.reason=back naming.service.name=greeter} 3
			naming.watch.stale{} 0`)

		// The delay keeps the new watches from beginning before the story goes on.
		store.Break(fmt.Errorf("the token is old: %w", naming.ErrPermission))
		apply(t, store, "greeter", naming.Add, "d:1")
		apply(t, store, "batch", naming.Add, "e:1", "f:1", "g:1", "h:1")
		store.Delay(time.Minute)
		time.Sleep(20 * time.Second)
		outage := `
			naming.endpoint.held{naming.service.name=greeter} 0
			naming.endpoint.holds{naming.service.name=greeter} 3
			naming.endpoint.losses{error.type=deleted naming.service.name=greeter} 3
			naming.endpoint.registered{naming.service.name=greeter} 3
			naming.endpoint.registration.failures{error.type=lease_lost naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=greeter} 3
			naming.endpoint.releases{naming.release.reason=back naming.service.name=greeter} 3
			naming.watch.failures{error.type=permission_denied naming.service.name=batch} 1
			naming.watch.failures{error.type=permission_denied naming.service.name=greeter} 1
			naming.watch.stale{} 2
			naming.watch.staleness{naming.service.name=batch} %[1]d
			naming.watch.staleness{naming.service.name=greeter} %[1]d`
		check("20 seconds into an outage", fmt.Sprintf(outage, 20))
		time.Sleep(30 * time.Second)
		check("50 seconds into an outage", fmt.Sprintf(outage, 50))

		store.Delay(0)
		time.Sleep(time.Minute)
		check("fresh again", `
			naming.endpoint.held{naming.service.name=greeter} 0
			naming.endpoint.holds{naming.service.name=greeter} 3
			naming.endpoint.losses{error.type=deleted naming.service.name=greeter} 3
			naming.endpoint.registered{naming.service.name=greeter} 3
			naming.endpoint.registration.failures{error.type=lease_lost naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=greeter} 3
			naming.endpoint.releases{naming.release.reason=back naming.service.name=greeter} 3
			naming.watch.failures{error.type=permission_denied naming.service.name=batch} 1
			naming.watch.failures{error.type=permission_denied naming.service.name=greeter} 1
			naming.watch.resync.changes{naming.service.name=batch} 4
			naming.watch.resync.changes{naming.service.name=greeter} 1
			naming.watch.resyncs{naming.service.name=batch} 1
			naming.watch.resyncs{naming.service.name=greeter} 1
			naming.watch.stale{} 0`)

		apply(t, store, "batch", naming.Delete, "e:1", "f:1", "g:1", "h:1")
		synctest.Wait()
		compare(t, "vanished", only(meter.read(), "naming.endpoint.held"), `
			naming.endpoint.held{naming.service.name=batch} 4
			naming.endpoint.held{naming.service.name=greeter} 0`)
		time.Sleep(10 * time.Minute)
		if err := registrations[0].Close(); err != nil {
			t.Fatal(err)
		}
		check("one closed", `
			naming.endpoint.held{naming.service.name=batch} 0
			naming.endpoint.held{naming.service.name=greeter} 0
			naming.endpoint.holds{naming.service.name=batch} 4
			naming.endpoint.holds{naming.service.name=greeter} 3
			naming.endpoint.losses{error.type=deleted naming.service.name=greeter} 3
			naming.endpoint.registered{naming.service.name=greeter} 2
			naming.endpoint.registration.failures{error.type=lease_lost naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 3
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=greeter} 3
			naming.endpoint.releases{naming.release.reason=back naming.service.name=greeter} 3
			naming.endpoint.releases{naming.release.reason=expired naming.service.name=batch} 4
			naming.endpoint.withdrawals{naming.service.name=greeter} 1
			naming.watch.failures{error.type=permission_denied naming.service.name=batch} 1
			naming.watch.failures{error.type=permission_denied naming.service.name=greeter} 1
			naming.watch.resync.changes{naming.service.name=batch} 4
			naming.watch.resync.changes{naming.service.name=greeter} 1
			naming.watch.resyncs{naming.service.name=batch} 1
			naming.watch.resyncs{naming.service.name=greeter} 1
			naming.watch.stale{} 0`)

		store.Refuse(errTest)
		c.Close()
		compare(t, "closed", only(uncounted(meter.read()), "naming.endpoint.registered", "naming.endpoint.registration.", "naming.endpoint.withdrawals"), `
			naming.endpoint.registered{naming.service.name=greeter} 0
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} some
			naming.endpoint.registration.failures{error.type=lease_lost naming.service.name=greeter} some
			naming.endpoint.withdrawals{naming.service.name=greeter} 1
			naming.endpoint.withdrawals{error.type=_OTHER naming.service.name=greeter} 2`)
	})
}

// TestServices asserts that the list of services is a watch without the name of a
// service.
func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		var reader sync.WaitGroup
		defer reader.Wait()
		defer c.Close()
		reader.Go(func() {
			for range c.Services(context.Background()) {
			}
		})
		synctest.Wait()
		store.Break(errTest)
		apply(t, store, "greeter", naming.Add, "a:1")
		store.Delay(time.Minute)
		time.Sleep(30 * time.Second)
		compare(t, "broken", meter.read(), `
			naming.watch.failures{error.type=_OTHER} 1
			naming.watch.stale{} 1
			naming.watch.staleness{} 30`)
		time.Sleep(time.Minute)
		compare(t, "fresh again", meter.read(), `
			naming.watch.failures{error.type=_OTHER} 1
			naming.watch.resync.changes{} 1
			naming.watch.resyncs{} 1
			naming.watch.stale{} 0`)
	})
}

// TestServicesChange asserts that a change of the list of services is not counted as a
// resync, although the store delivers the whole list each time.
func TestServicesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		var reader sync.WaitGroup
		defer reader.Wait()
		defer c.Close()
		var last []string
		reader.Go(func() {
			for names, err := range c.Services(context.Background()) {
				if err == nil {
					last = names
				}
			}
		})
		synctest.Wait()
		for _, name := range []string{"a", "b", "c"} {
			apply(t, store, name, naming.Add, "a:1")
			time.Sleep(time.Minute)
		}
		apply(t, store, "a", naming.Delete, "a:1")
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(last, []string{"b", "c"}) {
			t.Errorf("services: %v", last)
		}
		compare(t, "changed", meter.read(), "naming.watch.stale{} 0")
	})
}

// TestRegisterFailed makes the store refuse some calls, and asserts that each refusal
// counts as a failed attempt.
func TestRegisterFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		var mu sync.Mutex
		var refused map[string][]error // by method
		store.RefuseFunc(func(method, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			list := refused[method]
			if len(list) == 0 {
				return nil
			}
			refused[method] = list[1:]
			return list[0]
		})
		refuse := func(list map[string][]error) {
			mu.Lock()
			defer mu.Unlock()
			refused = list
		}
		check := func(when, want string) {
			t.Helper()
			compare(t, when, only(meter.read(), "naming.endpoint.losses", "naming.endpoint.registered", "naming.endpoint.registration"), want)
		}
		c := newClient(store, m.Hooks())
		defer c.Close()

		refuse(map[string][]error{
			"Grant": {naming.ErrPermission, errTest},
			"Apply": {naming.ErrPermission, context.DeadlineExceeded, errTest},
		})
		registrations := register(t, c, "greeter", time.Hour, "a:1")
		check("registered", `
			naming.endpoint.registered{naming.service.name=greeter} 1
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} 2
			naming.endpoint.registration.failures{error.type=permission_denied naming.service.name=greeter} 2
			naming.endpoint.registration.failures{error.type=timeout naming.service.name=greeter} 1
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 1`)

		refuse(map[string][]error{"Apply": {errTest, errTest}})
		if err := registrations[0].Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		check("draining", `
			naming.endpoint.registered{naming.service.name=greeter} 1
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} 4
			naming.endpoint.registration.failures{error.type=permission_denied naming.service.name=greeter} 2
			naming.endpoint.registration.failures{error.type=timeout naming.service.name=greeter} 1
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 1`)
	})
}

// TestDown starts a process while the registry is down.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		store.Down(errTest)
		c := newClient(store, m.Hooks())
		defer c.Close()
		g, err := c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "a:1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		compare(t, "down", only(uncounted(meter.read()), "naming.endpoint.", "naming.watch.stale"), `
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} some
			naming.watch.stale{} 1
			naming.watch.staleness{naming.service.name=greeter} 3600`)
		store.Up()
		if err := g.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		compare(t, "up", only(uncounted(meter.read()), "naming.endpoint."), `
			naming.endpoint.registered{naming.service.name=greeter} 1
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 1`)
	})
}

// TestWatchEnds ends the watch of a service during an outage. The service is then
// neither stale nor held.
func TestWatchEnds(t *testing.T) {
	const grace = 10 * time.Minute
	for _, c := range []struct {
		name  string
		grace time.Duration
		leave bool          // the last reader leaves
		after time.Duration // that is still the same
		close bool          // the Client is closed then
	}{
		{name: "last reader leaves, no grace", grace: -1, leave: true},
		{name: "grace period is over", grace: grace, leave: true, after: grace - time.Second},
		{name: "closed with readers", grace: grace, after: time.Hour, close: true},
		{name: "closed in the grace period", grace: grace, leave: true, after: grace / 2, close: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meter := newMeter()
				m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
				store := new(memory.Store)
				r := naming.New(store, &naming.Options{
					Logger: quiet, Hooks: m.Hooks(), IdleGrace: c.grace, Hold: naming.Hold{MaxDuration: 24 * time.Hour},
				})
				check := func(when, want string) {
					t.Helper()
					synctest.Wait()
					compare(t, when, only(meter.read(), "naming.endpoint.", "naming.watch.stale", "naming.watch.resync"), want)
				}
				ctx, leave := context.WithCancel(context.Background())
				var readers sync.WaitGroup
				defer readers.Wait()
				defer leave()
				defer r.Close()
				read := func() {
					readers.Go(func() {
						for range r.Watch(ctx, "greeter") {
						}
					})
					readers.Go(func() {
						for range r.Services(ctx) {
						}
					})
					synctest.Wait()
				}

				apply(t, store, "greeter", naming.Add, "a:1", "b:1", "c:1")
				read()
				apply(t, store, "greeter", naming.Delete, "a:1", "b:1", "c:1")
				synctest.Wait()
				store.Down(errTest)
				outage := `
					naming.endpoint.held{naming.service.name=greeter} 3
					naming.endpoint.holds{naming.service.name=greeter} 3
					naming.watch.stale{} 2
					naming.watch.staleness{naming.service.name=greeter} %[1]v
					naming.watch.staleness{} %[1]v`
				check("down", fmt.Sprintf(outage, 0))

				if c.leave {
					leave()
				}
				if c.after > 0 {
					time.Sleep(c.after)
					check("still watched", fmt.Sprintf(outage, c.after.Seconds()))
				}
				if c.close {
					r.Close()
				} else {
					time.Sleep(time.Minute)
				}
				ended := `
					naming.endpoint.held{naming.service.name=greeter} 0
					naming.endpoint.holds{naming.service.name=greeter} 3
					naming.endpoint.releases{naming.release.reason=expired naming.service.name=greeter} 3
					naming.watch.stale{} %d`
				check("ended", fmt.Sprintf(ended, 0))
				if c.close {
					return
				}

				// A later watch starts without endpoints, so it holds none.
				ctx, leave = context.WithCancel(context.Background())
				defer leave()
				read()
				check("watched again", fmt.Sprintf(ended, 2)+`
					naming.watch.staleness{naming.service.name=greeter} 0
					naming.watch.staleness{} 0`)
				store.Up()
				time.Sleep(time.Minute)
				check("up", fmt.Sprintf(ended, 0))
				r.Close()
				check("closed", fmt.Sprintf(ended, 0))
			})
		})
	}
}

// TestLosses makes the registry lose an endpoint in every way that the metrics
// distinguish.
func TestLosses(t *testing.T) {
	const ttl = 15 * time.Second
	for _, c := range []struct {
		name  string
		lose  func(*memory.Store)
		after time.Duration
		want  string
	}{
		{"deleted", func(s *memory.Store) {
			_ = s.Apply(context.Background(), "greeter", naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "a:1"}})
		}, time.Second, "deleted"},
		{"lease lost", func(s *memory.Store) {
			s.RefuseFunc(func(method, _ string) error {
				if method == "Renew" {
					return nil
				}
				return errTest
			})
			s.Break(errTest)
			s.ExpireAll()
		}, time.Minute, "lease_lost"},
		{"refused", func(s *memory.Store) {
			s.Down(fmt.Errorf("expired: %w", naming.ErrPermission))
		}, time.Minute, "permission_denied"},
		{"silence", func(s *memory.Store) { s.Silence() }, time.Minute, "timeout"},
		{"down", func(s *memory.Store) { s.Down(errTest) }, 24 * time.Hour, "_OTHER"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				meter := newMeter()
				m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
				store := new(memory.Store)
				r := newClient(store, m.Hooks())
				defer r.Close()
				register(t, r, "greeter", ttl, "a:1")
				synctest.Wait() // the watch must be there to report the deletion
				c.lose(store)
				time.Sleep(c.after)
				compare(t, "lost", only(meter.read(), "naming.endpoint.losses"),
					"naming.endpoint.losses{error.type="+c.want+" naming.service.name=greeter} 1")
				store.Speak()
				store.Up()
				time.Sleep(time.Minute)
				compare(t, "again", only(meter.read(), "naming.endpoint.registered"),
					"naming.endpoint.registered{naming.service.name=greeter} 1")
			})
		})
	}
}

// clientConn is a ClientConn that ignores everything.
type clientConn struct{ grpcresolver.ClientConn }

func (clientConn) UpdateState(grpcresolver.State) error                 { return nil }
func (clientConn) ReportError(error)                                    {}
func (clientConn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

// TestMalformed counts the entries that the store reports.
func TestMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := &memory.Store{OnMalformed: m.Malformed}
		c := newClient(store, m.Hooks())
		defer c.Close()
		go func() {
			for range c.Watch(t.Context(), "greeter") {
			}
		}()
		synctest.Wait()
		store.PutMalformed("greeter", "a", errTest)
		synctest.Wait()
		store.PutMalformed("greeter", "b", errTest)
		synctest.Wait()
		compare(t, "two entries", meter.read(), `
			naming.watch.malformed.entries{naming.service.name=greeter} 2
			naming.watch.stale{} 0`)
	})
}

func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		defer c.Close()
		apply(t, store, "greeter", naming.Add, "a:1", "b:1")
		b := resolver.NewBuilder(c, nil)
		g, err := b.Build(grpcresolver.Target{URL: url.URL{Scheme: b.Scheme(), Path: "/greeter"}}, clientConn{}, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		check := func(when, want string) {
			t.Helper()
			time.Sleep(time.Minute) // the resolver batches changes
			compare(t, when, only(meter.read(), "naming.resolver."), want)
		}
		check("two", `
			naming.resolver.addresses{naming.service.name=greeter} 2
			naming.resolver.updates{naming.service.name=greeter} 1`)
		apply(t, store, "greeter", naming.Add, "c:1")
		check("three", `
			naming.resolver.addresses{naming.service.name=greeter} 3
			naming.resolver.updates{naming.service.name=greeter} 2`)
		apply(t, store, "greeter", naming.Delete, "a:1")
		check("two again", `
			naming.resolver.addresses{naming.service.name=greeter} 2
			naming.resolver.updates{naming.service.name=greeter} 3`)
	})
}

// TestClose asserts that Close ends the observation, also of gauges that the hooks do
// not reset, and that the counters stay and go on counting.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		register(t, c, "greeter", time.Hour, "a:1")
		m.Hooks().Published(naming.PublishedInfo{Service: "greeter", Addresses: 1})
		store.Down(errTest)
		synctest.Wait()
		c.Close()
		counted := `
			naming.endpoint.registration.failures{error.type=_OTHER naming.service.name=greeter} some
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 1
			naming.endpoint.withdrawals{error.type=_OTHER naming.service.name=greeter} 1
			naming.resolver.updates{naming.service.name=greeter} 1`
		compare(t, "the Client is closed", only(uncounted(meter.read()), "naming.endpoint.", "naming.watch.stale", "naming.resolver."), counted+`
			naming.endpoint.registered{naming.service.name=greeter} 0
			naming.resolver.addresses{naming.service.name=greeter} 1
			naming.watch.stale{} 0`)
		for range 2 {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
		compare(t, "closed", only(uncounted(meter.read()), "naming.endpoint.", "naming.watch.stale", "naming.resolver."), counted)
		m.Hooks().Registered(naming.RegisteredInfo{Service: "other", Endpoint: naming.Endpoint{ID: "b:1"}})
		compare(t, "counted later", only(meter.read(), "naming.endpoint.registered", "naming.endpoint.registrations"), `
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=greeter} 1
			naming.endpoint.registrations{naming.registration.again=false naming.service.name=other} 1`)
	})
}

// TestRegisteredByID asserts that an endpoint of two registrations counts once, and
// that the withdrawal of an unregistered endpoint changes nothing.
func TestRegisteredByID(t *testing.T) {
	meter := newMeter()
	h := newMetrics(t, &otelnaming.Options{MeterProvider: meter}).Hooks()
	a, b := naming.Endpoint{ID: "a"}, naming.Endpoint{ID: "b"}
	check := func(when string, want int) {
		t.Helper()
		compare(t, when, only(meter.read(), "naming.endpoint.registered"), fmt.Sprintf("naming.endpoint.registered{naming.service.name=s} %d", want))
	}
	h.Withdrawn(naming.WithdrawnInfo{Service: "s", Endpoint: b})
	h.Registered(naming.RegisteredInfo{Service: "s", Endpoint: a})
	check("one", 1)
	h.Registered(naming.RegisteredInfo{Service: "s", Endpoint: a})
	check("a predecessor", 1)
	h.Withdrawn(naming.WithdrawnInfo{Service: "s", Endpoint: a})
	check("the predecessor is closed", 1)
	h.Lost(naming.LostInfo{Service: "s", Endpoint: a, Err: errTest})
	check("lost", 0)
	h.Withdrawn(naming.WithdrawnInfo{Service: "s", Endpoint: a})
	check("closed while lost", 0)
	h.Registered(naming.RegisteredInfo{Service: "s", Endpoint: b})
	check("another", 1)
}

// TestReleaseBeforeHold asserts that hooks which overtake each other give the same
// result in the end.
func TestReleaseBeforeHold(t *testing.T) {
	meter := newMeter()
	h := newMetrics(t, &otelnaming.Options{MeterProvider: meter}).Hooks()
	list := []naming.Endpoint{{ID: "a"}, {ID: "b"}}
	h.Held(naming.HeldInfo{Service: "s", Endpoints: list})
	h.Released(naming.ReleasedInfo{Service: "s", Endpoints: list, Back: true})
	h.Released(naming.ReleasedInfo{Service: "s", Endpoints: list})
	compare(t, "overtaken", only(meter.read(), "naming.endpoint.held"), "naming.endpoint.held{naming.service.name=s} 0")
	h.Held(naming.HeldInfo{Service: "s", Endpoints: list})
	compare(t, "in the end", only(meter.read(), "naming.endpoint.held"), "naming.endpoint.held{naming.service.name=s} 0")
}

func TestOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		var all []*naming.Hooks
		for _, name := range []string{"x", "y"} {
			all = append(all, newMetrics(t, &otelnaming.Options{
				MeterProvider: meter,
				Attributes:    []attribute.KeyValue{attribute.String("registry", name)},
				ErrorType:     func(err error) string { return err.Error() + " " + name },
			}).Hooks())
		}
		for i, h := range all {
			h.Registered(naming.RegisteredInfo{Service: "s", Endpoint: naming.Endpoint{ID: "a"}, Again: true})
			h.Lost(naming.LostInfo{Service: "s", Endpoint: naming.Endpoint{ID: "a"}, Err: errors.New("gone")})
			h.RegisterFailed(naming.RegisterFailedInfo{Service: "s", Endpoint: naming.Endpoint{ID: "a"}, Err: errors.New("refused")})
			h.Withdrawn(naming.WithdrawnInfo{Service: "s", Endpoint: naming.Endpoint{ID: "a"}})
			h.WatchFailed(naming.WatchFailedInfo{Service: "", Err: errors.New("broken")})
			h.Stale(naming.StaleInfo{Service: "s", Since: time.Now().Add(-time.Duration(i+1) * time.Second)})
			h.Resynced(naming.ResyncedInfo{Service: "s", Changed: i})
			h.Held(naming.HeldInfo{Service: "s", Endpoints: make([]naming.Endpoint, i+1)})
			h.Released(naming.ReleasedInfo{Service: "s", Endpoints: make([]naming.Endpoint, 1), Back: true})
			h.Published(naming.PublishedInfo{Service: "s", Addresses: 10 + i})
		}
		compare(t, "two registries", meter.read(), `
			naming.endpoint.held{naming.service.name=s registry=x} 0
			naming.endpoint.held{naming.service.name=s registry=y} 1
			naming.endpoint.holds{naming.service.name=s registry=x} 1
			naming.endpoint.holds{naming.service.name=s registry=y} 2
			naming.endpoint.losses{error.type=gone x naming.service.name=s registry=x} 1
			naming.endpoint.losses{error.type=gone y naming.service.name=s registry=y} 1
			naming.endpoint.registered{naming.service.name=s registry=x} 0
			naming.endpoint.registered{naming.service.name=s registry=y} 0
			naming.endpoint.registration.failures{error.type=refused x naming.service.name=s registry=x} 1
			naming.endpoint.registration.failures{error.type=refused y naming.service.name=s registry=y} 1
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=s registry=x} 1
			naming.endpoint.registrations{naming.registration.again=true naming.service.name=s registry=y} 1
			naming.endpoint.releases{naming.release.reason=back naming.service.name=s registry=x} 1
			naming.endpoint.releases{naming.release.reason=back naming.service.name=s registry=y} 1
			naming.endpoint.withdrawals{naming.service.name=s registry=x} 1
			naming.endpoint.withdrawals{naming.service.name=s registry=y} 1
			naming.resolver.addresses{naming.service.name=s registry=x} 10
			naming.resolver.addresses{naming.service.name=s registry=y} 11
			naming.resolver.updates{naming.service.name=s registry=x} 1
			naming.resolver.updates{naming.service.name=s registry=y} 1
			naming.watch.failures{error.type=broken x registry=x} 1
			naming.watch.failures{error.type=broken y registry=y} 1
			naming.watch.resync.changes{naming.service.name=s registry=x} 0
			naming.watch.resync.changes{naming.service.name=s registry=y} 1
			naming.watch.resyncs{naming.service.name=s registry=x} 1
			naming.watch.resyncs{naming.service.name=s registry=y} 1
			naming.watch.stale{registry=x} 1
			naming.watch.stale{registry=y} 1
			naming.watch.staleness{naming.service.name=s registry=x} 1
			naming.watch.staleness{naming.service.name=s registry=y} 2`)
	})
}

// TestGlobalProvider asserts that New uses the global meter provider by default.
func TestGlobalProvider(t *testing.T) {
	meter, before := newMeter(), otel.GetMeterProvider()
	otel.SetMeterProvider(meter.MeterProvider)
	defer otel.SetMeterProvider(before)
	newMetrics(t, nil)
	compare(t, "reported", meter.read(), "naming.watch.stale{} 0")
}

// TestView asserts that a view can drop the name of the service, as the documentation
// says. The counts are then the sums of all services.
func TestView(t *testing.T) {
	meter := newMeter(sdkmetric.NewView(
		sdkmetric.Instrument{Name: "naming.endpoint.*"},
		sdkmetric.Stream{AttributeFilter: attribute.NewDenyKeysFilter(otelnaming.ServiceNameKey)},
	))
	h := newMetrics(t, &otelnaming.Options{MeterProvider: meter}).Hooks()
	for _, name := range []string{"a", "b", "c"} {
		h.Registered(naming.RegisteredInfo{Service: name, Endpoint: naming.Endpoint{ID: "x"}})
	}
	compare(t, "without names", only(meter.read(), "naming.endpoint."), `
		naming.endpoint.registered{} 3
		naming.endpoint.registrations{naming.registration.again=false} 3`)
}

// TestInstruments asserts the names, units and kinds of all instruments.
func TestInstruments(t *testing.T) {
	meter := newMeter()
	m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
	fill(m.Hooks())
	m.Malformed(&naming.MalformedError{Service: "s", Err: errTest})
	var got []string
	for md := range meter.metrics() {
		kind := "gauge"
		if sum, ok := md.Data.(metricdata.Sum[int64]); ok {
			kind = "updowncounter"
			if sum.IsMonotonic {
				kind = "counter"
			}
		}
		if !strings.HasSuffix(md.Description, ".") {
			t.Errorf("%s: description %q", md.Name, md.Description)
		}
		got = append(got, fmt.Sprintf("%s %s %s", md.Name, md.Unit, kind))
	}
	slices.Sort(got)
	compare(t, "instruments", got, `
		naming.endpoint.held {endpoint} updowncounter
		naming.endpoint.holds {hold} counter
		naming.endpoint.losses {loss} counter
		naming.endpoint.registered {endpoint} updowncounter
		naming.endpoint.registration.failures {failure} counter
		naming.endpoint.registrations {registration} counter
		naming.endpoint.releases {release} counter
		naming.endpoint.withdrawals {withdrawal} counter
		naming.endpoint.withheld {endpoint} updowncounter
		naming.resolver.addresses {address} gauge
		naming.resolver.updates {update} counter
		naming.watch.failures {failure} counter
		naming.watch.malformed.entries {entry} counter
		naming.watch.resync.changes {change} counter
		naming.watch.resyncs {resync} counter
		naming.watch.stale {watch} updowncounter
		naming.watch.staleness s gauge`)
}

// fill calls every hook that package naming has. It panics if a hook is nil.
func fill(h *naming.Hooks) {
	for _, f := range reflect.ValueOf(*h).Fields() {
		info := reflect.New(f.Type().In(0)).Elem()
		for i := range info.NumField() {
			info.Field(i).Set(argument(info.Field(i).Type()))
		}
		f.Call([]reflect.Value{info})
	}
}

// argument returns a value for a field of the struct that a hook takes.
func argument(of reflect.Type) reflect.Value {
	v := reflect.New(of)
	switch p := v.Interface().(type) {
	case *error:
		*p = errTest
	case *time.Time:
		*p = time.Now()
	case *[]naming.Withheld:
		*p = []naming.Withheld{{Reason: naming.Maintenance}}
	}
	return v.Elem()
}

func TestErrorType(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{naming.ErrLeaseLost, "lease_lost"},
		{fmt.Errorf("wrapped: %w", naming.ErrLeaseLost), "lease_lost"},
		{naming.ErrDeleted, "deleted"},
		{naming.ErrPermission, "permission_denied"},
		{naming.ErrInvalid, "invalid_argument"},
		{naming.ErrClientClosed, "client_closed"},
		{context.DeadlineExceeded, "timeout"},
		{fmt.Errorf("dial: %w", timeout(true)), "timeout"},
		{timeout(false), "_OTHER"},
		{context.Canceled, "canceled"},
		{errors.Join(context.DeadlineExceeded, naming.ErrPermission), "permission_denied"},
		{errTest, "_OTHER"},
	} {
		if got := otelnaming.ErrorType(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

type timeout bool

func (timeout) Error() string   { return "timeout" }
func (t timeout) Timeout() bool { return bool(t) }

// failing is a meter provider whose instruments of one kind fail.
type failing struct {
	noop.MeterProvider
	kind string
}

func (f failing) Meter(string, ...metric.MeterOption) metric.Meter {
	return failingMeter{kind: f.kind}
}

type failingMeter struct {
	noop.Meter
	kind string
}

func (f failingMeter) err(kind string) error {
	if f.kind == kind {
		return errTest
	}
	return nil
}

func (f failingMeter) Int64Counter(string, ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return nil, f.err("counter")
}

func (f failingMeter) Int64ObservableUpDownCounter(string, ...metric.Int64ObservableUpDownCounterOption) (metric.Int64ObservableUpDownCounter, error) {
	return nil, f.err("updowncounter")
}

func (f failingMeter) Int64ObservableGauge(string, ...metric.Int64ObservableGaugeOption) (metric.Int64ObservableGauge, error) {
	return nil, f.err("gauge")
}

func (f failingMeter) Float64ObservableGauge(string, ...metric.Float64ObservableGaugeOption) (metric.Float64ObservableGauge, error) {
	return nil, f.err("float gauge")
}

func (f failingMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return noop.Registration{}, f.err("callback")
}

func TestErrors(t *testing.T) {
	for _, kind := range []string{"counter", "updowncounter", "gauge", "float gauge", "callback"} {
		m, err := otelnaming.New(&otelnaming.Options{MeterProvider: failing{kind: kind}})
		if m != nil || !errors.Is(err, errTest) {
			t.Errorf("%s: %v, %v", kind, m, err)
		}
	}
	if _, err := otelnaming.New(&otelnaming.Options{MeterProvider: failing{}}); err != nil {
		t.Error(err)
	}
}

// TestFieldW1Metrics asserts that withheld endpoints are counted by reason, and that
// the count is 0 after the last watch ended.
func TestFieldW1Metrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newMeter()
		m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
		store := new(memory.Store)
		c := naming.New(store, &naming.Options{Hooks: m.Hooks(), Logger: slog.New(slog.DiscardHandler)})
		defer c.Close()
		apply(t, store, "greeter", naming.Add, "a:1", "b:1", "c:1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for range c.Watch(ctx, "greeter") {
			}
		}()
		check := func(when, want string) {
			t.Helper()
			synctest.Wait()
			compare(t, when, only(meter.read(), "naming.endpoint.withheld"), want)
		}
		check("in the beginning", "")
		store.Withhold("greeter", "a:1", naming.Maintenance, "an upgrade")
		store.Withhold("greeter", "b:1", naming.Reason(99), "")
		store.Withhold("greeter", "c:1", naming.FailedCheck, "")
		check("withheld", `
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=failed_check} 1
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=maintenance} 2`)
		store.Withhold("greeter", "c:1", naming.Maintenance, "")
		store.Unwithhold("greeter", "a:1")
		apply(t, store, "greeter", naming.Delete, "b:1")
		check("changed", `
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=failed_check} 0
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=maintenance} 1`)
		c.Close()
		check("closed", `
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=failed_check} 0
			naming.endpoint.withheld{naming.service.name=greeter naming.withheld.reason=maintenance} 0`)
	})
}

// TestConcurrent is for the race detector, and asserts that every event is counted.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 8, 200
	meter := newMeter()
	m := newMetrics(t, &otelnaming.Options{MeterProvider: meter})
	h := m.Hooks()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprint("s", w%2)
			e := naming.Endpoint{ID: fmt.Sprint(w)}
			for range rounds {
				h.Registered(naming.RegisteredInfo{Service: name, Endpoint: e})
				h.Held(naming.HeldInfo{Service: name, Endpoints: []naming.Endpoint{e}})
				h.Stale(naming.StaleInfo{Service: name, Since: time.Now()})
				h.WatchFailed(naming.WatchFailedInfo{Service: name, Err: errTest})
				h.Resynced(naming.ResyncedInfo{Service: name, Changed: 2})
				h.Published(naming.PublishedInfo{Service: name, Addresses: 7})
				h.Stale(naming.StaleInfo{Service: name})
				h.Withheld(naming.WithheldInfo{Service: name, Began: []naming.Withheld{{Endpoint: e, Reason: naming.FailedCheck}}})
				h.Withheld(naming.WithheldInfo{Service: name, Ceased: []naming.Withheld{{Endpoint: e, Reason: naming.FailedCheck}}})
				h.Released(naming.ReleasedInfo{Service: name, Endpoints: []naming.Endpoint{e}, Back: true})
				h.Lost(naming.LostInfo{Service: name, Endpoint: e, Err: errTest})
				h.RegisterFailed(naming.RegisterFailedInfo{Service: name, Endpoint: e, Err: errTest})
				m.Malformed(&naming.MalformedError{Service: name, Err: errTest})
			}
			h.Registered(naming.RegisteredInfo{Service: name, Endpoint: e, Again: true})
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range rounds {
			meter.read()
		}
	}()
	wg.Wait()
	<-done
	var want []string
	for _, s := range []string{"s0", "s1"} {
		for _, c := range []struct {
			name, attr string
			n          int
		}{
			{"endpoint.held", "", 0},
			{"endpoint.holds", "", 800},
			{"endpoint.losses", "error.type=_OTHER ", 800},
			{"endpoint.registered", "", 4},
			{"endpoint.registration.failures", "error.type=_OTHER ", 800},
			{"endpoint.registrations", "naming.registration.again=false ", 800},
			{"endpoint.registrations", "naming.registration.again=true ", 4},
			{"endpoint.releases", "naming.release.reason=back ", 800},
			{"endpoint.withheld", "", 0},
			{"resolver.addresses", "", 7},
			{"resolver.updates", "", 800},
			{"watch.failures", "error.type=_OTHER ", 800},
			{"watch.malformed.entries", "", 800},
			{"watch.resync.changes", "", 1600},
			{"watch.resyncs", "", 800},
		} {
			attrs := c.attr + "naming.service.name=" + s
			if c.name == "endpoint.withheld" {
				attrs += " naming.withheld.reason=failed_check"
			}
			want = append(want, fmt.Sprintf("naming.%s{%s} %d", c.name, attrs, c.n))
		}
	}
	want = append(want, "naming.watch.stale{} 0")
	compare(t, "in the end", meter.read(), strings.Join(want, "\n"))
}

func BenchmarkHooks(b *testing.B) {
	list := make([]naming.Endpoint, 100)
	for i := range list {
		list[i].ID = fmt.Sprint(i)
	}
	since := time.Now()
	for _, p := range []struct {
		name     string
		provider metric.MeterProvider
	}{{"noop", noop.NewMeterProvider()}, {"sdk", newMeter()}} {
		h := newMetrics(b, &otelnaming.Options{MeterProvider: p.provider}).Hooks()
		for _, c := range []struct {
			name string
			call func()
		}{
			{"Registered", func() {
				h.Registered(naming.RegisteredInfo{Service: "s", Endpoint: list[0], Again: true})
				h.Lost(naming.LostInfo{Service: "s", Endpoint: list[0], Err: naming.ErrLeaseLost})
			}},
			{"WatchFailed", func() { h.WatchFailed(naming.WatchFailedInfo{Service: "s", Err: errTest}) }},
			{"Stale", func() { h.Stale(naming.StaleInfo{Service: "s", Since: since}) }},
			{"Resynced", func() { h.Resynced(naming.ResyncedInfo{Service: "s", Changed: 3}) }},
			{"Held", func() {
				h.Held(naming.HeldInfo{Service: "s", Endpoints: list})
				h.Released(naming.ReleasedInfo{Service: "s", Endpoints: list, Back: true})
			}},
			{"Published", func() { h.Published(naming.PublishedInfo{Service: "s", Addresses: 3}) }},
		} {
			b.Run(p.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c.call()
				}
			})
		}
	}
	b.Run("sdk/Published/parallel", func(b *testing.B) {
		h := newMetrics(b, &otelnaming.Options{MeterProvider: newMeter()}).Hooks()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				h.Published(naming.PublishedInfo{Service: "s", Addresses: 3})
			}
		})
	})
}

// BenchmarkCollect reads the metrics of a thousand services.
func BenchmarkCollect(b *testing.B) {
	meter := newMeter()
	h := newMetrics(b, &otelnaming.Options{MeterProvider: meter}).Hooks()
	for i := range 1000 {
		h.Published(naming.PublishedInfo{Service: fmt.Sprint(i), Addresses: i})
	}
	var all metricdata.ResourceMetrics
	b.ReportAllocs()
	for b.Loop() {
		if err := meter.reader.Collect(context.Background(), &all); err != nil {
			b.Fatal(err)
		}
	}
}
