package naming_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// record is the calls of hooks and the records of the log.
type record struct {
	mu    sync.Mutex
	hooks []string
	log   bytes.Buffer
}

func (r *record) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, fmt.Sprintf(format, args...))
}

// called returns the calls of hooks since it was last called.
func (r *record) called() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	called := r.hooks
	r.hooks = nil
	return called
}

// lines returns the lines of the log with a level since it was last called.
func (r *record) lines(level slog.Level) []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for line := range strings.Lines(r.log.String()) {
		if strings.HasPrefix(line, "level="+level.String()) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	r.log.Reset()
	return lines
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// recorded returns options that write into a record.
func recorded() (*record, *naming.Options) {
	r := new(record)
	return r, &naming.Options{
		Logger: slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "stale" {
				return slog.Attr{}
			}
			return a
		}})),
		Hooks: &naming.Hooks{
			Stale:    func(info naming.StaleInfo) { r.add("stale %v", !info.Since.IsZero()) },
			Held:     func(info naming.HeldInfo) { r.add("held %v", ids(info.Endpoints)) },
			Released: func(info naming.ReleasedInfo) { r.add("released %v %v", ids(info.Endpoints), info.Back) },
			Withheld: func(info naming.WithheldInfo) {
				r.add("withheld %v %v", reasons(info.Began), reasons(info.Ceased))
			},
		},
	}
}

// reasons writes withheld endpoints as "ID:reason:detail".
func reasons(list []naming.Withheld) []string {
	var s []string
	for _, w := range list {
		s = append(s, fmt.Sprintf("%s:%v:%s", w.Endpoint.ID, w.Reason, w.Detail))
	}
	return s
}

