package resolver

import (
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	grpcresolver "google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/naming-go/naming"
)

// script is a source that plays events.
type script struct {
	mu     sync.Mutex
	wake   func()
	events []naming.Event
	closed bool
}

func (s *script) play(e naming.Event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	wake := s.wake
	s.mu.Unlock()
	wake()
}

func (s *script) Next() (naming.Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events) == 0 || s.closed {
		return naming.Event{}, false
	}
	e := s.events[0]
	s.events = s.events[1:]
	return e, true
}

func (s *script) Retry() {}

func (s *script) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// scripted returns a Builder all of whose targets follow s.
func scripted(s *script) *Builder {
	b := NewBuilder(nil, nil)
	b.follow = func(service string, wake func()) (source, error) {
		s.wake = wake
		return s, nil
	}
	return b
}

// log is a ClientConn that writes down what it is told.
type log struct {
	grpcresolver.ClientConn
	mu    sync.Mutex
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *log) UpdateState(s grpcresolver.State) error {
	line := "state"
	if _, ok := CachedAt(s); ok {
		line = "cached"
	}
	for _, e := range s.Endpoints {
		line += " " + e.Addresses[0].Addr
	}
	l.add(line)
	return nil
}

func (l *log) ReportError(err error) { l.add("error " + err.Error()) }

func (*log) ParseServiceConfig(string) *serviceconfig.ParseResult { return nil }

// want waits until all is done, and compares the lines since it last did.
func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("was told %q, want %q", l.lines, want)
	}
	l.lines = nil
}

func endpoints(addrs ...string) (list []naming.Endpoint) {
	for _, a := range addrs {
		list = append(list, naming.Endpoint{ID: a, Addr: a})
	}
	return list
}

func draining(addr string) naming.Endpoint {
	return naming.Endpoint{ID: addr, Addr: addr, Metadata: []byte(`{"draining":true}`)}
}

// TestHeldEndpointsComeLast is rule (d) of the list of what gRPC does with too
// few addresses.
func TestHeldEndpointsComeLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := new(script), new(log)
		r, err := scripted(s).Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		synced := func(held ...naming.Endpoint) naming.Status { return naming.Status{Synced: true, Held: held} }
		batch := func(put []naming.Endpoint, deleted ...string) naming.Batch {
			return naming.Batch{Put: put, Deleted: deleted}
		}
		for i, step := range []struct {
			event naming.Event
			want  []string
		}{
			{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b", "c")}, Status: synced()}, []string{"state a b c"}},
			{naming.Event{Batch: batch(nil, "a", "b"), Status: synced(endpoints("a", "b")...)}, []string{"state c a b"}},
			{naming.Event{Status: synced(endpoints("a", "b")...)}, nil},
			// One of them is back, and not twice.
			{naming.Event{Batch: batch(endpoints("a")), Status: synced(endpoints("b")...)}, []string{"state a c b"}},
			{naming.Event{Batch: batch(endpoints("b")), Status: synced(endpoints("b")...)}, []string{"state a b c"}},
			// All are gone: none of it is believed.
			{naming.Event{Batch: batch(nil, "a", "b", "c"), Status: synced(endpoints("a", "b", "c")...)}, nil},
			// Until the registry does.
			{naming.Event{Status: synced()}, []string{"state", `error naming: service "x" has no endpoints`}},
			{naming.Event{Status: synced(draining("a"), draining("b"))}, []string{"state a b"}},
			{naming.Event{Status: synced(draining("a"), naming.Endpoint{ID: "b", Addr: "b"})}, []string{"state b"}},
			{naming.Event{Batch: batch(endpoints("z")), Status: synced(draining("a"))}, []string{"state z"}},
			{naming.Event{Batch: batch([]naming.Endpoint{draining("z")}), Status: synced(endpoints("a")...)}, []string{"state z a"}},
			{naming.Event{Batch: batch(nil, "z"), Status: synced()}, []string{"state", `error naming: service "x" has no endpoints`}},
		} {
			time.Sleep(time.Second)
			s.play(step.event)
			synctest.Wait()
			t.Log(i)
			l.want(t, step.want...)
		}
		r.Close()
		if !s.closed {
			t.Error("the source was not closed")
		}
	})
}

