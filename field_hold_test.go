package naming_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// batches is a store whose only watch yields the batches that are sent to ch.
type batches struct {
	naming.Store
	ch chan naming.Batch
}

func (s batches) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		for b := range s.ch {
			if !yield(b, nil) {
				return
			}
		}
		yield(naming.Batch{}, errors.New("over"))
	}
}

// holding feeds a Client with n endpoints. All of them vanish one by one, and then come
// back one by one as back says. A reader of the given kind reads after each change.
// holding returns the number of bytes that were allocated.
func holding(tb testing.TB, n int, hold naming.Hold, kind string, back func(i int) naming.Endpoint) uint64 {
	s := batches{ch: make(chan naming.Batch)}
	c := naming.New(s, &naming.Options{Logger: slog.New(slog.DiscardHandler), Hold: hold})
	defer c.Close()
	defer close(s.ch)
	woken := make(chan struct{}, 1)
	f, err := c.Follow("svc", func() { woken <- struct{}{} })
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	set := make([]naming.Endpoint, n)
	for i := range set {
		set[i] = endpoint(fmt.Sprintf("id%06d 10.0.%d.%d:80", i, i>>8, i&255))
	}
	send := func(b naming.Batch) {
		s.ch <- b
		<-woken
		if kind == "follower" {
			f.Next()
		}
	}
	send(naming.Batch{Snapshot: true, Put: set})
	f.Next()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range n {
		send(naming.Batch{Deleted: []string{fmt.Sprintf("id%06d", i)}})
	}
	held := n
	if hold.Disabled {
		held = 0
	}
	e, ok := f.Next()
	if kind == "" && (!ok || len(e.Status.Held) != held) {
		tb.Errorf("%d held, want %d", len(e.Status.Held), held)
	}
	for i := range n {
		send(naming.Batch{Put: []naming.Endpoint{back(i)}})
	}
	runtime.ReadMemStats(&after)
	if e, ok := f.Next(); kind == "" && (!ok || len(e.Status.Held) > 0 || len(e.Put) != n) {
		tb.Errorf("%d held and %d put after all are back", len(e.Status.Held), len(e.Put))
	}
	return after.TotalAlloc - before.TotalAlloc
}

// backs returns ways in which endpoints come back.
func backs(n int) map[string]func(i int) naming.Endpoint {
	as := func(i int, id string) naming.Endpoint {
		return endpoint(fmt.Sprintf("%s%06d 10.0.%d.%d:80", id, i, i>>8, i&255))
	}
	return map[string]func(i int) naming.Endpoint{
		"as they were":      func(i int) naming.Endpoint { return as(i, "id") },
		"in another order":  func(i int) naming.Endpoint { return as(n-1-i, "id") },
		"under another ID":  func(i int) naming.Endpoint { return as(i, "new") },
		"shuffled, new IDs": func(i int) naming.Endpoint { return as(i*7919%n, "new") },
	}
}

// The cost of a change does not depend on how many endpoints are held: four times as
// many changes cost about four times as many bytes.
func TestFieldR5CostOfHeld(t *testing.T) {
	const n = 1000
	for _, kind := range []string{"", "follower"} {
		for name, back := range backs(n) {
			if kind == "follower" && name != "as they were" && name != "under another ID" {
				continue // a reader that reads after each change gets a new list of the rest
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				small := holding(t, n, naming.Hold{}, kind, back)
				large := holding(t, 4*n, naming.Hold{}, kind, backs(4 * n)[name])
				off := holding(t, 4*n, naming.Hold{Disabled: true}, kind, backs(4 * n)[name])
				if large > 6*small || large > 4*off {
					t.Errorf("%d bytes for %d endpoints, %d for %d, and %d with the hold off", small, n, large, 4*n, off)
				}
			})
		}
	}
}

// BenchmarkHold measures 8,000 of 8,000 endpoints that vanish one by one and come back.
func BenchmarkHold(b *testing.B) {
	for _, hold := range []naming.Hold{{}, {Disabled: true}} {
		b.Run(fmt.Sprint("off=", hold.Disabled), func(b *testing.B) {
			for b.Loop() {
				holding(b, 8000, hold, "", backs(8000)["as they were"])
			}
		})
	}
}

