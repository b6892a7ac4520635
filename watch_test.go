package naming_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// in runs f in a bubble, on a new store and a Client on it.
func in(t *testing.T, opts *naming.Options, f func(t *testing.T, s *memory.Store, c *naming.Client)) {
	t.Helper()
	if opts == nil {
		opts = quiet
	}
	synctest.Test(t, func(t *testing.T) {
		s := new(memory.Store)
		c := naming.New(s, opts)
		defer c.Close()
		f(t, s, c)
	})
}

// put adds endpoints without a lease, each written as "id addr metadata", "id addr" or
// "addr".
func put(t *testing.T, s naming.Store, service string, endpoints ...string) {
	t.Helper()
	var changes []naming.Change
	for _, e := range endpoints {
		changes = append(changes, naming.Change{Endpoint: endpoint(e)})
	}
	if err := s.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

func endpoint(s string) naming.Endpoint {
	f := strings.SplitN(s, " ", 3)
	switch len(f) {
	case 1:
		return naming.Endpoint{ID: f[0], Addr: f[0]}
	case 2:
		return naming.Endpoint{ID: f[0], Addr: f[1]}
	}
	return naming.Endpoint{ID: f[0], Addr: f[1], Metadata: json.RawMessage(f[2])}
}

func remove(t *testing.T, s naming.Store, service string, ids ...string) {
	t.Helper()
	var changes []naming.Change
	for _, id := range ids {
		changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: id}})
	}
	if err := s.Apply(t.Context(), service, changes...); err != nil {
		t.Fatal(err)
	}
}

// next fails t unless w's next updates are want, each written as "Op addr metadata".
func next(t *testing.T, w naming.Watcher, want ...string) {
	t.Helper()
	// In a bubble, a Next that blocks for ever is not a deadlock while the watch is
	// retried for ever. Ten hours of a bubble take no time.
	late := time.AfterFunc(10*time.Hour, w.Close)
	defer late.Stop()
	ups, err := w.Next()
	if err != nil {
		t.Fatalf("Next: %v, want %v", err, want)
	}
	if ups == nil {
		t.Fatal("Next returned nil, want a slice")
	}
	if got := render(ups); !slices.Equal(got, want) {
		t.Fatalf("Next returned %q, want %q", got, want)
	}
}

func render(ups []*naming.Update) []string {
	var list []string
	for _, u := range ups {
		m, _ := json.Marshal(u.Metadata)
		list = append(list, fmt.Sprintf("%v %s %s", u.Op, u.Addr, m))
	}
	return list
}

// silent fails t if w's Next returns, and closes w.
func silent(t *testing.T, w naming.Watcher) {
	t.Helper()
	done := make(chan []string, 1)
	go func() {
		ups, _ := w.Next()
		done <- render(ups)
	}()
	synctest.Wait()
	select {
	case got := <-done:
		t.Fatalf("Next returned %q, want it to block", got)
	default:
	}
	w.Close()
	<-done
}

func resolve(t *testing.T, c *naming.Client, service string) naming.Watcher {
	t.Helper()
	w, err := c.Resolve(service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func TestWatcher(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		w := resolve(t, c, "svc")
		next(t, w) // the empty set
		put(t, s, "svc", "b:1", `a a:1 {"k":1}`)
		next(t, w, `Add a:1 {"k":1}`, "Add b:1 null") // one batch, sorted
		put(t, s, "svc", `a a:1 {"k":2}`)
		next(t, w, `Add a:1 {"k":2}`)
		put(t, s, "svc", `a a:2 {"k":2}`)
		next(t, w, `Delete a:1 {"k":2}`, `Add a:2 {"k":2}`)
		remove(t, s, "svc", "b:1")
		next(t, w, "Delete b:1 null")

		put(t, s, "svc", "b:1", "c:1")
		remove(t, s, "svc", "c:1", "a")
		put(t, s, "svc", "b b:1 true")
		synctest.Wait()
		next(t, w, `Delete a:2 {"k":2}`, "Add b:1 true", "Add b:1 null") // net, by ID: "b" before "b:1"

		put(t, s, "svc", `b b:1  true `)
		silent(t, w) // spelt in another way, not changed
		late := resolve(t, c, "svc")
		next(t, late, "Add b:1 true", "Add b:1 null")
	})
}

