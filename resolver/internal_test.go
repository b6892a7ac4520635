package resolver

import (
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/attributes"
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
		target.mu.Lock()
		target.tellers++
		target.deliver(target.stalls)
		target.mu.Unlock()
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

// worker is a ClientConn whose balancer takes a while.
type worker struct {
	grpcresolver.ClientConn
	takes     func() time.Duration
	now, most *atomic.Int64 // such calls in progress
}

func (w worker) UpdateState(grpcresolver.State) error {
	n := w.now.Add(1)
	for most := w.most.Load(); n > most && !w.most.CompareAndSwap(most, n); most = w.most.Load() {
	}
	time.Sleep(w.takes())
	w.now.Add(-1)
	return nil
}

func (w worker) ReportError(error) {}

// workers returns a target with ClientConns that were told an error, of which atOnce
// may be busy at once, and the greatest number of calls in progress.
func workers(t *testing.T, n, atOnce int, takes func() time.Duration) (*target, *atomic.Int64) {
	b := NewBuilder(nil, nil)
	b.atOnce = atOnce
	target := newTarget(b, "x")
	now, most := new(atomic.Int64), new(atomic.Int64)
	for range n {
		target.join(&conn{target: target, cc: worker{takes: takes, now: now, most: most}})
	}
	target.publish(&state{err: errors.New("nothing is known")})
	begin := time.Now()
	target.tellAll()
	if took := time.Since(begin); took != 0 {
		t.Fatalf("to report an error took %v", took)
	}
	return target, most
}

// tellAll tells the ClientConns as run does, and waits until all know. It panics if
// anybody is left to tell them.
func (t *target) tellAll() {
	t.mu.Lock()
	t.help()
	t.mu.Unlock()
	t.work.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first != nil || t.tellers != 0 {
		panic(fmt.Sprintf("%d tellers at the end", t.tellers))
	}
}

// atWork publishes a set that is urgent, and one that is not, which is left to tell.
func (t *target) atWork() {
	t.publish(&state{})
	t.tellAll()
	time.Sleep(time.Minute)
	t.publish(&state{})
}

// TestRests: where it is work to be told something, calls have three quarters of the
// time.
func TestRests(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 15 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const n = 10
			target, most := workers(t, n, 1, func() time.Duration { return takes })
			target.atWork()
			begin := time.Now()
			target.tellAll()
			// The first one takes as long by chance.
			want := n*takes + (n-2)*min(3*takes, 10*time.Millisecond)
			if got := time.Since(begin); got != want || most.Load() != 1 {
				t.Errorf("%d ClientConns of %v each took %v, up to %d at a time; want %v, one after the other", n, takes, got, most.Load(), want)
			}
		})
	}
}

// TestRestsEnd: rests keep nobody waiting for longer than half a second.
func TestRestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		target, _ := workers(t, n, 1, func() time.Duration { return time.Millisecond })
		target.atWork()
		begin := time.Now()
		target.tellAll()
		if got := time.Since(begin); got < n*time.Millisecond || got > (n+500)*time.Millisecond {
			t.Errorf("%d ClientConns of 1 ms each took %v, want 0.5 s of rests at most", n, got)
		}
	})
}

// TestNoRestsFromAnError: nothing is put off that calls wait for, nor what takes the
// place of saved endpoints, which may have gone long ago.
func TestNoRestsFromAnError(t *testing.T) {
	for _, before := range []*state{{err: errors.New("nothing is known")}, {attributes: attributes.New(cachedKey{}, time.Time{})}} {
		synctest.Test(t, func(t *testing.T) {
			const n = 100
			target, _ := workers(t, n, 1, func() time.Duration { return time.Millisecond })
			target.publish(before)
			target.tellAll()
			target.publish(&state{})
			begin := time.Now()
			target.mu.Lock()
			target.help()
			target.mu.Unlock()
			time.Sleep(10*time.Millisecond + time.Microsecond)
			target.publish(&state{}) // one more endpoint, for those who have none
			target.work.Wait()
			// Those who had been told have to be told again.
			if got, want := time.Since(begin), (n+11)*time.Millisecond; got > want {
				t.Errorf("%d ClientConns of 1 ms each took %v, want %v", n, got, want)
			}
		})
	}
}