// now waits until the bubble is idle, and returns the present View of svc.
func now(t *testing.T, c *naming.Client) naming.View {
	t.Helper()
	synctest.Wait()
	for v, err := range c.Watch(t.Context(), "svc") {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	panic("unreachable")
}

func follow(t *testing.T, c *naming.Client) *naming.Follower {
	t.Helper()
	f, err := c.Follow("svc", func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// event returns the lists of f's next event as text.
func event(t *testing.T, f *naming.Follower) string {
	t.Helper()
	synctest.Wait()
	e, ok := f.Next()
	if !ok {
		return "nothing"
	}
	return fmt.Sprint(e.Snapshot, ids(e.Put), e.Deleted, reasons(e.Withheld))
}

// Every kind of reader gets withheld endpoints apart from the others, with the reason.
// They cause no warning.
func TestFieldW1WithheldIsShownApart(t *testing.T) {
	rec, opts := recorded()
	in(t, opts, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a a:1", "b b:1", "c c:1", "d d:1")
		s.Withhold("svc", "d", naming.FailedCheck, "timeout")
		w, f := resolve(t, c, "svc"), follow(t, c)
		next(t, w, "Add a:1 null", "Add b:1 null", "Add c:1 null")
		check := func(wantEvent, usable, withheld string, hooks ...string) {
			t.Helper()
			if got := event(t, f); got != wantEvent {
				t.Errorf("event %s, want %s", got, wantEvent)
			}
			v := now(t, c)
			list, err := c.List(t.Context(), "svc")
			if err != nil || !reflect.DeepEqual(list.Endpoints, v.Endpoints) || !reflect.DeepEqual(list.Withheld, v.Withheld) {
				t.Errorf("List %v, %v; Watch %v", list, err, v)
			}
			if got := fmt.Sprint(ids(v.Endpoints)); got != usable {
				t.Errorf("endpoints %s, want %s", got, usable)
			}
			if got := fmt.Sprint(reasons(v.Withheld)); got != withheld {
				t.Errorf("withheld %s, want %s", got, withheld)
			}
			if len(v.Held) > 0 {
				t.Errorf("held: %v", ids(v.Held))
			}
			if got := rec.called(); !slices.Equal(got, hooks) {
				t.Errorf("hooks %q, want %q", got, hooks)
			}
			if n := len(rec.lines(slog.LevelInfo)); n != len(hooks) {
				t.Errorf("%d lines in the log, want %d", n, len(hooks))
			}
		}
		check("true [a b c] [] [d:failed check:timeout]", "[a b c]", "[d:failed check:timeout]", "withheld [d:failed check:timeout] []")

		// Two of three at once are not a loss.
		s.Withhold("svc", "a", naming.Maintenance, "disk")
		synctest.Wait()
		s.Withhold("svc", "b", naming.Maintenance, "disk")
		synctest.Wait()
		if got, want := rec.called(), []string{"withheld [a:maintenance:disk] []", "withheld [b:maintenance:disk] []"}; !slices.Equal(got, want) {
			t.Errorf("hooks %q, want %q", got, want)
		}
		if n := len(rec.lines(slog.LevelInfo)); n != 2 {
			t.Errorf("%d lines in the log for two changes", n)
		}
		next(t, w, "Delete a:1 null", "Delete b:1 null")
		check("false [] [] [a:maintenance:disk b:maintenance:disk]", "[c]", "[a:maintenance:disk b:maintenance:disk d:failed check:timeout]")

		// The reason changes, and then only the detail: a Watcher returns nothing.
		s.Withhold("svc", "d", naming.Maintenance, "timeout")
		check("false [] [] [d:maintenance:timeout]", "[c]", "[a:maintenance:disk b:maintenance:disk d:maintenance:timeout]",
			"withheld [d:maintenance:timeout] [d:failed check:timeout]")
		s.Withhold("svc", "d", naming.Maintenance, "later")
		check("false [] [] [d:maintenance:later]", "[c]", "[a:maintenance:disk b:maintenance:disk d:maintenance:later]")
		// Put again while withheld.
		put(t, s, "svc", "d d:2")
		check("false [] [] [d:maintenance:later]", "[c]", "[a:maintenance:disk b:maintenance:disk d:maintenance:later]")

		// Usable again, and in a new state at the same time.
		s.Unwithhold("svc", "d")
		s.Unwithhold("svc", "a")
		synctest.Wait()
		rec.called()
		rec.lines(slog.LevelInfo)
		next(t, w, "Add a:1 null", "Add d:2 null")
		check("false [a d] [] []", "[a c d]", "[b:maintenance:disk]")

		// Withheld, and then gone, is not a loss.
		remove(t, s, "svc", "b")
		check("false [] [b] []", "[a c d]", "[]", "withheld [] [b:maintenance:disk]")

		// A change that was undone between two calls is not an event.
		s.Withhold("svc", "a", naming.Maintenance, "")
		synctest.Wait()
		s.Unwithhold("svc", "a")
		synctest.Wait()
		rec.called()
		rec.lines(slog.LevelInfo)
		check("nothing", "[a c d]", "[]")
		silent(t, w)
	})
}

// A service whose endpoints are all withheld has an empty set, and the View is synced.
func TestFieldW1AllWithheld(t *testing.T) {
	rec, opts := recorded()
	in(t, opts, func(t *testing.T, s *memory.Store, c *naming.Client) {
		put(t, s, "svc", "a a:1", "b b:1")
		s.Withhold("svc", "a", naming.Maintenance, "")
		s.Withhold("svc", "b", 77, "") // a Reason of a later version
		w := resolve(t, c, "svc")
		next(t, w)
		v := now(t, c)
		if v.Endpoints == nil || len(v.Endpoints) > 0 || len(v.Withheld) != 2 || !v.Synced || v.Stale() {
			t.Errorf("view %+v", v)
		}
		for names := range c.Services(t.Context()) {
			if !slices.Equal(names, []string{"svc"}) {
				t.Errorf("services %v", names)
			}
			break
		}
		// A new full read causes the same events as the watch would have.
		s.Break(io.ErrUnexpectedEOF)
		s.Unwithhold("svc", "b")
		s.Withhold("svc", "b", naming.FailedCheck, "")
		next(t, resolve(t, c, "svc"))
		time.Sleep(time.Hour)
		s.Unwithhold("svc", "b")
		next(t, w, "Add b:1 null")
		if lines := rec.lines(slog.LevelWarn); len(lines) != 2 {
			t.Errorf("warnings: %q, want those of the two watches that broke", lines)
		}
	})
	// After the Client was closed, the hook says that nothing is withheld.
	synctest.Test(t, func(t *testing.T) {
		rec, opts := recorded()
		s := new(memory.Store)
		c := naming.New(s, opts)
		put(t, s, "svc", "a a:1")
		s.Withhold("svc", "a", naming.Maintenance, "")
		now(t, c)
		rec.called()
		c.Close()
		if got := rec.called(); !slices.Equal(got, []string{"withheld [] [a:maintenance:]"}) {
			t.Errorf("hooks after Close: %q", got)
		}
	})
}

// An endpoint that is withheld is not a loss. A held endpoint is released when it is
// withheld, under its ID or at its address, because nobody may call it.
func TestFieldW1HoldNeverApplies(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, s *memory.Store)
		held string
	}{
		{"one by one", func(t *testing.T, s *memory.Store) {
			for _, id := range []string{"a", "b", "c", "d"} {
				s.Withhold("svc", id, naming.Maintenance, "")
				synctest.Wait()
			}
		}, "[]"},
		{"withheld and gone", func(t *testing.T, s *memory.Store) {
			for _, id := range []string{"a", "b", "c"} {
				s.Withhold("svc", id, naming.Maintenance, "")
				synctest.Wait()
				remove(t, s, "svc", id)
				synctest.Wait()
			}
		}, "[]"},
		{"half withheld, one of the rest gone", func(t *testing.T, s *memory.Store) {
			s.Withhold("svc", "a", naming.Maintenance, "")
			s.Withhold("svc", "b", naming.Maintenance, "")
			synctest.Wait()
			remove(t, s, "svc", "c") // a single one of two
		}, "[]"},
		{"half withheld, the rest gone", func(t *testing.T, s *memory.Store) {
			s.Withhold("svc", "a", naming.Maintenance, "")
			s.Withhold("svc", "b", naming.Maintenance, "")
			synctest.Wait()
			remove(t, s, "svc", "c", "d")
		}, "[c d]"},
		{"wiped, and back as withheld", func(t *testing.T, s *memory.Store) {
			s.Wipe()
			synctest.Wait()
			s.Withhold("svc", "a", naming.Maintenance, "")
			s.Withhold("svc", "new", naming.Maintenance, "")
			put(t, s, "svc", "a a:1", "new b:1")
		}, "[c d]"},
		{"lost, and back as withheld, before there was reason to hold", func(t *testing.T, s *memory.Store) {
			s.Withhold("svc", "a", naming.Maintenance, "")
			remove(t, s, "svc", "a")
			synctest.Wait()
			put(t, s, "svc", "a a:1")
			synctest.Wait()
			remove(t, s, "svc", "b")
			synctest.Wait()
			remove(t, s, "svc", "c")
		}, "[b c]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, nil, func(t *testing.T, s *memory.Store, r *naming.Client) {
				put(t, s, "svc", "a a:1", "b b:1", "c c:1", "d d:1")
				f := follow(t, r)
				now(t, r)
				c.do(t, s)
				if got := fmt.Sprint(ids(now(t, r).Held)); got != c.held {
					t.Errorf("held %s, want %s", got, c.held)
				}
				if e, ok := f.Next(); !ok || fmt.Sprint(ids(e.Status.Held)) != c.held {
					t.Errorf("the follower's event has %v, %v; want %s", ids(e.Status.Held), ok, c.held)
				}
			})
		})
	}
}