// Entries with different IDs are different endpoints, also if their addresses are equal.
func TestWatcherEqualAddresses(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "one a:1", "two a:1")
		w := resolve(t, c, "svc")
		next(t, w, "Add a:1 null", "Add a:1 null")
		remove(t, s, "svc", "one")
		next(t, w, "Delete a:1 null")
		silent(t, w)
		for v := range c.Watch(t.Context(), "svc") {
			if want := []naming.Endpoint{{ID: "two", Addr: "a:1"}}; !slices.EqualFunc(v.Endpoints, want, naming.Endpoint.Equal) {
				t.Errorf("endpoints %v, want %v", v.Endpoints, want)
			}
			break
		}
	})
}

// A number that is too large for a float64 is not lost.
func TestWatcherLargeNumber(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", `a a:1 {"n":1e400,"m":"kept"}`)
		next(t, resolve(t, c, "svc"), `Add a:1 {"m":"kept","n":1e400}`)
	})
}

// An outage does not change the set, is in the View and in the log, and ends with the
// difference.
func TestOutage(t *testing.T) {
	var log bytes.Buffer
	opts := &naming.Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "stale" {
				return slog.Attr{}
			}
			return a
		},
	}))}
	in(t, opts, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "gone:1", "kept:1")
		w := resolve(t, c, "svc")
		next(t, w, "Add gone:1 null", "Add kept:1 null")
		nextView, stop := iter.Pull2(c.Watch(t.Context(), "svc"))
		defer stop()
		fresh, _, _ := nextView()
		if fresh.Stale() || !fresh.Synced || fresh.Err != nil || fresh.Service != "svc" {
			t.Errorf("fresh view: %+v", fresh)
		}
		if log.Len() > 0 {
			t.Errorf("a healthy Client logged: %s", log.String())
		}

		down := errors.New("registry down")
		before := time.Now()
		s.Down(down)
		remove := func() { // the Client does not see it
			s.Up()
			remove(t, s, "svc", "gone:1")
			put(t, s, "svc", "new:1")
			s.Down(down)
		}
		remove()
		stale, _, _ := nextView()
		if !stale.Stale() || !stale.StaleSince.Equal(before) || !errors.Is(stale.Err, down) || !slices.Equal(ids(stale.Endpoints), []string{"gone:1", "kept:1"}) {
			t.Errorf("stale view: %+v", stale)
		}
		time.Sleep(time.Hour)
		s.Up()
		next(t, w, "Delete gone:1 null", "Add new:1 null")
		changed, _, _ := nextView()
		if !changed.Stale() || !changed.StaleSince.Equal(before) || !changed.AsOf.Equal(stale.AsOf) || !slices.Equal(ids(changed.Endpoints), []string{"kept:1", "new:1"}) {
			t.Errorf("view after the first snapshot: %+v", changed)
		}
		again, _, _ := nextView()
		if again.Stale() || again.Err != nil || !slices.Equal(ids(again.Endpoints), []string{"kept:1", "new:1"}) {
			t.Errorf("view after the outage: %+v", again)
		}
		if waited := time.Since(before); waited > time.Hour+60*time.Second {
			t.Errorf("fresh again after %v, want within 30s for the watch and 30s for its proof", waited-time.Hour)
		}
	})
	want := `level=WARN msg="naming: watch failed, will be tried again" service=svc err="memory: watch \"svc\": registry down" "endpoints kept"=2
level=INFO msg="naming: fresh again" service=svc endpoints=2
`
	if log.String() != want {
		t.Errorf("log:\n%s\nwant:\n%s", log.String(), want)
	}
}

func ids(list []naming.Endpoint) []string {
	var ids []string
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	return ids
}

// A registry that accepts every watch and fails it at once gets few requests. After a
// long healthy time the first retry comes soon.
func TestBackoff(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		w := resolve(t, c, "svc")
		next(t, w)
		begin := s.Calls()
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
			s.Break(io.ErrUnexpectedEOF)
		}
		// On average one in 15 s, after the first few.
		if n := s.Calls() - begin; n < 20 || n > 80 {
			t.Errorf("%d watches in ten minutes of failures, want about 45", n)
		}
		time.Sleep(time.Minute)
		begin = s.Calls()
		s.Break(io.ErrUnexpectedEOF)
		time.Sleep(100*time.Millisecond + 1)
		if n := s.Calls() - begin; n != 1 {
			t.Errorf("%d watches within 100 ms after a healthy minute, want 1", n)
		}
	})
}

