package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	memstore "github.com/naming-go/naming/backend/memory"
)

const (
	writerService = "svc"
	writerAddr    = "10.0.0.1:80"
	writerDelay   = 5 * time.Second // the default LeaveDelay
)

var errWriterDown = errors.New("registry is down")

// phaseSource is a Source whose state a test sets.
type phaseSource struct {
	mu      sync.Mutex
	state   State          // guarded by mu
	known   bool           // guarded by mu
	since   [2]time.Time   // since when a registry is not written; zero: it is; guarded by mu
	was, at [2]time.Time   // since before it was written again, and when that was; guarded by mu
	changed map[int]func() // guarded by mu
	next    int            // guarded by mu
}

// unwritten returns since when the phases do not write a registry. A registry that is written
// since the present instant is one that they do not write: a server cannot have noticed the
// change.
func (s *phaseSource) unwritten(i sideIndex) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since[i].IsZero() && s.at[i].Equal(time.Now()) {
		return s.was[i]
	}
	return s.since[i]
}

// noteWritten updates since. A change that is undone in the same instant does not count: a
// server cannot notice such a change. mu is held.
func (s *phaseSource) noteWritten() {
	now := time.Now()
	for i := range s.since {
		switch written := s.state.Phase.writes(sideIndex(i)); {
		case written && !s.since[i].IsZero():
			s.was[i], s.at[i] = s.since[i], now
			s.since[i] = time.Time{}
		case !written && s.since[i].IsZero() && s.at[i].Equal(now):
			s.since[i] = s.was[i]
		case !written && s.since[i].IsZero():
			s.since[i] = now
		}
	}
}

func (s *phaseSource) State(string) (State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.known
}

func (s *phaseSource) Services() map[string]State {
	st, known := s.State("")
	if !known {
		return nil
	}
	return map[string]State{"*": st}
}

func (s *phaseSource) Notify(changed func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(map[int]func())
	}
	id := s.next
	s.next++
	s.changed[id] = changed
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.changed, id)
	}
}

func (s *phaseSource) Err() error { return nil }
func (s *phaseSource) Close()     {}

// set sets the phase of all services.
func (s *phaseSource) set(p Phase) {
	for _, f := range s.setQuietly(p) {
		f()
	}
}

// setQuietly is set without the notifications, which it returns.
func (s *phaseSource) setQuietly(p Phase) map[int]func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Phase, s.known = p, true
	s.state.Seq++
	s.noteWritten()
	return maps.Clone(s.changed)
}

func phaseIs(p Phase) *phaseSource { return &phaseSource{state: State{Phase: p, Seq: 1}, known: true} }

// formatStore is a memory store whose format has no place for some content, and whose
// writes may be slow.
type formatStore struct {
	*memstore.Store

	mu      sync.Mutex
	refuses func(naming.Endpoint) bool // guarded by mu; may be nil
	delay   time.Duration              // guarded by mu
	put     time.Time                  // of the first Add since the endpoint was lost; guarded by mu
	lost    time.Time                  // when the endpoint was lost last; guarded by mu
	removes func()                     // called before each Delete; may be nil; set before the store is used
}

func newFormatStore() *formatStore { return &formatStore{Store: new(memstore.Store)} }

// refuse makes the store refuse what f returns true for. A nil f refuses nothing.
func (s *formatStore) refuse(f func(naming.Endpoint) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = f
}

// slow makes Apply and Grant take d.
func (s *formatStore) slow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// enter waits as slow says, and returns the argument of refuse.
func (s *formatStore) enter(ctx context.Context) (refuses func(naming.Endpoint) bool, err error) {
	s.mu.Lock()
	delay, f := s.delay, s.refuses
	s.mu.Unlock()
	if delay == 0 {
		return f, nil
	}
	select {
	case <-time.After(delay):
		return f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *formatStore) Grant(ctx context.Context, ttl time.Duration) (naming.Lease, error) {
	if _, err := s.enter(ctx); err != nil {
		return nil, err
	}
	return s.Store.Grant(ctx, ttl)
}

// Wipe forgets when the endpoint was put.
func (s *formatStore) Wipe() { s.forgetPut(); s.Store.Wipe() }

// ExpireAll forgets when the endpoint was put.
func (s *formatStore) ExpireAll() { s.forgetPut(); s.Store.ExpireAll() }

func (s *formatStore) forgetPut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put, s.lost = time.Time{}, time.Now()
}

// notePut notes that the endpoint was put, or removed.
func (s *formatStore) notePut(op naming.Operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == naming.Delete {
		s.put = time.Time{}
	} else if s.put.IsZero() {
		s.put = time.Now()
	}
}