// Endpoints that vanish one after the other cause fewer warnings than the logarithm of
// their number.
func TestFieldR5OneWarning(t *testing.T) {
	rec, opts := recorded()
	in(t, opts, func(t *testing.T, s *memory.Store, c *naming.Client) {
		var all []string
		for i := range 500 {
			all = append(all, fmt.Sprint("a", i))
		}
		put(t, s, "svc", all...)
		now(t, c)
		for _, id := range all {
			remove(t, s, "svc", id)
			synctest.Wait()
		}
		if n := len(rec.lines(slog.LevelWarn)); n < 1 || n > 3 {
			t.Errorf("%d warnings, want one or two", n)
		}
		time.Sleep(time.Hour)
		if n := len(rec.lines(slog.LevelWarn)); n != 1 {
			t.Errorf("%d warnings when all were given up, want 1", n)
		}
	})
}

// Endpoints whose entries have no place for the draining mark are not held, and an
// orderly stop of most of them causes no warning. With an option they are held.
func TestFieldI2NoDrain(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rec, opts := recorded()
			opts.Hold.IncludeNoDrainingMark = asked
			s := batches{ch: make(chan naming.Batch)}
			c := naming.New(s, opts)
			defer c.Close()
			defer close(s.ch)
			f := follow(t, c)
			var set []naming.Endpoint
			for _, id := range []string{"k1", "k2", "k3", "k4", "o1", "o2"} {
				e := endpoint(id + " " + id + ":1")
				e.NoDrainingMark = id[0] == 'k'
				set = append(set, e)
			}
			s.ch <- naming.Batch{Snapshot: true, Put: set}
			synctest.Wait()
			s.ch <- naming.Batch{Deleted: []string{"k1", "k2", "k3"}}
			want := "[]"
			if asked {
				want = "[k1 k2 k3]"
			}
			if got := fmt.Sprint(ids(now(t, c).Held)); got != want {
				t.Errorf("NoDrainingMark %v: held %s, want %s", asked, got, want)
			}
			if n := len(rec.lines(slog.LevelWarn)); (n > 0) != asked {
				t.Errorf("NoDrainingMark %v: %d warnings", asked, n)
			}
			if asked {
				return
			}
			// The rest of the set: the entries with a place for the mark count, the
			// other one does not.
			s.ch <- naming.Batch{Deleted: []string{"k4", "o1", "o2"}}
			if got := fmt.Sprint(ids(now(t, c).Held)); got != "[o1 o2]" {
				t.Errorf("held %s, want ours", got)
			}
			// The format of an entry is the one in which it was written last.
			f.Next()
			moved := endpoint("m1 m1:1")
			s.ch <- naming.Batch{Put: []naming.Endpoint{moved, endpoint("m2 m2:1")}}
			moved.NoDrainingMark = true
			synctest.Wait()
			f.Next()
			s.ch <- naming.Batch{Put: []naming.Endpoint{moved}}
			synctest.Wait()
			if e, ok := f.Next(); ok {
				t.Errorf("an event for a change of NoDrainingMark: %v", e)
			}
			s.ch <- naming.Batch{Deleted: []string{"m1"}}
			if got := fmt.Sprint(ids(now(t, c).Held)); got != "[o1 o2]" {
				t.Errorf("held %s, want ours", got)
			}
		})
	}
}

// A held endpoint is released when its address is used again. An endpoint whose address
// is in use is not held.
func TestFieldI2AddressReused(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *memory.Store)
		held string
	}{
		{"by another endpoint", func(t *testing.T, s *memory.Store) {
			remove(t, s, "svc", "a", "b", "c")
			synctest.Wait()
			put(t, s, "svc", "stranger b:1")
		}, "[a c]"},
		{"by one that is there", func(t *testing.T, s *memory.Store) {
			remove(t, s, "svc", "a", "b", "c")
			synctest.Wait()
			put(t, s, "svc", "d c:1")
		}, "[a b]"},
		{"by one that comes in the same change", func(t *testing.T, s *memory.Store) {
			s.Wipe()
			put(t, s, "svc", "0 a:1")
		}, "[b c d]"},
		{"before there was reason to hold", func(t *testing.T, s *memory.Store) {
			remove(t, s, "svc", "a")
			put(t, s, "svc", "z a:1")
			synctest.Wait()
			remove(t, s, "svc", "b")
			synctest.Wait()
			remove(t, s, "svc", "c")
		}, "[b c]"},
		{"nowhere: endpoints without an address", func(t *testing.T, s *memory.Store) {
			for _, id := range []string{"e", "f"} {
				if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{ID: id, Metadata: []byte("1")}}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			s.Wipe()
			synctest.Wait()
			if err := s.Apply(t.Context(), "svc", naming.Change{Endpoint: naming.Endpoint{ID: "g", Metadata: []byte("1")}}); err != nil {
				t.Fatal(err)
			}
		}, "[a b c d e f]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, nil, func(t *testing.T, s *memory.Store, r *naming.Client) {
				put(t, s, "svc", "a a:1", "b b:1", "c c:1", "d d:1")
				now(t, r)
				c.do(t, s)
				if got := fmt.Sprint(ids(now(t, r).Held)); got != c.held {
					t.Errorf("held %s, want %s", got, c.held)
				}
			})
		})
	}
}