// Retry has a failed watch retried at once, and not more than once a second even if it is
// called often.
func TestRetry(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		f, err := c.Follow("svc", func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w := resolve(t, c, "svc")
		next(t, w)
		hurry := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				f.Retry()
			}
		}
		calls := s.Calls()
		hurry(time.Minute)
		if n := s.Calls() - calls; n > 0 {
			t.Errorf("a healthy watch was started again %d times", n)
		}
		for range 20 {
			s.Down(io.ErrUnexpectedEOF)
			time.Sleep(5 * time.Minute)
			put := func() { s.Up(); put(t, s, "svc", fmt.Sprint("new", s.Calls())) }
			put()
			begin := time.Now()
			f.Retry()
			if _, err := w.Next(); err != nil || time.Since(begin) > hurryBound {
				t.Errorf("back after %v, %v; want no more than %v", time.Since(begin), err, hurryBound)
			}
		}
		s.Down(io.ErrUnexpectedEOF)
		time.Sleep(5 * time.Minute)
		calls = s.Calls()
		hurry(time.Minute)
		if n := s.Calls() - calls; n < 50 || n > 61 {
			t.Errorf("%d tries in a minute of hurry, want no more than 60", n)
		}
	})
}

// hurryBound is the interval at which a watch is retried in a hurry, plus the jitter.
const hurryBound = 1100 * time.Millisecond

// Any number of readers share one watch of the store, also if all of them come at once.
// The watch goes on for a while after the last reader left.
func TestOneWatch(t *testing.T) {
	in(t, &naming.Options{IdleGrace: time.Minute, Logger: quiet.Logger}, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a:1")
		var wg sync.WaitGroup
		read := func() {
			for range 200 {
				wg.Go(func() {
					w, err := c.Resolve("svc")
					if err != nil {
						t.Error(err)
						return
					}
					next(t, w, "Add a:1 null")
					w.Close()
				})
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
					defer cancel()
					for v, err := range c.Watch(ctx, "svc") {
						if len(v.Endpoints) != 1 {
							t.Errorf("view %v, %v", v, err)
						}
						break
					}
				})
			}
			wg.Wait()
		}
		begin := s.Calls()
		read()
		time.Sleep(59 * time.Second)
		read()
		time.Sleep(59 * time.Second)
		s.Down(io.ErrUnexpectedEOF) // answered from memory
		read()
		s.Up()
		if n := s.Calls() - begin; n != 1 {
			t.Errorf("the store was asked %d times, want once", n)
		}
		time.Sleep(2 * time.Minute)
		begin = s.Calls()
		time.Sleep(time.Hour)
		if n := s.Calls() - begin; n != 0 {
			t.Errorf("a watch without readers asked %d times after its grace period", n)
		}
		read()
		if n := s.Calls() - begin; n != 1 {
			t.Errorf("a reader after the grace period: the store was asked %d times, want once", n)
		}
	})
	in(t, &naming.Options{IdleGrace: -1, Logger: quiet.Logger}, func(t *testing.T, s *memory.Store, c *naming.Client) {
		for range 2 {
			w := resolve(t, c, "svc")
			next(t, w)
			w.Close()
		}
		if n := s.Calls(); n != 2 {
			t.Errorf("without a grace period the store was asked %d times for two readers, want twice", n)
		}
	})
}

// lossy loses all batches but the first of a watch.
type lossy struct{ *memory.Store }

func (s lossy) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		first := true
		for b, err := range s.Store.Watch(ctx, service) {
			if first || err != nil {
				if !yield(b, err) {
					return
				}
			}
			first = false
		}
	}
}

