package resolver

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

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

// log is a ClientConn that records its calls.
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

// want waits until all goroutines are blocked, and compares the new lines.
func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.lines, want) {
		t.Errorf("got %q, want %q", l.lines, want)
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

// playAll plays events one by one, and compares the calls of a ClientConn after each.
func playAll(t *testing.T, opts *Options, steps []step) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, l := new(script), new(log)
		b := NewBuilder(nil, opts)
		b.follow = scripted(s).follow
		r, err := b.Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i, step := range steps {
			time.Sleep(time.Second)
			step.event.Status.Synced = true
			s.play(step.event)
			synctest.Wait()
			l.mu.Lock()
			got := l.lines
			l.lines = nil
			l.mu.Unlock()
			if !slices.Equal(got, step.want) {
				t.Errorf("step %d: got %q, want %q", i, got, step.want)
			}
		}
		r.Close()
		if !s.closed {
			t.Error("the source was not closed")
		}
	})
}

// step is an event, and the calls of a ClientConn that have to follow.
type step struct {
	event naming.Event
	want  []string
}

func batch(put []naming.Endpoint, deleted ...string) naming.Batch {
	return naming.Batch{Put: put, Deleted: deleted}
}

func held(endpoints ...naming.Endpoint) naming.Status { return naming.Status{Held: endpoints} }

const hasNone = `error naming: service "x" has no endpoints`

// TestFieldI2HeldOnlyWhileNothingElse: while one endpoint stays usable, no held endpoint
// is called.
func TestFieldI2HeldOnlyWhileNothingElse(t *testing.T) {
	playAll(t, nil, []step{
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b", "c")}}, []string{"state a b c"}},
		{naming.Event{Batch: batch(nil, "a", "b"), Status: held(endpoints("a", "b")...)}, []string{"state c"}},
		{naming.Event{Status: held(endpoints("a", "b")...)}, nil},
		{naming.Event{Batch: batch(endpoints("a")), Status: held(endpoints("b")...)}, []string{"state a c"}},
		{naming.Event{Batch: batch(endpoints("b")), Status: held(endpoints("b")...)}, []string{"state a b c"}},
		// All are gone: all are held.
		{naming.Event{Batch: batch(nil, "a", "b", "c"), Status: held(endpoints("a", "b", "c")...)}, nil},
		// One is back and takes over, then all are.
		{naming.Event{Batch: batch(endpoints("b")), Status: held(endpoints("a", "c")...)}, []string{"state b a c"}},
		{naming.Event{Batch: batch(endpoints("a", "c"))}, []string{"state a b c"}},
		{naming.Event{Batch: batch(nil, "a", "b", "c"), Status: held(endpoints("a", "b", "c")...)}, nil},
		// Until the hold ends.
		{naming.Event{}, []string{"state", hasNone}},
		{naming.Event{Status: held(draining("a"), draining("b"))}, []string{"state a b"}},
		{naming.Event{Status: held(draining("a"), naming.Endpoint{ID: "b", Addr: "b"})}, []string{"state b"}},
		{naming.Event{Batch: batch(endpoints("z")), Status: held(draining("a"))}, []string{"state z"}},
		{naming.Event{Batch: batch([]naming.Endpoint{draining("z")}), Status: held(endpoints("a")...)}, []string{"state z a"}},
		{naming.Event{Batch: batch([]naming.Endpoint{{ID: "y", Addr: "y", Draining: true}}), Status: held(endpoints("a")...)}, []string{"state y z a"}},
		{naming.Event{Batch: batch(nil, "z", "y"), Status: held(endpoints("a")...)}, []string{"state a"}},
		{naming.Event{}, []string{"state", hasNone}},
	})
}

// TestFieldI2ThresholdSpreadsTheLoad: with a threshold, held endpoints share the
// load until enough are back.
func TestFieldI2ThresholdSpreadsTheLoad(t *testing.T) {
	playAll(t, &Options{PanicThreshold: 0.5, Logger: slog.New(slog.DiscardHandler)}, []step{
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b", "c", "d")}}, []string{"state a b c d"}},
		{naming.Event{Batch: batch(nil, "a", "b", "c", "d"), Status: held(endpoints("a", "b", "c", "d")...)}, nil},
		{naming.Event{Batch: batch(endpoints("d")), Status: held(endpoints("a", "b", "c")...)}, []string{"state d a b c"}},
		{naming.Event{Batch: batch(endpoints("c")), Status: held(endpoints("a", "b")...)}, []string{"state c d a b"}},
		{naming.Event{Batch: batch(endpoints("a", "b"))}, []string{"state a b c d"}},
	})
}