// later is a store whose watches yield a snapshot of a and b, and batch after due was
// closed. If batch is a snapshot, it comes first. Then the watches go on.
type later struct {
	naming.Store
	batch naming.Batch
	names [][]string
	due   chan struct{}
	count *atomic.Int64
}

func (s later) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		s.count.Add(1)
		b := naming.Batch{Snapshot: true, Put: []naming.Endpoint{endpoint("a a:1"), endpoint("b b:1")}}
		if s.batch.Snapshot {
			b = s.batch
			b.Put, b.Deleted = slices.Clone(b.Put), slices.Clone(b.Deleted)
		}
		if !yield(b, nil) {
			return
		}
		select {
		case <-s.due:
			b := s.batch
			b.Put, b.Deleted, b.Withheld = slices.Clone(b.Put), slices.Clone(b.Deleted), slices.Clone(b.Withheld)
			if !yield(b, nil) {
				return
			}
		case <-ctx.Done():
		}
		<-ctx.Done()
		yield(naming.Batch{}, ctx.Err())
	}
}

func (s later) Services(ctx context.Context) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for _, names := range s.names {
			if !yield(names, nil) {
				return
			}
		}
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// A batch that breaks a rule ends the watch with an error that names the rule, and does
// not change the set.
func TestFieldR7BrokenBatches(t *testing.T) {
	type (
		batch = naming.Batch
		list  = []naming.Endpoint
	)
	withheld := func(ids ...string) (l []naming.Withheld) {
		for _, id := range ids {
			l = append(l, naming.Withheld{Endpoint: naming.Endpoint{ID: id, Addr: "w:1"}, Reason: naming.Maintenance})
		}
		return l
	}
	many := make(list, naming.MaxEndpoints+1)
	for i := range many {
		many[i].ID = fmt.Sprintf("many%06d", i)
	}
	long := func(n int) string { return strings.Repeat("x", n+1) }
	for _, c := range []struct {
		name  string
		batch batch
		says  string // empty: allowed
	}{
		{"no ID", batch{Put: list{{Addr: "x:1"}}}, `empty ID and the address "x:1"`},
		{"no ID of one withheld", batch{Withheld: withheld("")}, `empty ID and the address "w:1"`},
		{"deletion of no ID", batch{Deleted: []string{"b", ""}}, "a deletion with an empty ID"},
		{"twice put", batch{Put: list{endpoint("x x:1"), endpoint("y y:1"), endpoint("x x:2")}}, `the ID "x" twice`},
		{"twice deleted", batch{Deleted: []string{"a", "b", "a"}}, `the ID "a" twice`},
		{"twice withheld", batch{Withheld: withheld("w", "v", "w")}, `the ID "w" twice`},
		{"put and deleted", batch{Put: list{endpoint("a a:2"), endpoint("x x:1")}, Deleted: []string{"b", "x"}}, `the ID "x" twice`},
		{"put and withheld", batch{Put: list{endpoint("a a:2"), endpoint("x x:1")}, Withheld: withheld("w", "a")}, `the ID "a" twice`},
		{"deleted and withheld", batch{Deleted: []string{"a", "z"}, Withheld: withheld("z")}, `the ID "z" twice`},
		{"an ID too long", batch{Put: list{{ID: long(naming.MaxID), Addr: "x:1"}}}, "an ID of 4097 bytes"},
		{"an address too long", batch{Put: list{{ID: "x", Addr: long(naming.MaxAddr)}}}, "an address of 1025 bytes"},
		{"metadata too long", batch{Put: list{{ID: "x", Addr: "x:1", Metadata: []byte(long(naming.MaxMetadata))}}}, "metadata of 1048577 bytes"},
		{"an ID that steers a terminal", batch{Put: list{{ID: "\x1b[2J", Addr: "x"}, {ID: "\x1b[2J", Addr: "y"}}}, `\x1b[2J`},
		{"too many", batch{Put: slices.Clone(many)}, "200001 endpoints; at most 200000 are allowed"},
		{"too many with those that are there", batch{Put: slices.Clone(many[:naming.MaxEndpoints])}, "200002 endpoints"},
		{"as many as are allowed", batch{Put: slices.Clone(many[:naming.MaxEndpoints]), Deleted: []string{"a", "b"}}, ""},
		{"a snapshot with deletions", batch{Snapshot: true, Put: list{endpoint("a a:1"), endpoint("b b:1")}, Deleted: []string{"x"}}, `a snapshot with a deletion, of "x"`},
		{"an endpoint without an address", batch{Put: list{{Metadata: []byte("1")}}}, ""},
		{"a deletion of what nobody knows", batch{Deleted: []string{"x"}, Put: list{endpoint("c c:1")}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec, opts := recorded()
				var count atomic.Int64
				s := later{batch: c.batch, due: make(chan struct{}), count: &count}
				r := naming.New(s, opts)
				defer r.Close()
				f := follow(t, r)
				synctest.Wait()
				if !c.batch.Snapshot {
					close(s.due)
				}
				synctest.Wait()
				e, _ := f.Next()
				switch {
				case c.says == "":
					if e.Status.Err != nil || count.Load() != 1 {
						t.Errorf("%v; %d watches, want 1", e.Status.Err, count.Load())
					}
					return
				case e.Status.Err == nil || !strings.Contains(e.Status.Err.Error(), c.says) || len(e.Status.Err.Error()) > 400:
					t.Errorf("error %v, want one that says %q", e.Status.Err, c.says)
				case !e.Status.Stale():
					t.Error("not stale")
				}
				want := "[a b]"
				if c.batch.Snapshot {
					want = "[]" // a List is refused as well
					if v, err := r.List(t.Context(), "svc"); err == nil || !strings.Contains(err.Error(), c.says) || v.Synced {
						t.Errorf("List: %v, %v", v, err)
					}
				}
				if got := fmt.Sprint(ids(e.Put)); got != want {
					t.Errorf("set %s, want %s", got, want)
				}
				if len(c.batch.Put) > 1000 {
					return // a longer test would take long
				}
				time.Sleep(10 * time.Minute)
				if n := count.Load(); n < 2 || n > 100 {
					t.Errorf("%d watches in ten minutes", n)
				}
				if lines := rec.lines(slog.LevelWarn); len(lines) != 1 {
					t.Errorf("%d warnings in ten minutes, want 1: %.500q", len(lines), lines)
				}
			})
		})
	}
}