func TestReread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lossy{new(memory.Store)}
		c := naming.New(s, &naming.Options{ResyncEvery: time.Minute, Logger: quiet.Logger})
		defer c.Close()
		put(t, s, "svc", "a:1")
		w := resolve(t, c, "svc")
		next(t, w, "Add a:1 null")
		remove(t, s, "svc", "a:1")
		put(t, s, "svc", "b:1")
		begin := time.Now()
		next(t, w, "Delete a:1 null", "Add b:1 null")
		if d := time.Since(begin); d < 54*time.Second || d > 66*time.Second {
			t.Errorf("repaired after %v, want a minute", d)
		}
		for v := range c.Watch(t.Context(), "svc") {
			if v.Stale() {
				t.Errorf("a periodic read made the view stale: %v", v.Err)
			}
			break
		}
	})
}

// A reader that never reads costs memory in proportion to the set, not to the changes.
func TestSlowReaders(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		w := resolve(t, c, "svc")
		next(t, w)
		f, err := c.Follow("svc", func() {})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Next()
		nextView, stop := iter.Pull2(c.Watch(t.Context(), "svc"))
		defer stop()
		nextView()
		churn := func(n int) {
			for i := range n {
				put(t, s, "svc", fmt.Sprintf("id%d a:1 %d", i%5, i), fmt.Sprintf("once%d", i))
				remove(t, s, "svc", fmt.Sprintf("once%d", i))
				synctest.Wait()
			}
		}
		churn(1000)
		before := heap()
		churn(20000)
		if grown := int64(heap()) - int64(before); grown > 200_000 {
			t.Errorf("20,000 changes to 5 endpoints cost %d bytes while nobody read", grown)
		}
		next(t, w, "Add a:1 19995", "Add a:1 19996", "Add a:1 19997", "Add a:1 19998", "Add a:1 19999")
		e, ok := f.Next()
		if !ok || len(e.Put) != 5 || len(e.Deleted) != 0 {
			t.Errorf("Follower.Next returned %v, %v", e, ok)
		}
		if v, _, _ := nextView(); len(v.Endpoints) != 5 {
			t.Errorf("view of %v", v.Endpoints)
		}
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestWatcherClose(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		closed := func(w naming.Watcher) {
			t.Helper()
			for range 2 {
				if ups, err := w.Next(); err != naming.ErrWatcherClosed || ups != nil {
					t.Errorf("Next after Close: %v, %v", ups, err)
				}
			}
		}
		w := resolve(t, c, "svc")
		w.Close()
		w.Close()
		closed(w)

		// While Next blocks, after the first set and before it.
		synced := resolve(t, c, "svc")
		next(t, synced)
		s.Silence()
		unsynced := resolve(t, c, "other")
		for _, w := range []naming.Watcher{synced, unsynced} {
			go func() {
				time.Sleep(time.Second)
				w.Close()
			}()
			closed(w)
		}
		s.Speak()

		// With changes left to read.
		put(t, s, "svc", "a:1")
		w = resolve(t, c, "svc")
		synctest.Wait()
		w.Close()
		closed(w)

		// Concurrent calls of Next: each change goes to one of them.
		w = resolve(t, c, "svc")
		got := make(chan string, 10)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					ups, err := w.Next()
					if err != nil {
						return
					}
					for _, u := range ups {
						got <- u.Op.String() + u.Addr
					}
				}
			})
		}
		synctest.Wait()
		put(t, s, "svc", "b:1")
		synctest.Wait()
		remove(t, s, "svc", "a:1")
		synctest.Wait()
		w.Close()
		wg.Wait()
		close(got)
		var all []string
		for g := range got {
			all = append(all, g)
		}
		if want := []string{"Adda:1", "Addb:1", "Deletea:1"}; !slices.Equal(all, want) {
			t.Errorf("three concurrent readers got %v, want %v", all, want)
		}
	})
}