// TestFieldI2TakingOver: the first endpoints that are back after a common loss do not
// get all calls at once, whether the loss was seen, or found after an outage.
func TestFieldI2TakingOver(t *testing.T) {
	stale := func(s naming.Status) naming.Status { s.StaleSince = time.Unix(1, 0); return s }
	all := naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b", "c")}}
	for name, first := range map[string][]naming.Event{
		"a loss": {
			{Batch: batch(nil, "a", "b", "c"), Status: held(endpoints("a", "b", "c")...)},
			{Batch: batch(endpoints("b")), Status: held(endpoints("a", "c")...)},
		},
		"an outage": {
			{Status: stale(held())},
			{Batch: naming.Batch{Snapshot: true, Put: endpoints("b")}, Status: stale(held(endpoints("a", "c")...))},
		},
		"a short outage": {
			{Status: stale(held())},
			{Batch: naming.Batch{Snapshot: true, Put: endpoints("b")}, Status: held(endpoints("a", "c")...)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, l := new(script), new(log)
				r, err := scripted(s).Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
				if err != nil {
					t.Fatal(err)
				}
				play := func(e naming.Event, want ...string) {
					t.Helper()
					e.Status.Synced = true
					s.play(e)
					l.want(t, want...)
				}
				play(all, "state a b c")
				time.Sleep(time.Minute)
				play(first[0])
				time.Sleep(time.Minute)
				play(first[1], "state b a c")
				time.Sleep(9 * time.Second)
				l.want(t)
				// A later change does not prolong the takeover.
				play(naming.Event{Batch: batch(endpoints("d")), Status: held(endpoints("a", "c")...)}, "state b d a c")
				time.Sleep(time.Second)
				l.want(t, "state b d")
				play(naming.Event{Status: stale(held(endpoints("a", "c")...))})
				time.Sleep(time.Minute)
				play(naming.Event{Batch: batch(nil, "d"), Status: held(endpoints("a", "c")...)}, "state b")
				// All are lost once more, and one of them is put into maintenance while
				// another takes over.
				time.Sleep(time.Second)
				play(naming.Event{Batch: batch(nil, "b"), Status: held(endpoints("a", "b", "c")...)}, "state a b c")
				time.Sleep(time.Minute)
				play(naming.Event{Batch: batch(endpoints("b")), Status: held(endpoints("a", "c")...)}, "state b a c")
				time.Sleep(time.Second)
				play(naming.Event{Batch: naming.Batch{Withheld: withheld(naming.Maintenance, "a")}, Status: held(endpoints("a", "c")...)}, "state b c")
				time.Sleep(time.Second)
				play(naming.Event{}, "state b")
				time.Sleep(time.Minute)
				l.want(t)
				r.Close()
			})
		})
	}
}

// TestFieldI2OnlyCalledOnesStay: during a takeover, a held endpoint that was not in the
// list before does not get into the list.
func TestFieldI2OnlyCalledOnesStay(t *testing.T) {
	stale := func(s naming.Status) naming.Status { s.StaleSince = time.Unix(1, 0); return s }
	playAll(t, nil, []step{
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b", "c")}}, []string{"state a b c"}},
		{naming.Event{Batch: batch(nil, "a"), Status: held(endpoints("a")...)}, []string{"state b c"}},
		{naming.Event{Status: stale(held(endpoints("a")...))}, nil},
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("c")}, Status: held(endpoints("a", "b")...)}, []string{"state c b"}},
		// Nor does an endpoint that becomes held during the takeover.
		{naming.Event{Status: held(endpoints("a", "b", "d")...)}, nil},
	})
}