// presence returns when the endpoint that is in the registry was put, and when an endpoint
// was lost last. It knows calls, wipes and ended leases.
func (s *formatStore) presence() (put, lost time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.put, s.lost
}

func (s *formatStore) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	if changes[0].Op == naming.Delete && s.removes != nil {
		s.removes()
	}
	f, err := s.enter(ctx)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Op == naming.Add && f != nil && f(c.Endpoint) {
			return fmt.Errorf("%w: the format has no place for %v", naming.ErrInvalid, c.Endpoint)
		}
	}
	if err := s.Store.Apply(ctx, service, changes...); err != nil {
		return err
	}
	s.notePut(changes[0].Op)
	return nil
}

// writer is a joined Client on two memory stores, for tests of servers.
type writer struct {
	t      *testing.T
	stores [2]*formatStore
	phases *phaseSource
	joined *Joined
}

// testWriter runs f in a bubble. The bubble fails the test if a goroutine is left.
func testWriter(t *testing.T, phases *phaseSource, opts *Options, f func(w *writer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &writer{t: t, stores: [2]*formatStore{newFormatStore(), newFormatStore()}, phases: phases}
		var o Options
		if opts != nil {
			o = *opts
		}
		if o.Client.Logger == nil {
			o.Client.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
		}
		var err error
		if w.joined, err = Join(w.stores[0], w.stores[1], phases, &o); err != nil {
			t.Fatal(err)
		}
		defer w.joined.Close()
		f(w)
	})
}

func (w *writer) register(opts *naming.RegisterOptions) *naming.Registration {
	w.t.Helper()
	g, err := w.joined.Register(context.Background(), writerService, naming.Endpoint{Addr: writerAddr}, opts)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// entries returns what a store has of the service.
func (w *writer) entries(i sideIndex) []naming.Endpoint {
	w.t.Helper()
	for b, err := range w.stores[i].Watch(context.Background(), writerService) {
		if err != nil {
			w.t.Fatal(err)
		}
		return b.Put
	}
	return nil
}

// want checks which registries have the endpoint.
func (w *writer) want(when string, old, next bool) {
	w.t.Helper()
	synctest.Wait()
	got := fmt.Sprint(len(w.entries(oldSide)) == 1, len(w.entries(newSide)) == 1)
	if want := fmt.Sprint(old, next); got != want {
		w.t.Fatalf("%s: the endpoint is in the registries %s, want %s", when, got, want)
	}
}

// wantContent checks the endpoint of a registry.
func (w *writer) wantContent(when string, i sideIndex, metadata string, draining bool) {
	w.t.Helper()
	synctest.Wait()
	list := w.entries(i)
	if len(list) != 1 || string(list[0].Metadata) != metadata || list[0].Draining != draining {
		w.t.Fatalf("%s: registry %d has %v, want metadata %s and draining %v", when, i, list, metadata, draining)
	}
}

// record returns a function that returns all states of the endpoint that a registry had
// since record was called: "-" if it was not there, and "draining" or "there".
func (w *writer) record(i sideIndex) (states func() []string) {
	var mu sync.Mutex
	var list []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		if len(list) == 0 || list[len(list)-1] != s {
			list = append(list, s)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for b, err := range w.stores[i].Watch(ctx, writerService) {
			switch {
			case err != nil:
				return
			case len(b.Put) == 0:
				add("-")
			case b.Put[0].Draining:
				add("draining")
			default:
				add("there")
			}
		}
	}()
	synctest.Wait()
	return func() []string {
		synctest.Wait()
		cancel()
		synctest.Wait()
		return list
	}
}

// took returns how long f took.
func took(f func()) time.Duration {
	begun := time.Now()
	f()
	return time.Since(begun)
}

func TestWriterFollowsPhases(t *testing.T) {
	testWriter(t, phaseIs(Old), nil, func(w *writer) {
		g := w.register(nil)
		w.want("phase 0", true, false)
		for p := DualWrite; p <= NewRead; p++ {
			w.phases.set(p)
			w.want(p.String(), true, true)
		}
		w.phases.set(Done)
		w.want("at the change to 7", true, true)
		time.Sleep(writerDelay - time.Millisecond)
		w.want("before the delay", true, true)
		time.Sleep(2 * time.Millisecond)
		w.want("after the delay", false, true)
		w.phases.set(Old)
		w.want("back in 0", true, true)
		time.Sleep(writerDelay + time.Millisecond)
		w.want("back in 0, after the delay", true, false)
		if st := g.Status(); !st.Registered || st.Err != nil {
			t.Errorf("status %+v", st)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		w.want("closed", false, false)
	})
}