// A list of services that breaks a rule ends the watch in the same way.
func TestFieldR7BrokenServices(t *testing.T) {
	many := make([]string, naming.MaxServices+1)
	for i := range many {
		many[i] = fmt.Sprintf("%06d", i)
	}
	for _, c := range []struct {
		name  string
		names []string
		says  string
	}{
		{"not sorted", []string{"a", "c", "b"}, `"b" after "c"`},
		{"twice", []string{"a", "b", "b"}, `"b" twice`},
		{"empty", []string{"", "b"}, "empty name"},
		{"too long", []string{strings.Repeat("x", naming.MaxServiceName+1)}, "1025 bytes"},
		{"too many", many, "200001 services"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rec, opts := recorded()
				r := naming.New(later{names: [][]string{{"a", "z"}, c.names}, count: new(atomic.Int64)}, opts)
				defer r.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				var last []string
				for names, err := range r.Services(ctx) {
					if err == nil {
						last = names
					}
				}
				if !slices.Equal(last, []string{"a", "z"}) {
					t.Errorf("services %.100q, want the last good list", last)
				}
				if lines := rec.lines(slog.LevelWarn); len(lines) != 1 || !strings.Contains(strings.ReplaceAll(lines[0], `\"`, `"`), c.says) {
					t.Errorf("log %.500q, want one line with %q", lines, c.says)
				}
			})
		})
	}
}