// TestFieldI1BothMarksDrain: the mark beside the metadata means what the member of
// the metadata means.
func TestFieldI1BothMarksDrain(t *testing.T) {
	mark := func(addr string) naming.Endpoint { return naming.Endpoint{ID: addr, Addr: addr, Draining: true} }
	playAll(t, nil, []step{
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: []naming.Endpoint{mark("a"), {ID: "b", Addr: "b"}, draining("c")}}}, []string{"state b"}},
		{naming.Event{Batch: batch([]naming.Endpoint{mark("b")})}, []string{"state a b c"}},
		{naming.Event{Batch: batch([]naming.Endpoint{{ID: "a", Addr: "a", Metadata: []byte(`{}`)}})}, []string{"state a"}},
		{naming.Event{Batch: batch([]naming.Endpoint{mark("a"), {ID: "a2", Addr: "a"}})}, []string{"state a"}},
	})
}

// TestFieldW1LeavesAtOnce: an endpoint that the registry withholds leaves the list at
// once, also if it is held, and is back when it may be used.
func TestFieldW1LeavesAtOnce(t *testing.T) {
	down := func(w []naming.Withheld) naming.Event { return naming.Event{Batch: naming.Batch{Withheld: w}} }
	playAll(t, nil, []step{
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("a", "b"), Withheld: withheld(naming.Maintenance, "c")}}, []string{"state a b"}},
		{down(withheld(naming.Maintenance, "a")), []string{"state b"}},
		{naming.Event{Batch: batch(endpoints("c"))}, []string{"state b c"}},
		{down(withheld(naming.FailedCheck, "b")), []string{"state c"}},
		// It must not be used, held or not, by ID or by address.
		{naming.Event{Batch: batch(nil, "c"), Status: held(append(endpoints("a", "b"), naming.Endpoint{ID: "a", Addr: "a2"}, naming.Endpoint{ID: "b2", Addr: "b"})...)},
			[]string{"state", `error naming: service "x" has no endpoints to use: the registry withholds 2: 1 maintenance, 1 failed check`}},
		{naming.Event{Status: held(endpoints("a", "h")...)}, []string{"state h"}},
		{naming.Event{Batch: batch(nil, "a")}, []string{"state", `error naming: service "x" has no endpoints to use: the registry withholds 1: 1 failed check`}},
		// The reason is reported again when it changes, and only then.
		{down([]naming.Withheld{{Endpoint: endpoints("b")[0], Reason: naming.Maintenance, Detail: "disk\nfull"}}),
			[]string{`error naming: service "x" has no endpoints to use: the registry withholds 1: 1 maintenance (disk\nfull)`}},
		{down([]naming.Withheld{{Endpoint: endpoints("b")[0], Reason: naming.Maintenance, Detail: "disk\nfull"}}), nil},
		{down([]naming.Withheld{{Endpoint: endpoints("b")[0], Reason: 200}}), []string{`error naming: service "x" has no endpoints to use: the registry withholds 1: 1 maintenance`}},
		{naming.Event{Batch: batch(nil, "b")}, []string{hasNone}},
		// The same address under another ID.
		{naming.Event{Batch: naming.Batch{Put: []naming.Endpoint{{ID: "1", Addr: "a"}}, Withheld: withheld(naming.Maintenance, "a")}}, []string{"state a"}},
		{down([]naming.Withheld{{Endpoint: naming.Endpoint{ID: "1", Addr: "a"}, Reason: naming.Maintenance}}),
			[]string{"state", `error naming: service "x" has no endpoints to use: the registry withholds 2: 2 maintenance`}},
		// A snapshot replaces everything.
		{naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("1", "a")}}, []string{"state 1 a"}},
	})
}