func TestRegistryClose(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a:1")
		w := resolve(t, c, "svc")
		next(t, w, "Add a:1 null")
		var woken int
		f, err := c.Follow("svc", func() { woken++ })
		if err != nil {
			t.Fatal(err)
		}
		f.Next()
		errs := make(chan error, 3)
		go func() {
			_, err := w.Next()
			errs <- err
		}()
		go func() {
			for _, err := range c.Watch(t.Context(), "svc") {
				if err != nil {
					errs <- err
				}
			}
		}()
		go func() {
			for _, err := range c.Services(t.Context()) {
				if err != nil {
					errs <- err
				}
			}
		}()
		synctest.Wait()
		before := woken
		c.Close()
		c.Close()
		for range 3 {
			if err := <-errs; err != naming.ErrWatcherClosed && !errors.Is(err, naming.ErrClientClosed) {
				t.Errorf("a reader ended with %v", err)
			}
		}
		if woken == before {
			t.Error("the follower was not woken")
		}
		if e, ok := f.Next(); !ok || !errors.Is(e.Status.Err, naming.ErrClientClosed) || !e.Status.Synced || len(e.Put)+len(e.Deleted) > 0 {
			t.Errorf("Follower.Next: %+v, %v", e, ok)
		}
		f.Close()
		if e, ok := f.Next(); ok {
			t.Errorf("Follower.Next after Close: %v", e)
		}
		w.Close()

		_, err1 := c.Resolve("svc")
		_, err2 := c.Follow("svc", func() {})
		_, err3 := c.List(t.Context(), "svc")
		err4 := c.Update(t.Context(), "svc", naming.Update{Addr: "a:1"})
		for _, err := range []error{err1, err2, err3, err4, last(c.Watch(t.Context(), "svc")), last(c.Services(t.Context()))} {
			if !errors.Is(err, naming.ErrClientClosed) {
				t.Errorf("after Close: %v, want %v", err, naming.ErrClientClosed)
			}
		}
	})
}

// last returns the error with which a sequence ends.
func last[T any](seq iter.Seq2[T, error]) (err error) {
	for _, err = range seq {
	}
	return err
}

// A Watch ends with its context, before and after the set is known.
func TestWatchContext(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		views := 0
		var end error
		for v, err := range c.Watch(ctx, "svc") {
			if err != nil {
				end = err
				if v.Synced || v.Service != "" {
					t.Errorf("an error came with %+v", v)
				}
				continue
			}
			views++
		}
		if views != 1 || !errors.Is(end, context.DeadlineExceeded) {
			t.Errorf("%d views and then %v", views, end)
		}
		if err := last(c.Services(ctx)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Services ended with %v", err)
		}
		s.Silence()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := last(c.Watch(ctx, "unknown")); !errors.Is(err, context.Canceled) {
			t.Errorf("a watch of an unknown set ended with %v", err)
		}
	})
}

func TestServices(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		nextList, stop := iter.Pull2(c.Services(t.Context()))
		defer stop()
		want := func(want ...string) {
			t.Helper()
			got, err, ok := nextList()
			if err != nil || !ok || got == nil || !slices.Equal(got, want) {
				t.Fatalf("services %q, %v, %v, want %q", got, err, ok, want)
			}
		}
		want()
		put(t, s, "b", "a:1")
		want("b")
		put(t, s, "b", "b:1")
		put(t, s, "a", "a:1")
		synctest.Wait()
		want("a", "b")
		s.Down(io.ErrUnexpectedEOF)
		time.Sleep(time.Minute)
		s.Up()
		remove(t, s, "b", "a:1", "b:1")
		want("a")
	})
}

func TestList(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		view, err := c.List(t.Context(), "svc")
		if err != nil || view.Endpoints == nil || len(view.Endpoints) > 0 || !view.Synced || view.AsOf.IsZero() || view.Service != "svc" {
			t.Errorf("list of nothing: %#v, %v", view, err)
		}
		put(t, s, "svc", "b:1", "a b:1 {}")
		begin := s.Calls()
		view, err = c.List(t.Context(), "svc")
		want := []naming.Endpoint{{ID: "a", Addr: "b:1", Metadata: json.RawMessage("{}"), Unleased: true}, {ID: "b:1", Addr: "b:1", Unleased: true}}
		if err != nil || !slices.EqualFunc(view.Endpoints, want, naming.Endpoint.Equal) {
			t.Errorf("list %v, %v, want %v", view.Endpoints, err, want)
		}
		if n := s.Calls() - begin; n != 1 {
			t.Errorf("a list cost %d requests, want 1", n)
		}
		down := errors.New("down")
		s.Down(down)
		if view, err := c.List(t.Context(), "svc"); !errors.Is(err, down) || !reflect.DeepEqual(view, naming.View{}) {
			t.Errorf("list of a registry that is down: %v, %v", view, err)
		}
	})
}

// scripted is a store whose watches yield the batches of a list.
type scripted struct {
	naming.Store
	batches []naming.Batch
}