// TestALossThatWasOver: the first event tells of a loss, with the status of a
// moment at which it was over. The set was never empty, and is not published so.
func TestALossThatWasOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := new(script), new(log)
		r, err := scripted(s).Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		synced := naming.Status{Synced: true}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b")}, Status: synced})
		l.want(t, "state a b")
		time.Sleep(time.Second)
		s.mu.Lock()
		s.events = append(s.events, naming.Event{Batch: naming.Batch{Deleted: []string{"a", "b"}}, Status: synced})
		s.mu.Unlock()
		s.play(naming.Event{Batch: naming.Batch{Put: endpoints("a", "b")}, Status: synced})
		l.want(t)
		r.Close()
	})
}

// TestFollowsOnce: a thousand Builds at once make one follower.
func TestFollowsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		b := scripted(s)
		follow, followed := b.follow, 0
		b.follow = func(service string, wake func()) (source, error) {
			followed++ // not guarded: the race detector would tell
			for range 100 {
				runtime.Gosched() // so that the others come as well
			}
			return follow(service, wake)
		}
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				r, err := b.Build(grpcresolver.Target{URL: parse("naming:///x")}, new(log), grpcresolver.BuildOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Minute)
				r.Close()
			})
		}
		wg.Wait()
		if followed != 1 {
			t.Errorf("followed %d times, want once", followed)
		}
		if len(b.targets) != 0 {
			t.Errorf("%d targets left", len(b.targets))
		}
	})
}

func TestAFailedFollowLeavesNothing(t *testing.T) {
	b := NewBuilder(nil, nil)
	b.follow = func(string, func()) (source, error) { return (*naming.Follower)(nil), errors.New("no") }
	if _, err := b.Build(grpcresolver.Target{URL: parse("naming:///x")}, new(log), grpcresolver.BuildOptions{}); err == nil {
		t.Error("no error")
	}
	if len(b.targets) != 0 {
		t.Errorf("%d targets left", len(b.targets))
	}
}

// idler is a ClientConn that does nothing.
type idler struct{ grpcresolver.ClientConn }

func (idler) UpdateState(grpcresolver.State) error { return nil }

// TestTellingAllocatesNothing: what thousands of ClientConns are told is made
// once.
func TestTellingAllocatesNothing(t *testing.T) {
	target := newTarget(NewBuilder(nil, nil), "x")
	for range 1000 {
		target.join(&conn{target: target, cc: idler{}})
	}
	var list []grpcresolver.Endpoint
	allocs := testing.AllocsPerRun(10, func() {
		target.publish(&state{endpoints: list})
		target.deliver()
		target.work.Wait()
	})
	if allocs > 100 { // on a busy machine tick is called
		t.Errorf("%v allocations", allocs)
	}
	for _, c := range target.conns {
		if c.told != target.state.number {
			t.Fatalf("was told state %d, want %d", c.told, target.state.number)
		}
	}
}

// TestClosedWhileItCollects: a target that waits for more changes does not keep
// Close waiting.
func TestClosedWhileItCollects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := new(script), new(log)
		r, err := scripted(s).Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a")}, Status: naming.Status{Synced: true}})
		l.want(t, "state a")
		s.play(naming.Event{Batch: naming.Batch{Put: endpoints("b")}, Status: naming.Status{Synced: true}})
		synctest.Wait()
		start := time.Now()
		r.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		s.wake() // as a Registry may, just after
		time.Sleep(time.Minute)
		l.want(t)
	})
}

func TestString(t *testing.T) {
	e := made(naming.Endpoint{ID: "i", Addr: "a:1", Metadata: []byte(`{"zone":"a"}`)})
	if got, want := e.Attributes.String(), fmt.Sprintf("{%q: %q }", "naming.Endpoint", `"i" {"zone":"a"}`); got != want {
		t.Errorf("attributes are logged as %s, want %s", got, want)
	}
}

func parse(target string) url.URL {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	return *u
}