// TestFieldW1PanicThreshold: endpoints with a failed check are used below the
// threshold, after the others, and never those in maintenance.
func TestFieldW1PanicThreshold(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	start := naming.Event{Batch: naming.Batch{Snapshot: true, Put: endpoints("b", "c", "d"), Withheld: append(withheld(naming.FailedCheck, "a"), withheld(naming.Maintenance, "m", "n", "o")...)}}
	fail := func(reason naming.Reason, addrs ...string) naming.Event {
		return naming.Event{Batch: naming.Batch{Withheld: withheld(reason, addrs...)}}
	}
	for _, c := range []struct {
		threshold float64
		steps     []step
	}{
		{0, []step{{start, []string{"state b c d"}}, {fail(naming.FailedCheck, "b", "c"), []string{"state d"}},
			{fail(naming.FailedCheck, "d"), []string{"state", `error naming: service "x" has no endpoints to use: the registry withholds 7: 3 maintenance, 4 failed check`}}}},
		{0.5, []step{{start, []string{"state b c d"}}, {fail(naming.FailedCheck, "b"), []string{"state c d"}}, {fail(naming.FailedCheck, "c"), []string{"state d a b c"}},
			{fail(naming.Maintenance, "a"), []string{"state d b c"}}, {fail(naming.FailedCheck, "d"), []string{"state b c d"}},
			{naming.Event{Batch: batch(endpoints("b", "c"))}, []string{"state b c"}}}},
		{1, []step{{start, []string{"state b c d a"}}, {naming.Event{Batch: batch(nil, "a")}, []string{"state b c d"}}}},
		{7, []step{{start, []string{"state b c d a"}}}},
		{-1, []step{{start, []string{"state b c d"}}}},
		{math.NaN(), []step{{start, []string{"state b c d"}}}},
		{math.Inf(1), []step{{start, []string{"state b c d a"}}}},
		{0.75, []step{{start, []string{"state b c d"}}}},
		{0.76, []step{{start, []string{"state b c d a"}}}},
	} {
		t.Run(fmt.Sprint(c.threshold), func(t *testing.T) {
			playAll(t, &Options{PanicThreshold: c.threshold, Logger: quiet}, c.steps)
		})
	}
}

// TestFieldW1PanicIsTold: both ends of a panic are logged once. A policy can see which
// endpoints failed, also when nothing else changes.
func TestFieldW1PanicIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, logged := new(script), new(states), new(bytes.Buffer)
		b := NewBuilder(nil, &Options{PanicThreshold: 0.5, Logger: slog.New(slog.NewTextHandler(logged, nil))})
		b.follow = scripted(s).follow
		r, err := b.Build(grpcresolver.Target{URL: parse("naming:///x")}, l, grpcresolver.BuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		play := func(b naming.Batch, want string) {
			t.Helper()
			time.Sleep(time.Second)
			s.play(naming.Event{Batch: b, Status: naming.Status{Synced: true}})
			synctest.Wait()
			if got := l.last; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		play(naming.Batch{Snapshot: true, Put: endpoints("a")}, "a")
		play(naming.Batch{Withheld: withheld(naming.FailedCheck, "a")}, "a!")
		play(naming.Batch{Withheld: withheld(naming.FailedCheck, "b")}, "a! b!")
		play(naming.Batch{Put: endpoints("a", "b")}, "a b")
		r.Close()
		lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "WARN") || !strings.Contains(lines[0], "too few") || !strings.Contains(lines[1], "INFO") {
			t.Errorf("logged %q", lines)
		}
	})
}

// states is a ClientConn that records the last state, with a mark at endpoints that failed
// a check.
type states struct {
	log
	last string
}

func (l *states) UpdateState(s grpcresolver.State) error {
	var list []string
	for _, e := range s.Endpoints {
		addr := e.Addresses[0].Addr
		if r, ok := ReasonOf(e); ok && r == naming.FailedCheck {
			addr += "!"
		}
		list = append(list, addr)
	}
	l.last = strings.Join(list, " ")
	return nil
}