// Options out of range mean the nearest value in range. They cause no storm, no overflow
// and no panic.
func TestFieldR14Options(t *testing.T) {
	for _, reread := range []time.Duration{math.MinInt64, -1, 1, time.Millisecond, math.MaxInt64} {
		in(t, &naming.Options{Logger: quiet.Logger, ResyncEvery: reread, IdleGrace: math.MaxInt64}, func(t *testing.T, s *memory.Store, c *naming.Client) {
			now(t, c)
			s.Calls()
			time.Sleep(time.Minute)
			n := s.Calls()
			if most := 1 + 67; n > most || (reread <= 0 || reread > time.Hour) && n > 1 {
				t.Errorf("ResyncEvery %v: %d watches in a minute", reread, n)
			}
			if v := now(t, c); v.Stale() {
				t.Errorf("ResyncEvery %v: %v", reread, v.Err)
			}
		})
	}
	for _, c := range []struct {
		hold naming.Hold
		held string // of four, two of which vanish; of five, none is held
	}{
		{naming.Hold{Share: math.NaN()}, "[a b]"},
		{naming.Hold{Share: math.Inf(1)}, "[]"},
		{naming.Hold{Share: math.Inf(-1), Window: math.MinInt64, MaxDuration: math.MinInt64}, "[a b]"},
		{naming.Hold{Share: 1.5}, "[]"},
		{naming.Hold{Window: math.MaxInt64, MaxDuration: math.MaxInt64}, "[a b]"},
	} {
		for _, all := range [][]string{{"a", "b", "c", "d"}, {"a", "b", "c", "d", "e"}} {
			in(t, &naming.Options{Logger: quiet.Logger, Hold: c.hold, IdleGrace: math.MinInt64}, func(t *testing.T, s *memory.Store, r *naming.Client) {
				put(t, s, "svc", all...)
				w := resolve(t, r, "svc")
				if _, err := w.Next(); err != nil {
					t.Fatal(err)
				}
				remove(t, s, "svc", "a", "b")
				synctest.Wait()
				time.Sleep(time.Second)
				want := c.held
				if len(all) > 4 {
					want = "[]"
				}
				if got := fmt.Sprint(ids(now(t, r).Held)); got != want {
					t.Errorf("%+v: of %v held %s, want %s", c.hold, all, got, want)
				}
				s.Wipe()
				if got := len(now(t, r).Held); got < 2 {
					t.Errorf("%+v: %d held of those that vanished last", c.hold, got)
				}
			})
		}
	}
}

// A View has the present flags of an endpoint, also if nothing else of the endpoint
// changed since the View before.
func TestViewHasNewFlags(t *testing.T) {
	for _, again := range []bool{false, true} { // as changes, and as a snapshot
		synctest.Test(t, func(t *testing.T) {
			s := batches{ch: make(chan naming.Batch)}
			c := naming.New(s, quiet)
			defer c.Close()
			defer close(s.ch)
			set := func() []naming.Endpoint { return []naming.Endpoint{endpoint("a a:1"), endpoint("b b:1")} }
			f := follow(t, c)
			s.ch <- naming.Batch{Snapshot: true, Put: set()}
			before := now(t, c)
			if e := before.Endpoints[1]; e.NoDrainingMark || e.Unleased {
				t.Fatalf("first view: %+v", e)
			}
			f.Next()
			flagged := set()
			flagged[1].NoDrainingMark, flagged[1].Unleased = true, true
			if !again {
				flagged = flagged[1:]
			}
			s.ch <- naming.Batch{Snapshot: again, Put: flagged}
			v := now(t, c)
			if e := v.Endpoints[1]; !e.NoDrainingMark || !e.Unleased {
				t.Errorf("snapshot %v: the view has the old flags: %+v", again, e)
			}
			if before.Endpoints[1].NoDrainingMark {
				t.Error("the view of before was modified")
			}
			if e, ok := f.Next(); ok {
				t.Errorf("an event for a change of flags: %+v", e)
			}
			s.ch <- naming.Batch{Deleted: []string{"a"}}
			if v := now(t, c); len(v.Endpoints) != 1 || !v.Endpoints[0].NoDrainingMark {
				t.Errorf("after a change of another endpoint: %+v", v.Endpoints)
			}
		})
	}
}