func (s scripted) Watch(context.Context, string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		for _, b := range s.batches {
			if !yield(b, nil) {
				return
			}
		}
	}
}

// slowToEnd is a store whose watches take a second to end.
type slowToEnd struct{ *memory.Store }

func (s slowToEnd) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		for b, err := range s.Store.Watch(ctx, service) {
			if ctx.Err() != nil {
				time.Sleep(time.Second)
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}
}

// When a stale set is no longer watched, the hook says that it is not stale. The call
// comes before those of the next watch.
func TestStaleHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []bool
		s := slowToEnd{new(memory.Store)}
		c := naming.New(s, &naming.Options{Logger: quiet.Logger, IdleGrace: -1, Hooks: &naming.Hooks{
			Stale: func(info naming.StaleInfo) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, !info.Since.IsZero())
			},
		}})
		defer c.Close()
		for range 2 {
			w := resolve(t, c, "svc")
			next(t, w)
			s.Down(io.ErrUnexpectedEOF)
			synctest.Wait()
			w.Close()
			s.Up()
			synctest.Wait()
		}
		w := resolve(t, c, "svc")
		next(t, w)
		w.Close()
		s.Down(io.ErrUnexpectedEOF)
		w = resolve(t, c, "svc")
		time.Sleep(time.Minute)
		w.Close()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if want := []bool{true, false, true, false, true, false}; !slices.Equal(got, want) {
			t.Errorf("stale %v, want %v", got, want)
		}
	})
}

// A store that breaks its contract does no harm.
func TestCarelessStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		if _, err := naming.New(scripted{}, quiet).List(ctx, "svc"); err == nil || !strings.Contains(err.Error(), "without an error") {
			t.Errorf("List of a store that ends without an error: %v", err)
		}
		if _, err := naming.New(scripted{batches: []naming.Batch{{}}}, quiet).List(ctx, "svc"); err == nil || !strings.Contains(err.Error(), "without a snapshot") {
			t.Errorf("List of a store that begins with a change: %v", err)
		}
		change := naming.New(scripted{batches: []naming.Batch{{Put: []naming.Endpoint{endpoint("a:1")}}}}, quiet)
		defer change.Close()
		minute, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for v, err := range change.Watch(minute, "svc") {
			if err == nil {
				t.Errorf("a watch that begins with a change: %+v, want nothing", v)
			}
			break
		}
		c := naming.New(scripted{batches: []naming.Batch{
			{Snapshot: true, Put: []naming.Endpoint{endpoint("b:1"), {ID: "a:1", Addr: "a:1", Metadata: json.RawMessage(" null")}}},
			{Deleted: []string{"b:1", "none"}, Put: []naming.Endpoint{endpoint("d:1"), endpoint("c:1")}},
		}}, quiet)
		defer c.Close()
		w := resolve(t, c, "svc")
		synctest.Wait() // for both batches
		next(t, w, "Add a:1 null", "Add c:1 null", "Add d:1 null")
	})
}

func TestUpdate(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		if err := c.Update(t.Context(), "svc",
			naming.Update{Addr: "a:1", Metadata: map[string]any{"weight": 3}},
			naming.Update{Addr: "b:1"},
			naming.Update{Metadata: "no address"},
		); err != nil {
			t.Fatal(err)
		}
		w := resolve(t, c, "svc")
		next(t, w, `Add  "no address"`, `Add a:1 {"weight":3}`, "Add b:1 null")
		if err := c.Update(t.Context(), "svc", naming.Update{Op: naming.Delete, Addr: "a:1"}); err != nil {
			t.Fatal(err)
		}
		next(t, w, `Delete a:1 {"weight":3}`)
		down := errors.New("down")
		s.Refuse(down)
		if err := c.Update(t.Context(), "svc", naming.Update{Addr: "c:1"}); !errors.Is(err, down) {
			t.Errorf("update of a store that is down: %v", err)
		}
	})
}