// TestFieldW1NoRests: a thousand ClientConns that each take 0.7 ms get the withdrawal of an
// endpoint within a second, also during other changes, because there are no rests.
func TestFieldW1NoRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, takes = 1000, 700 * time.Microsecond
		s := new(script)
		b := scripted(s)
		b.deliverers = 1
		target := newTarget(b, "x")
		if err := target.start(); err != nil {
			t.Fatal(err)
		}
		var now, most, slow atomic.Int64
		for range n {
			target.dispatcher.join(&conn{target: target, cc: worker{takes: func() time.Duration { return time.Duration(slow.Load()) }, now: &now, most: &most}})
		}
		play := func(b naming.Batch) { s.play(naming.Event{Batch: b, Status: naming.Status{Synced: true}}) }
		play(naming.Batch{Snapshot: true, Put: endpoints("a", "b")})
		time.Sleep(time.Minute)
		slow.Store(int64(takes))
		play(naming.Batch{Put: endpoints("c")})
		time.Sleep(10 * time.Millisecond) // deliveries in progress, with rests
		play(naming.Batch{Withheld: withheld(naming.Maintenance, "a")})
		begin := time.Now()
		synctest.Wait()
		time.Sleep(time.Second)
		target.dispatcher.queue.Lock()
		defer target.dispatcher.queue.Unlock()
		for i, c := range target.dispatcher.queue.conns {
			if c.place.phase != idle || c.delivered != target.dispatcher.queue.state.number {
				t.Fatalf("ClientConn %d has state %d of %d after %v", i, c.delivered, target.dispatcher.queue.state.number, time.Since(begin))
			}
		}
		if got := len(target.dispatcher.queue.state.endpoints); got != 2 {
			t.Errorf("%d endpoints", got)
		}
		go target.close()
	})
}

// TestFieldR13Errors: an error that reaches the caller of an RPC is cut and quoted,
// whatever the registry answers and however long the name is.
func TestFieldR13Errors(t *testing.T) {
	nasty := strings.Repeat("x\x1b[31m\n\u202e\xff", 50_000)
	check := func(text string) {
		t.Helper()
		if len(text) > naming.MaxText+len("... (1000000 bytes more)") || !utf8.ValidString(text) {
			t.Errorf("a text of %d bytes: %.100q", len(text), text)
		}
		for _, r := range text {
			if !unicode.IsPrint(r) {
				t.Errorf("%U in %.100q", r, text)
				break
			}
		}
	}
	for _, service := range []string{"x", strings.Repeat("ü", naming.MaxServiceName/2), strings.Repeat("\x00", naming.MaxServiceName)} {
		synctest.Test(t, func(t *testing.T) {
			s, l := new(script), new(log)
			b := scripted(s)
			r, err := b.Build(grpcresolver.Target{URL: parse(b.Target(service))}, l, grpcresolver.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			s.play(naming.Event{Status: naming.Status{Err: errors.New(nasty)}})
			synctest.Wait()
			s.play(naming.Event{Batch: naming.Batch{Snapshot: true, Withheld: []naming.Withheld{
				{Endpoint: endpoints("a")[0], Reason: naming.Maintenance, Detail: nasty}, {Endpoint: endpoints("b")[0], Reason: naming.FailedCheck, Detail: nasty},
			}}, Status: naming.Status{Synced: true}})
			synctest.Wait()
			if len(l.lines) != 2 {
				t.Errorf("got %d states", len(l.lines))
			}
			for _, line := range l.lines {
				check(strings.TrimPrefix(line, "error "))
			}
			if last := l.lines[len(l.lines)-1]; service == "x" && (!strings.Contains(last, "1 maintenance") || !strings.Contains(last, "1 failed check")) {
				t.Errorf("said %q, want both reasons", last)
			}
			r.Close()
		})
	}
	check(made(naming.Endpoint{ID: nasty, Addr: "a:1", Metadata: []byte(nasty)}).Attributes.Value(attributeKey{}).(*member).String()[:naming.MaxText])
}

// TestALossThatWasOver: the first event has a loss, with the status of a moment at which
// the loss was over. The set was never empty, and is not published as empty.
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
			followed++ // not guarded: the race detector reports a second call
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
		if len(b.open.targets) != 0 {
			t.Errorf("%d targets left", len(b.open.targets))
		}
	})
}

func TestAFailedFollowLeavesNothing(t *testing.T) {
	b := NewBuilder(nil, nil)
	b.follow = func(string, func()) (source, error) { return (*naming.Follower)(nil), errors.New("no") }
	if _, err := b.Build(grpcresolver.Target{URL: parse("naming:///x")}, new(log), grpcresolver.BuildOptions{}); err == nil {
		t.Error("no error")
	}
	if len(b.open.targets) != 0 {
		t.Errorf("%d targets left", len(b.open.targets))
	}
}

// idler is a ClientConn that does nothing.
type idler struct{ grpcresolver.ClientConn }