// TestNoRestForOne: a call that is interrupted says nothing of the others.
func TestNoRestForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		target, _ := workers(t, 100, 1, func() time.Duration {
			if calls++; calls%10 == 0 {
				return 2 * time.Millisecond
			}
			return 0
		})
		target.atWork()
		begin := time.Now()
		target.tellAll()
		if got, want := time.Since(begin), 20*time.Millisecond; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
	})
}

// TestSlowClientConns: who looks stuck and is not, is replaced and not joined.
func TestSlowClientConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, takes = 100, 33 * time.Millisecond
		target, most := workers(t, n, 1, func() time.Duration { return takes })
		target.publish(&state{})
		begin := time.Now()
		target.tellAll()
		if got, want := time.Since(begin), n/2*takes; got < want || got > 2*want || most.Load() != 3 {
			t.Errorf("%d ClientConns of %v each took %v, up to %d at a time; want %v, by two that replace one", n, takes, got, most.Load(), want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		target, _ := workers(t, 10, 1, func() time.Duration {
			if calls.Add(1) == 1 {
				return time.Second
			}
			return 0
		})
		target.publish(&state{})
		target.tellAll()
		// Who is given up before it begins is not counted either.
		target.publish(&state{})
		target.mu.Lock()
		target.help()
		target.stall()
		target.mu.Unlock()
		target.tellAll()
	})
}

// TestAllAreStuck: there is somebody to tell what comes while the only one is stuck
// who tells, with nobody to follow.
func TestAllAreStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		b := scripted(s)
		b.atOnce = 1
		target := newTarget(b, "x")
		if err := target.start(); err != nil {
			t.Fatal(err)
		}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true}, Status: naming.Status{Synced: true}})
		var now, most atomic.Int64
		var stuck atomic.Bool
		var told atomic.Int64
		join := func(takes func() time.Duration) {
			target.join(&conn{target: target, cc: worker{takes: takes, now: &now, most: &most}})
		}
		join(func() time.Duration { told.Add(1); return 0 })
		join(func() time.Duration {
			if stuck.Load() {
				return 700 * time.Millisecond
			}
			return 0
		})
		put := func(addr string) {
			s.play(naming.Event{Batch: naming.Batch{Put: []naming.Endpoint{{ID: addr, Addr: addr}}}, Status: naming.Status{Synced: true}})
		}
		time.Sleep(time.Second)
		stuck.Store(true)
		put("a:1") // and the other one is at it until 0.7 s
		time.Sleep(300 * time.Millisecond)
		put("b:1") // which it is told then, until 1.4 s
		time.Sleep(700 * time.Millisecond)
		if got := told.Load(); got != 2 {
			t.Errorf("was told %d sets, want 2", got)
		}
		put("c:1")
		time.Sleep(maxStall + 10*time.Millisecond)
		if got := told.Load(); got != 3 {
			t.Errorf("was told %d sets, want 3", got)
		}
		target.close()
	})
}

// TestReplacedByOneThatIsStuck: a ClientConn whose call ends after all is told what
// came meanwhile, though whoever took its teller's place is stuck by then.
func TestReplacedByOneThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuilder(nil, nil)
		b.atOnce = 1
		target := newTarget(b, "x")
		var now, most, told atomic.Int64
		for _, takes := range []func() time.Duration{
			func() time.Duration { told.Add(1); return time.Second },
			func() time.Duration { return time.Hour },
		} {
			target.join(&conn{target: target, cc: worker{takes: takes, now: &now, most: &most}})
		}
		target.publish(&state{})
		target.mu.Lock()
		target.help()
		target.mu.Unlock()
		time.Sleep(500 * time.Millisecond) // the first is given up, the second is at it
		target.publish(&state{})           // for both, when they come back
		time.Sleep(time.Second)
		if got := told.Load(); got != 2 {
			t.Errorf("was told %d sets, want 2", got)
		}
		target.work.Wait()
	})
}