// The JSON of Update is frozen.
func TestUpdateJSON(t *testing.T) {
	for _, c := range []struct {
		u    naming.Update
		want string
	}{
		{naming.Update{Addr: "1.2.3.4:80"}, `{"Op":0,"Addr":"1.2.3.4:80","Metadata":null}`},
		{naming.Update{Op: naming.Delete, Addr: "a&b", Metadata: []any{1, "<"}}, `{"Op":1,"Addr":"a\u0026b","Metadata":[1,"\u003c"]}`},
	} {
		got, err := json.Marshal(c.u)
		if err != nil || string(got) != c.want {
			t.Errorf("JSON of %v: %s, %v, want %s", c.u, got, err, c.want)
		}
	}
}

// Arguments that can never work are an error that names the value. Nothing is stored.
func TestBadInput(t *testing.T) {
	in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
		ctx := t.Context()
		update := func(service string, u naming.Update) error { return c.Update(ctx, service, u) }
		apply := func(c naming.Change) error { return s.Apply(ctx, "svc", c) }
		_, resolveErr := c.Resolve("")
		_, followErr := c.Follow("\xff", func() {})
		_, listErr := c.List(ctx, "")
		_, grantErr := s.Grant(ctx, -time.Second)
		broken := naming.New(nil, nil)
		_, nilResolve := broken.Resolve("svc")
		_, nilList := broken.List(ctx, "svc")
		for _, c := range []struct {
			name, names string
			err         error
		}{
			{"empty service", "empty service name", update("", naming.Update{Addr: "a:1"})},
			{"service not UTF-8", `"\xff"`, update("\xff", naming.Update{Addr: "a:1"})},
			{"unknown operation", "Operation(7)", update("svc", naming.Update{Op: 7, Addr: "a:1"})},
			{"nothing", `address ""`, update("svc", naming.Update{})},
			{"delete nothing", `address ""`, update("svc", naming.Update{Op: naming.Delete})},
			{"metadata no JSON", "unsupported type: chan int", update("svc", naming.Update{Addr: "a:1", Metadata: make(chan int)})},
			{"metadata no JSON", `"{"`, apply(naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Metadata: json.RawMessage("{")}})},
			{"long metadata no JSON", `aaa"...`, apply(naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Metadata: bytes.Repeat([]byte("a"), 1e6)}})},
			{"metadata not UTF-8", `"\"\xff\""`, apply(naming.Change{Endpoint: naming.Endpoint{Addr: "a:1", Metadata: json.RawMessage("\"\xff\"")}})},
			{"address not UTF-8", `"a\xff"`, apply(naming.Change{Endpoint: naming.Endpoint{Addr: "a\xff"}})},
			{"ID not UTF-8", `"\xff"`, apply(naming.Change{Endpoint: naming.Endpoint{ID: "\xff", Addr: "a"}})},
			{"condition without a lease", `IfFree`, apply(naming.Change{IfFree: true, Endpoint: naming.Endpoint{Addr: "a:1"}})},
			{"resolve", "empty service name", resolveErr},
			{"follow", `"\xff"`, followErr},
			{"list", "empty service name", listErr},
			{"watch", "empty service name", last(c.Watch(ctx, ""))},
			{"store's watch", "empty service name", last(s.Watch(ctx, ""))},
			{"grant", "-1s", grantErr},
			{"nil store", "nil Store", broken.Update(ctx, "svc", naming.Update{Addr: "a:1"})},
			{"nil store", "nil Store", nilResolve},
			{"nil store", "nil Store", nilList},
			{"nil store", "nil Store", last(broken.Watch(ctx, "svc"))},
			{"nil store", "nil Store", last(broken.Services(ctx))},
		} {
			if !errors.Is(c.err, naming.ErrInvalid) || !strings.Contains(fmt.Sprint(c.err), c.names) || len(c.err.Error()) > 300 {
				t.Errorf("%s: error %v, want ErrInvalid naming %s", c.name, c.err, c.names)
			}
		}
		if view, err := c.List(ctx, "svc"); err != nil || len(view.Endpoints) > 0 {
			t.Errorf("stored %v, %v", view, err)
		}
		broken.Close()
	})
}

func TestEndpointEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "null", true},
		{" null ", "", true},
		{"1", "1.0", false},
		{`{"a":1,"b":[2]}`, `{ "b":[2], "a":1 }`, true},
		{`{"a":1}`, `{"a":1.0}`, false},
		{`"\u00e9"`, `"é"`, true},
		{`"<"`, `"\u003c"`, true},
		{"12345678901234567890", "12345678901234567891", false},
		{"{", "{", true},
		{"{", "[", false},
		{"[]", "{", false},
		{"{}", "[]", false},
	} {
		a := naming.Endpoint{ID: "i", Addr: "a", Metadata: json.RawMessage(c.a)}
		b := naming.Endpoint{ID: "i", Addr: "a", Metadata: json.RawMessage(c.b)}
		if got := a.Equal(b); got != c.want || b.Equal(a) != got {
			t.Errorf("%s equal to %s: %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if (naming.Endpoint{ID: "i"}).Equal(naming.Endpoint{ID: "j"}) || (naming.Endpoint{Addr: "i"}).Equal(naming.Endpoint{Addr: "j"}) {
		t.Error("equal in spite of ID or Addr")
	}
}

func TestEndpointInfo(t *testing.T) {
	for _, c := range []struct {
		metadata string
		want     naming.EndpointInfo
	}{
		{"", naming.EndpointInfo{}},
		{"7", naming.EndpointInfo{}},
		{"{", naming.EndpointInfo{}},
		{` {"weight":2.5,"zone":"z","version":"v","tags":["a","b"],"draining":true,"more":{}}`, naming.EndpointInfo{Weight: 2.5, Zone: "z", Version: "v", Tags: []string{"a", "b"}, Draining: true}},
		{`{"weight":"heavy","zone":7,"tags":["a",1],"draining":"yes","version":"kept"}`, naming.EndpointInfo{Version: "kept"}},
		{`{"weight":-1}`, naming.EndpointInfo{}},
		{`{"Weight":1,"DRAINING":true}`, naming.EndpointInfo{}},
		{`{"w\u0065ight":1}`, naming.EndpointInfo{Weight: 1}},
		{`["weight"]`, naming.EndpointInfo{}},
		{`"{\"weight\":1}"`, naming.EndpointInfo{}},
		{`{"weight":null,"draining":null}`, naming.EndpointInfo{}},
	} {
		e := naming.Endpoint{Metadata: json.RawMessage(c.metadata)}
		if got := e.Info(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("info of %s: %+v, want %+v", c.metadata, got, c.want)
		}
	}
}

func TestOperationString(t *testing.T) {
	if got := fmt.Sprint(naming.Add, naming.Delete, naming.Operation(9)); got != "Add Delete Operation(9)" {
		t.Error(got)
	}
}

func TestMalformedError(t *testing.T) {
	m := &naming.MalformedError{Service: "svc", Key: "k", Err: io.ErrUnexpectedEOF}
	if want := `naming: malformed entry "k" of service "svc": unexpected EOF`; m.Error() != want || !errors.Is(m, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want %s", m, want)
	}
}

func FuzzNormalize(f *testing.F) {
	f.Add("svc", "id", "a:1", []byte(`{"draining":true}`))
	f.Add("", "", "", []byte(nil))
	f.Add("a/b", "\xff", "[::1]:1", []byte("null"))
	f.Add("é", "", "", []byte("1e400"))
	f.Fuzz(func(t *testing.T, service, id, addr string, metadata []byte) {
		in := naming.Change{Endpoint: naming.Endpoint{ID: id, Addr: addr, Metadata: metadata}}
		in.Endpoint.Info()
		out, err := naming.Normalize(service, []naming.Change{in})
		if err != nil {
			if !errors.Is(err, naming.ErrInvalid) {
				t.Errorf("error %v", err)
			}
			return
		}
		got := out[0].Endpoint
		want := in.Endpoint
		if want.ID == "" {
			want.ID = want.Addr
		}
		if !got.Equal(want) || !want.Equal(got) {
			t.Errorf("%v became %v", want, got)
		}
		again, err := naming.Normalize(service, out)
		if err != nil || !reflect.DeepEqual(again, out) {
			t.Errorf("twice: %v, %v", again, err)
		}
		s := new(memory.Store)
		if err := s.Apply(t.Context(), service, in); err != nil {
			t.Fatal(err)
		}
		view, err := naming.New(s, nil).List(t.Context(), service)
		if err != nil || len(view.Endpoints) != 1 || !view.Endpoints[0].Equal(got) {
			t.Errorf("stored %v, listed %v, %v", got, view.Endpoints, err)
		}
	})
}