func (idler) UpdateState(grpcresolver.State) error { return nil }

// TestDeliveriesAllocateNothing: the state of thousands of ClientConns is made once.
func TestDeliveriesAllocateNothing(t *testing.T) {
	target := newTarget(NewBuilder(nil, nil), "x")
	for range 1000 {
		target.dispatcher.join(&conn{target: target, cc: idler{}})
	}
	var list []grpcresolver.Endpoint
	allocs := testing.AllocsPerRun(10, func() {
		target.dispatcher.publish(&state{endpoints: list})
		target.dispatcher.dispatch()
		target.dispatcher.work.Wait()
	})
	if allocs > 100 { // on a busy machine the ticker starts deliverers
		t.Errorf("%v allocations", allocs)
	}
	for _, c := range target.dispatcher.queue.conns {
		if c.delivered != target.dispatcher.queue.state.number {
			t.Fatalf("has state %d, want %d", c.delivered, target.dispatcher.queue.state.number)
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
		s.wake() // as a Client may, just after
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

// workers returns a target with n ClientConns that got an error, of which atOnce may be
// busy at once, and the greatest number of calls in progress.
func workers(t *testing.T, n, atOnce int, takes func() time.Duration) (*target, *atomic.Int64) {
	b := NewBuilder(nil, nil)
	b.deliverers = atOnce
	target := newTarget(b, "x")
	now, most := new(atomic.Int64), new(atomic.Int64)
	for range n {
		target.dispatcher.join(&conn{target: target, cc: worker{takes: takes, now: now, most: most}})
	}
	target.dispatcher.publish(&state{err: errors.New("nothing is known")})
	begin := time.Now()
	target.deliverAll()
	if took := time.Since(begin); took != 0 {
		t.Fatalf("to report an error took %v", took)
	}
	return target, most
}

// deliverAll delivers the state as run does, and waits until all ClientConns have it. It
// panics if a deliverer is left.
func (t *target) deliverAll() {
	d := &t.dispatcher
	d.queue.Lock()
	d.startDeliverer()
	d.queue.Unlock()
	d.work.Wait()
	d.queue.Lock()
	defer d.queue.Unlock()
	if d.queue.first != nil || d.queue.deliverers != 0 {
		panic(fmt.Sprintf("%d deliverers at the end", d.queue.deliverers))
	}
}

// atWork publishes and delivers an urgent set, and publishes one that is not urgent.
func (t *target) atWork() {
	t.dispatcher.publish(&state{})
	t.deliverAll()
	time.Sleep(time.Minute)
	t.dispatcher.publish(&state{})
}

// TestRests: if a change takes ClientConns long, calls get three quarters of the time.
func TestRests(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 15 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const n = 10
			target, most := workers(t, n, 1, func() time.Duration { return takes })
			target.atWork()
			begin := time.Now()
			target.deliverAll()
			// The first ClientConn may be slow by chance, so there is no rest after it.
			want := n*takes + (n-2)*min(3*takes, 10*time.Millisecond)
			if got := time.Since(begin); got != want || most.Load() != 1 {
				t.Errorf("%d ClientConns of %v each took %v, up to %d at a time; want %v, one after the other", n, takes, got, most.Load(), want)
			}
		})
	}
}

// TestRestsEnd: rests delay no ClientConn by more than half a second.
func TestRestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		target, _ := workers(t, n, 1, func() time.Duration { return time.Millisecond })
		target.atWork()
		begin := time.Now()
		target.deliverAll()
		if got := time.Since(begin); got < n*time.Millisecond || got > (n+500)*time.Millisecond {
			t.Errorf("%d ClientConns of 1 ms each took %v, want 0.5 s of rests at most", n, got)
		}
	})
}

