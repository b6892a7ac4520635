package prometheusnaming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	prometheusnaming "github.com/naming-go/naming/observe/prometheus"
	"github.com/naming-go/naming/resolver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
)

var (
	errTest = errors.New("error of the test")
	quiet   = slog.New(slog.DiscardHandler)
)

func newMetrics(t testing.TB, opts *prometheusnaming.Options) *prometheusnaming.Metrics {
	t.Helper()
	m, err := prometheusnaming.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// read returns the lines of the series in the exposition text of the collectors. The
// prefix naming_ is cut off.
func read(t testing.TB, collectors ...prometheus.Collector) (lines []string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	enc := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "naming_"))
		}
	}
	return lines
}

// only returns the lines that begin with one of prefixes.
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
		if strings.HasPrefix(series, "endpoint_registration_failures_total{") && count != "0" {
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
	slices.Sort(got)
	if !slices.Equal(got, lines) {
		t.Errorf("%s:\n%s\nwant:\n%s", when, strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func newClient(store naming.Store, hooks *naming.Hooks) *naming.Client {
	return naming.New(store, &naming.Options{Logger: quiet, Hooks: hooks})
}

func register(t *testing.T, c *naming.Client, service string, addrs ...string) (list []*naming.Registration) {
	t.Helper()
	for _, addr := range addrs {
		g, err := c.Register(t.Context(), service, naming.Endpoint{Addr: addr}, &naming.RegisterOptions{TTL: time.Hour, Wait: true})
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
		m := newMetrics(t, nil)
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		check := func(when, want string) {
			t.Helper()
			synctest.Wait()
			compare(t, when, uncounted(read(t, m)), want)
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
			watch_stale 0`)

		registrations := register(t, c, "greeter", "a:1", "b:1", "c:1")
		check("registered", `
			endpoint_registered{service="greeter"} 3
			endpoint_registrations_total{reason="first",service="greeter"} 3
			watch_stale 0`)

		store.Wipe()
		check("wiped", `
			endpoint_held{service="greeter"} 3
			endpoint_holds_total{service="greeter"} 3
			endpoint_losses_total{error_type="deleted",service="greeter"} 3
			endpoint_registered{service="greeter"} 0
			endpoint_registrations_total{reason="first",service="greeter"} 3
			watch_stale 0`)

		time.Sleep(time.Minute)
		// Each registration tries its old lease first and fails.
		counted := `
			endpoint_holds_total{service="greeter"} 3
			endpoint_losses_total{error_type="deleted",service="greeter"} 3
			endpoint_registration_failures_total{error_type="lease_lost",service="greeter"} some
			endpoint_registrations_total{reason="first",service="greeter"} 3
			endpoint_registrations_total{reason="again",service="greeter"} 3
			endpoint_releases_total{reason="back",service="greeter"} 3`
		check("registered again", counted+`
			endpoint_held{service="greeter"} 0
			endpoint_registered{service="greeter"} 3
			watch_stale 0`)

		// The delay keeps the new watches from beginning before the story goes on.
		store.Break(fmt.Errorf("the token is old: %w", naming.ErrPermission))
		apply(t, store, "greeter", naming.Add, "d:1")
		apply(t, store, "batch", naming.Add, "e:1", "f:1", "g:1", "h:1")
		store.Delay(time.Minute)
		time.Sleep(20 * time.Second)
		counted += `
			watch_failures_total{error_type="permission_denied",service="batch"} 1
			watch_failures_total{error_type="permission_denied",service="greeter"} 1`
		outage := counted + `
			endpoint_held{service="greeter"} 0
			endpoint_registered{service="greeter"} 3
			watch_stale 2
			watch_staleness_seconds{service="batch"} %[1]d
			watch_staleness_seconds{service="greeter"} %[1]d`
		check("20 seconds into an outage", fmt.Sprintf(outage, 20))
		time.Sleep(30 * time.Second)
		check("50 seconds into an outage", fmt.Sprintf(outage, 50))

		store.Delay(0)
		time.Sleep(time.Minute)
		counted += `
			watch_resync_changes_total{service="batch"} 4
			watch_resync_changes_total{service="greeter"} 1
			watch_resyncs_total{service="batch"} 1
			watch_resyncs_total{service="greeter"} 1`
		check("fresh again", counted+`
			endpoint_held{service="greeter"} 0
			endpoint_registered{service="greeter"} 3
			watch_stale 0`)

		store.Withhold("greeter", "a:1", naming.Maintenance, "an upgrade")
		store.Withhold("greeter", "b:1", naming.FailedCheck, "")
		store.Withhold("greeter", "c:1", naming.Reason(99), "")
		check("withheld", counted+`
			endpoint_held{service="greeter"} 0
			endpoint_registered{service="greeter"} 3
			endpoint_withheld{reason="failed_check",service="greeter"} 1
			endpoint_withheld{reason="maintenance",service="greeter"} 2
			watch_stale 0`)
		for _, id := range []string{"a:1", "b:1", "c:1"} {
			store.Unwithhold("greeter", id)
		}

		apply(t, store, "batch", naming.Delete, "e:1", "f:1", "g:1", "h:1")
		counted = strings.Replace(counted, "endpoint_holds", `endpoint_holds_total{service="batch"} 4
			endpoint_holds`, 1) + `
			endpoint_held{service="greeter"} 0
			endpoint_withheld{reason="failed_check",service="greeter"} 0
			endpoint_withheld{reason="maintenance",service="greeter"} 0
			watch_stale 0`
		check("vanished", counted+`
			endpoint_held{service="batch"} 4
			endpoint_registered{service="greeter"} 3`)

		time.Sleep(10 * time.Minute)
		if err := registrations[0].Close(); err != nil {
			t.Fatal(err)
		}
		counted += `
			endpoint_held{service="batch"} 0
			endpoint_releases_total{reason="expired",service="batch"} 4
			endpoint_withdrawals_total{error_type="",service="greeter"} 1`
		check("one closed", counted+`
			endpoint_registered{service="greeter"} 2`)

		store.Refuse(errTest)
		c.Close()
		check("closed", counted+`
			endpoint_registered{service="greeter"} 0
			endpoint_registration_failures_total{error_type="_OTHER",service="greeter"} some
			endpoint_withdrawals_total{error_type="_OTHER",service="greeter"} 2`)
	})
}

// TestServices asserts that the list of services is a watch whose service is empty.
func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
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
		compare(t, "broken", read(t, m), `
			watch_failures_total{error_type="_OTHER",service=""} 1
			watch_stale 1
			watch_staleness_seconds{service=""} 30`)
		time.Sleep(time.Minute)
		compare(t, "fresh again", read(t, m), `
			watch_failures_total{error_type="_OTHER",service=""} 1
			watch_resync_changes_total{service=""} 1
			watch_resyncs_total{service=""} 1
			watch_stale 0`)
	})
}

// TestDown starts a process while the registry is down.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
		store := new(memory.Store)
		store.Down(errTest)
		c := newClient(store, m.Hooks())
		defer c.Close()
		g, err := c.Register(context.Background(), "greeter", naming.Endpoint{Addr: "a:1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		compare(t, "down", only(uncounted(read(t, m)), "endpoint_", "watch_stale"), `
			endpoint_registration_failures_total{error_type="_OTHER",service="greeter"} some
			watch_stale 1
			watch_staleness_seconds{service="greeter"} 3600`)
		store.Up()
		if err := g.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		compare(t, "up", only(uncounted(read(t, m)), "endpoint_"), `
			endpoint_registered{service="greeter"} 1
			endpoint_registration_failures_total{error_type="_OTHER",service="greeter"} some
			endpoint_registrations_total{reason="first",service="greeter"} 1`)
	})
}

// TestWatchEnds ends the watch of a service during an outage. The service is then
// neither stale nor held.
func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
		store := new(memory.Store)
		c := naming.New(store, &naming.Options{
			Logger: quiet, Hooks: m.Hooks(), IdleGrace: -1, Hold: naming.Hold{MaxDuration: 24 * time.Hour},
		})
		defer c.Close()
		check := func(when, want string) {
			t.Helper()
			synctest.Wait()
			compare(t, when, only(read(t, m), "endpoint_", "watch_stale"), want)
		}
		apply(t, store, "greeter", naming.Add, "a:1", "b:1", "c:1")
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		go func() {
			for range c.Watch(ctx, "greeter") {
			}
		}()
		synctest.Wait()
		apply(t, store, "greeter", naming.Delete, "a:1", "b:1", "c:1")
		synctest.Wait()
		store.Down(errTest)
		check("down", `
			endpoint_held{service="greeter"} 3
			endpoint_holds_total{service="greeter"} 3
			watch_stale 1
			watch_staleness_seconds{service="greeter"} 0`)
		leave()
		time.Sleep(time.Minute)
		check("ended", `
			endpoint_held{service="greeter"} 0
			endpoint_holds_total{service="greeter"} 3
			endpoint_releases_total{reason="expired",service="greeter"} 3
			watch_stale 0`)
	})
}

// TestMalformed counts the entries that the store reports.
func TestMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
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
		compare(t, "two entries", read(t, m), `
			watch_malformed_entries_total{service="greeter"} 2
			watch_stale 0`)
	})
}

// clientConn is a ClientConn that ignores everything.
type clientConn struct{ grpcresolver.ClientConn }

func (clientConn) UpdateState(grpcresolver.State) error                 { return nil }
func (clientConn) ReportError(error)                                    {}
func (clientConn) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
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
			compare(t, when, only(read(t, m), "resolver_"), want)
		}
		check("two", `
			resolver_addresses{service="greeter"} 2
			resolver_updates_total{service="greeter"} 1`)
		apply(t, store, "greeter", naming.Add, "c:1")
		check("three", `
			resolver_addresses{service="greeter"} 3
			resolver_updates_total{service="greeter"} 2`)
	})
}

// TestClose asserts that Close removes the gauges, also those that the hooks do not
// reset, and that the counters stay and go on counting.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, nil)
		store := new(memory.Store)
		c := newClient(store, m.Hooks())
		register(t, c, "greeter", "a:1")
		m.Hooks().Published(naming.PublishedInfo{Service: "greeter", Addresses: 1})
		store.Down(errTest)
		synctest.Wait()
		c.Close()
		parts := []string{"endpoint_", "watch_stale", "resolver_"}
		counted := `
			endpoint_registration_failures_total{error_type="_OTHER",service="greeter"} some
			endpoint_registrations_total{reason="first",service="greeter"} 1
			endpoint_withdrawals_total{error_type="_OTHER",service="greeter"} 1
			resolver_updates_total{service="greeter"} 1`
		compare(t, "the Client is closed", only(uncounted(read(t, m)), parts...), counted+`
			endpoint_registered{service="greeter"} 0
			resolver_addresses{service="greeter"} 1
			watch_stale 0`)
		for range 2 {
			m.Close()
		}
		compare(t, "closed", only(uncounted(read(t, m)), parts...), counted)
		m.Hooks().Registered(naming.RegisteredInfo{Service: "other", Endpoint: naming.Endpoint{ID: "b:1"}})
		compare(t, "counted later", only(read(t, m), "endpoint_registered", "endpoint_registrations"), `
			endpoint_registrations_total{reason="first",service="greeter"} 1
			endpoint_registrations_total{reason="first",service="other"} 1`)
	})
}

// TestRegisteredByID asserts that an endpoint of two registrations counts once, and
// that the withdrawal of an unregistered endpoint changes nothing.
func TestRegisteredByID(t *testing.T) {
	m := newMetrics(t, nil)
	h := m.Hooks()
	a, b := naming.Endpoint{ID: "a"}, naming.Endpoint{ID: "b"}
	check := func(when string, want int) {
		t.Helper()
		compare(t, when, only(read(t, m), "endpoint_registered"), fmt.Sprintf(`endpoint_registered{service="s"} %d`, want))
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
	m := newMetrics(t, nil)
	h := m.Hooks()
	list := []naming.Endpoint{{ID: "a"}, {ID: "b"}}
	h.Held(naming.HeldInfo{Service: "s", Endpoints: list})
	h.Released(naming.ReleasedInfo{Service: "s", Endpoints: list, Back: true})
	h.Released(naming.ReleasedInfo{Service: "s", Endpoints: list})
	compare(t, "overtaken", only(read(t, m), "endpoint_held"), `endpoint_held{service="s"} 0`)
	h.Held(naming.HeldInfo{Service: "s", Endpoints: list})
	compare(t, "in the end", only(read(t, m), "endpoint_held"), `endpoint_held{service="s"} 0`)
	ceased := []naming.Withheld{{Endpoint: list[0], Reason: naming.FailedCheck}}
	h.Withheld(naming.WithheldInfo{Service: "s", Ceased: ceased})
	compare(t, "overtaken", only(read(t, m), "endpoint_withheld"), `endpoint_withheld{reason="failed_check",service="s"} 0`)
}

// TestConstLabels registers the metrics of two Clients in one registry.
func TestConstLabels(t *testing.T) {
	var all []prometheus.Collector
	for i, name := range []string{"x", "y"} {
		m := newMetrics(t, &prometheusnaming.Options{
			ConstLabels: prometheus.Labels{"registry": name},
			ErrorType:   func(err error) string { return err.Error() + "\xff" + name },
		})
		m.Hooks().WatchFailed(naming.WatchFailedInfo{Service: "s", Err: errors.New("broken")})
		m.Hooks().Published(naming.PublishedInfo{Service: "s", Addresses: 10 + i})
		all = append(all, m)
	}
	compare(t, "two clients", read(t, all...), `
		resolver_addresses{registry="x",service="s"} 10
		resolver_addresses{registry="y",service="s"} 11
		resolver_updates_total{registry="x",service="s"} 1
		resolver_updates_total{registry="y",service="s"} 1
		watch_failures_total{error_type="broken�x",registry="x",service="s"} 1
		watch_failures_total{error_type="broken�y",registry="y",service="s"} 1
		watch_stale{registry="x"} 0
		watch_stale{registry="y"} 0`)
}

// TestDropService asserts that the series without the label service are sums, and the
// largest staleness.
func TestDropService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t, &prometheusnaming.Options{DropService: true})
		h := m.Hooks()
		for i, name := range []string{"a", "b"} {
			list := make([]naming.Endpoint, i+1)
			h.Registered(naming.RegisteredInfo{Service: name, Endpoint: naming.Endpoint{ID: "x"}})
			h.RegisterFailed(naming.RegisterFailedInfo{Service: name, Err: naming.ErrPermission})
			h.Stale(naming.StaleInfo{Service: name, Since: time.Now().Add(-time.Duration(i+1) * time.Minute)})
			h.Resynced(naming.ResyncedInfo{Service: name, Changed: i + 1})
			h.Held(naming.HeldInfo{Service: name, Endpoints: list})
			h.Withheld(naming.WithheldInfo{Service: name, Began: []naming.Withheld{{Reason: naming.FailedCheck}}})
			h.Published(naming.PublishedInfo{Service: name, Addresses: i + 1})
			m.Malformed(&naming.MalformedError{Service: name, Err: errTest})
		}
		compare(t, "without services", read(t, m), `
			endpoint_held 3
			endpoint_holds_total 3
			endpoint_registered 2
			endpoint_registration_failures_total{error_type="permission_denied"} 2
			endpoint_registrations_total{reason="first"} 2
			endpoint_withheld{reason="failed_check"} 2
			resolver_addresses 3
			resolver_updates_total 2
			watch_malformed_entries_total 2
			watch_resync_changes_total 3
			watch_resyncs_total 2
			watch_stale 2
			watch_staleness_seconds 120`)
	})
}

func TestErrors(t *testing.T) {
	for _, labels := range []prometheus.Labels{
		{"service": "x"}, {"error_type": "x"}, {"reason": "x"}, {"__x": "x"}, {"x": "\xff"},
	} {
		if m, err := prometheusnaming.New(&prometheusnaming.Options{ConstLabels: labels}); m != nil || err == nil {
			t.Errorf("%v: %v, %v", labels, m, err)
		}
	}
	labels := prometheus.Labels{"x": "y"}
	m := newMetrics(t, &prometheusnaming.Options{ConstLabels: labels})
	labels["x"] = "changed later"
	compare(t, "a copy of the labels", read(t, m), `watch_stale{x="y"} 0`)
}

// TestNotUTF8 asserts that the name of a service cannot break the collection. A name
// comes from the registry.
func TestNotUTF8(t *testing.T) {
	m := newMetrics(t, nil)
	m.Malformed(&naming.MalformedError{Service: "a\xff", Err: errTest})
	fill(m.Hooks(), "\xff\xfe")
	compare(t, "replaced", only(read(t, m), "watch_malformed", "endpoint_held"), `
		endpoint_held{service="�"} 0
		watch_malformed_entries_total{service="a�"} 1`)
}

// TestHooks calls every hook that package naming has, and asserts the whole set of
// metrics with their types. It fails if a hook is nil or records nothing.
func TestHooks(t *testing.T) {
	m := newMetrics(t, nil)
	hooks := reflect.ValueOf(*m.Hooks())
	for field, f := range hooks.Fields() {
		one := newMetrics(t, nil)
		before := read(t, one)
		call(reflect.ValueOf(*one.Hooks()).FieldByName(field.Name), "s")
		if slices.Equal(before, read(t, one)) {
			t.Errorf("the hook %s records nothing", field.Name)
		}
		call(f, "s")
	}
	m.Malformed(&naming.MalformedError{Service: "s", Err: errTest})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: help %q", f.GetName(), f.GetHelp())
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got = append(got, fmt.Sprint(f.GetName(), labels, " ", strings.ToLower(f.GetType().String())))
	}
	compare(t, "all metrics", got, `
		naming_endpoint_held[service] gauge
		naming_endpoint_holds_total[service] counter
		naming_endpoint_losses_total[error_type service] counter
		naming_endpoint_registered[service] gauge
		naming_endpoint_registration_failures_total[error_type service] counter
		naming_endpoint_registrations_total[reason service] counter
		naming_endpoint_releases_total[reason service] counter
		naming_endpoint_withdrawals_total[error_type service] counter
		naming_endpoint_withheld[reason service] gauge
		naming_resolver_addresses[service] gauge
		naming_resolver_updates_total[service] counter
		naming_watch_failures_total[error_type service] counter
		naming_watch_malformed_entries_total[service] counter
		naming_watch_resync_changes_total[service] counter
		naming_watch_resyncs_total[service] counter
		naming_watch_stale[] gauge
		naming_watch_staleness_seconds[service] gauge`)
}

// fill calls every hook that package naming has.
func fill(h *naming.Hooks, service string) {
	for _, f := range reflect.ValueOf(*h).Fields() {
		call(f, service)
	}
}

// call calls a hook for a service.
func call(hook reflect.Value, service string) {
	info := reflect.New(hook.Type().In(0)).Elem()
	for i := range info.NumField() {
		switch p := info.Field(i).Addr().Interface().(type) {
		case *string:
			*p = service
		case *error:
			*p = errTest
		case *time.Time:
			*p = time.Now()
		case *[]naming.Withheld:
			*p = []naming.Withheld{{Reason: naming.Maintenance}}
		}
	}
	hook.Call([]reflect.Value{info})
}

// TestLint checks the names, types and help texts by the rules of Prometheus.
func TestLint(t *testing.T) {
	for _, drop := range []bool{false, true} {
		m := newMetrics(t, &prometheusnaming.Options{DropService: drop})
		fill(m.Hooks(), "s")
		m.Malformed(&naming.MalformedError{Service: "s", Err: errTest})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(m)
		var problems []promlint.Problem
		problems, err := testutil.GatherAndLint(registry)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

type timeout bool

func (timeout) Error() string   { return "timeout" }
func (t timeout) Timeout() bool { return bool(t) }

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
		if got := prometheusnaming.ErrorType(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// TestErrorTypeLikeOTel asserts that both packages classify errors with the same code.
// They share a copy and not a package, so that neither module needs the other.
func TestErrorTypeLikeOTel(t *testing.T) {
	code := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nimport")
		return rest
	}
	if code("errortype.go") != code("../otel/errortype.go") {
		t.Error("errortype.go differs from ../otel/errortype.go in more than the name of the package")
	}
}

// metricName matches the names of our metrics in a text.
var metricName = regexp.MustCompile(`\bnaming_[a-z_]+`)

// TestFiles asserts that the dashboard and the rules use metrics that exist, and that
// the documentation names each metric.
func TestFiles(t *testing.T) {
	m := newMigration(t, nil)
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		m.Describe(descs)
	}()
	exist := make(map[string]bool)
	for d := range descs {
		exist[metricName.FindString(d.String())] = true
	}
	for _, file := range []string{"dashboard.json", "alerts.yml", "doc.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		names := metricName.FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			if !exist[name] {
				t.Errorf("%s names %s, which does not exist", file, name)
			}
		}
		if file != "dashboard.json" && file != "doc.go" {
			continue
		}
		for name := range exist {
			if !slices.Contains(names, name) {
				t.Errorf("%s does not name %s", file, name)
			}
		}
	}
}

// TestConcurrent is for the race detector, and asserts that every event is counted.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 8, 200
	m := newMetrics(t, nil)
	h := m.Hooks()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			name := fmt.Sprint("s", w%2)
			e := naming.Endpoint{ID: fmt.Sprint(w)}
			check := []naming.Withheld{{Endpoint: e, Reason: naming.FailedCheck}}
			for range rounds {
				h.Registered(naming.RegisteredInfo{Service: name, Endpoint: e})
				h.Held(naming.HeldInfo{Service: name, Endpoints: []naming.Endpoint{e}})
				h.Stale(naming.StaleInfo{Service: name, Since: time.Now()})
				h.WatchFailed(naming.WatchFailedInfo{Service: name, Err: errTest})
				h.Resynced(naming.ResyncedInfo{Service: name, Changed: 2})
				h.Published(naming.PublishedInfo{Service: name, Addresses: 7})
				h.Stale(naming.StaleInfo{Service: name})
				h.Withheld(naming.WithheldInfo{Service: name, Began: check})
				h.Withheld(naming.WithheldInfo{Service: name, Ceased: check})
				h.Released(naming.ReleasedInfo{Service: name, Endpoints: []naming.Endpoint{e}, Back: true})
				h.Lost(naming.LostInfo{Service: name, Endpoint: e, Err: errTest})
				h.RegisterFailed(naming.RegisterFailedInfo{Service: name, Endpoint: e, Err: errTest})
				m.Malformed(&naming.MalformedError{Service: name, Err: errTest})
			}
			h.Registered(naming.RegisteredInfo{Service: name, Endpoint: e, Again: true})
		})
	}
	wg.Go(func() {
		for range rounds {
			read(t, m)
		}
	})
	wg.Wait()
	var want strings.Builder
	for _, s := range []string{"s0", "s1"} {
		fmt.Fprintf(&want, `
			endpoint_held{service=%[1]q} 0
			endpoint_holds_total{service=%[1]q} 800
			endpoint_losses_total{error_type="_OTHER",service=%[1]q} 800
			endpoint_registered{service=%[1]q} 4
			endpoint_registration_failures_total{error_type="_OTHER",service=%[1]q} 800
			endpoint_registrations_total{reason="first",service=%[1]q} 800
			endpoint_registrations_total{reason="again",service=%[1]q} 4
			endpoint_releases_total{reason="back",service=%[1]q} 800
			endpoint_withheld{reason="failed_check",service=%[1]q} 0
			resolver_addresses{service=%[1]q} 7
			resolver_updates_total{service=%[1]q} 800
			watch_failures_total{error_type="_OTHER",service=%[1]q} 800
			watch_malformed_entries_total{service=%[1]q} 800
			watch_resync_changes_total{service=%[1]q} 1600
			watch_resyncs_total{service=%[1]q} 800
			`, s)
	}
	compare(t, "in the end", read(t, m), want.String()+"watch_stale 0")
}

func BenchmarkHooks(b *testing.B) {
	list := make([]naming.Endpoint, 100)
	for i := range list {
		list[i].ID = fmt.Sprint(i)
	}
	since := time.Now()
	h := newMetrics(b, nil).Hooks()
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
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.call()
			}
		})
	}
	b.Run("Published/parallel", func(b *testing.B) {
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
	m := newMetrics(b, nil)
	h := m.Hooks()
	for i := range 1000 {
		h.Published(naming.PublishedInfo{Service: fmt.Sprint(i), Addresses: i})
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDashboard asserts what Grafana needs. Grafana reports no error for a dashboard
// without it, but shows panels that overlap or are empty.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	type grid struct{ X, Y, W, H int }
	var dashboard struct {
		UID, Title    string
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type, Query any }
		}
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     grid
			Datasource  struct{ Type, UID string }
			Targets     []struct {
				Expr, RefID string
				Datasource  struct{ Type, UID string }
			}
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || dashboard.SchemaVersion == 0 {
		t.Error("the dashboard has no uid, title or schemaVersion")
	}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range dashboard.Templating.List {
		variables[fmt.Sprint(v.Name)] = true
	}
	if v := dashboard.Templating.List[0]; v.Name != "datasource" || v.Type != "datasource" || v.Query != "prometheus" {
		t.Errorf("the first variable is %v, want the data source", v)
	}
	ids := make(map[int]bool)
	cells := make(map[[2]int]string)
	var rows []string
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if cells[[2]int{x, y}] != "" || x >= 24 {
					t.Fatalf("%s: overlaps %s, or is too wide", p.Title, cells[[2]int{x, y}])
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Datasource.UID != "${datasource}" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%s: data source %q, description %q, %d targets", p.Title, p.Datasource.UID, p.Description, len(p.Targets))
		}
		for i, target := range p.Targets {
			if target.RefID != string(rune('A'+i)) || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: refId %q, data source %q", p.Title, target.RefID, target.Datasource.UID)
			}
			for _, v := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[v[1]] {
					t.Errorf("%s: the variable %s does not exist", p.Title, v[1])
				}
			}
		}
	}
	if want := []string{"Registrations", "Watches and staleness", "Holds and withheld endpoints", "Resolver", "Migration"}; !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}