// TestNoRestsFromAnError: there are no rests before a state for which calls wait, nor
// before the state that replaces saved endpoints, which may have gone long ago.
func TestNoRestsFromAnError(t *testing.T) {
	for _, before := range []*state{{err: errors.New("nothing is known")}, {attributes: attributes.New(cachedKey{}, time.Time{})}} {
		synctest.Test(t, func(t *testing.T) {
			const n = 100
			target, _ := workers(t, n, 1, func() time.Duration { return time.Millisecond })
			target.dispatcher.publish(before)
			target.deliverAll()
			target.dispatcher.publish(&state{})
			begin := time.Now()
			target.dispatcher.queue.Lock()
			target.dispatcher.startDeliverer()
			target.dispatcher.queue.Unlock()
			time.Sleep(10*time.Millisecond + time.Microsecond)
			target.dispatcher.publish(&state{}) // one more endpoint, while some ClientConns have none
			target.dispatcher.work.Wait()
			// ClientConns that had the state before get the new one as well.
			if got, want := time.Since(begin), (n+11)*time.Millisecond; got > want {
				t.Errorf("%d ClientConns of 1 ms each took %v, want %v", n, got, want)
			}
		})
	}
}

// TestNoRestForOne: a single slow call causes no rest. It was probably preempted.
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
		target.deliverAll()
		if got, want := time.Since(begin), 20*time.Millisecond; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
	})
}

// TestSlowClientConns: a deliverer that looks stuck and is not, is replaced. It does not
// go on beside the deliverers that replaced it.
func TestSlowClientConns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, takes = 100, 33 * time.Millisecond
		target, most := workers(t, n, 1, func() time.Duration { return takes })
		target.dispatcher.publish(&state{})
		begin := time.Now()
		target.deliverAll()
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
		target.dispatcher.publish(&state{})
		target.deliverAll()
		// A deliverer that is given up before it begins is not counted either.
		target.dispatcher.publish(&state{})
		target.dispatcher.queue.Lock()
		target.dispatcher.startDeliverer()
		target.dispatcher.queue.giveUp()
		target.dispatcher.queue.Unlock()
		target.deliverAll()
	})
}

// TestAllAreStuck: a change that comes while the only deliverer is stuck, with an empty
// queue, gets a deliverer.
func TestAllAreStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(script)
		b := scripted(s)
		b.deliverers = 1
		target := newTarget(b, "x")
		if err := target.start(); err != nil {
			t.Fatal(err)
		}
		s.play(naming.Event{Batch: naming.Batch{Snapshot: true}, Status: naming.Status{Synced: true}})
		var now, most atomic.Int64
		var stuck atomic.Bool
		var delivered atomic.Int64
		join := func(takes func() time.Duration) {
			target.dispatcher.join(&conn{target: target, cc: worker{takes: takes, now: &now, most: &most}})
		}
		join(func() time.Duration { delivered.Add(1); return 0 })
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
		put("a:1") // which the other ClientConn has after 0.7 s
		time.Sleep(300 * time.Millisecond)
		put("b:1") // which it gets then, until 1.4 s
		time.Sleep(700 * time.Millisecond)
		if got := delivered.Load(); got != 2 {
			t.Errorf("got %d sets, want 2", got)
		}
		put("c:1")
		time.Sleep(maxStall + 10*time.Millisecond)
		if got := delivered.Load(); got != 3 {
			t.Errorf("got %d sets, want 3", got)
		}
		target.close()
	})
}

// TestReplacedByOneThatIsStuck: a ClientConn whose call ends after all gets the newest
// state, although the deliverer that replaced its own is stuck by then.
func TestReplacedByOneThatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBuilder(nil, nil)
		b.deliverers = 1
		target := newTarget(b, "x")
		var now, most, delivered atomic.Int64
		for _, takes := range []func() time.Duration{
			func() time.Duration { delivered.Add(1); return time.Second },
			func() time.Duration { return time.Hour },
		} {
			target.dispatcher.join(&conn{target: target, cc: worker{takes: takes, now: &now, most: &most}})
		}
		target.dispatcher.publish(&state{})
		target.dispatcher.queue.Lock()
		target.dispatcher.startDeliverer()
		target.dispatcher.queue.Unlock()
		time.Sleep(500 * time.Millisecond)  // the first is given up, the second is stuck
		target.dispatcher.publish(&state{}) // for both, when their calls end
		time.Sleep(time.Second)
		if got := delivered.Load(); got != 2 {
			t.Errorf("got %d sets, want 2", got)
		}
		target.dispatcher.work.Wait()
	})
}
