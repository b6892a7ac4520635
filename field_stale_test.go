package naming_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
)

// readable is a store that can be read while it is troubled, but not watched: a watch
// fails some time after its snapshot.
type readable struct {
	*memory.Store
	lives    time.Duration // how long a watch lives
	troubled atomic.Bool
	watches  atomic.Int64
}

var errNoLeader = errors.New("no leader")

// trouble begins or ends the trouble.
func (s *readable) trouble(on bool) {
	s.troubled.Store(on)
	if on {
		s.Break(errNoLeader)
	}
}

func (s *readable) Watch(ctx context.Context, service string) iter.Seq2[naming.Batch, error] {
	return func(yield func(naming.Batch, error) bool) {
		s.watches.Add(1)
		if !s.troubled.Load() {
			s.Store.Watch(ctx, service)(yield)
			return
		}
		ctx, cancel := context.WithTimeoutCause(ctx, s.lives, errNoLeader)
		defer cancel()
		for b, err := range s.Store.Watch(ctx, service) {
			if err != nil && errors.Is(context.Cause(ctx), errNoLeader) {
				err = errNoLeader
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// failures returns how many attempts a watch makes at most in a time in which each one
// fails: the first few soon, and then one in 15 seconds on average, with a margin for
// chance.
func failures(d time.Duration) int64 { return 12 + int64(d/(12*time.Second)) }

// Lists succeed and watches fail for an hour. The set is stale once, since the first
// failure, with one warning. There is no storm of full reads, also while other calls of
// the same Client succeed, the set changes, or readers are in a hurry.
func TestFieldR1ReadableButNotWatchable(t *testing.T) {
	for _, lives := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 900 * time.Millisecond, 5 * time.Second} {
		for _, busy := range []string{"", "calls", "hurry", "changes"} {
			t.Run(fmt.Sprint(lives, " ", busy), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rec, opts := recorded()
					s := &readable{Store: new(memory.Store), lives: lives}
					c := naming.New(s, opts)
					defer c.Close()
					put(t, s, "svc", "a a:1", "b b:1")
					f := follow(t, c)
					fresh := now(t, c)
					time.Sleep(time.Minute)
					s.trouble(true)
					begin := time.Now()
					s.watches.Store(0)
					for i := 0; time.Since(begin) < time.Hour; i++ {
						time.Sleep(250 * time.Millisecond)
						switch busy {
						case "calls":
							if err := c.Update(t.Context(), "other", naming.Update{Addr: "x:1"}); err != nil {
								t.Fatal(err)
							}
						case "hurry":
							f.Retry()
						case "changes":
							put(t, s, "svc", fmt.Sprintf("b b:1 %d", i))
						}
					}
					v := now(t, c)
					most := 1
					if lives == 5*time.Second { // long enough for a proof after the first failures
						most, begin, fresh.AsOf = 4, v.StaleSince, v.AsOf
					}
					if !v.Stale() || !v.StaleSince.Equal(begin) || !v.AsOf.Equal(fresh.AsOf) || !errors.Is(v.Err, errNoLeader) {
						t.Errorf("after an hour: %+v; failed at %v, fresh at %v", v.Status, begin, fresh.AsOf)
					}
					if got := rec.called(); len(got) > 2*most-1 {
						t.Errorf("hooks in an hour: %q", got)
					}
					if lines := rec.lines(slog.LevelWarn); len(lines) > most {
						t.Errorf("%d warnings: %.500q", len(lines), lines)
					}
					if n := s.watches.Load(); n > failures(time.Hour) {
						t.Errorf("%d reads in an hour, want no more than %d", n, failures(time.Hour))
					}
					// Readers get at once what such a watch reads.
					put(t, s, "svc", "c c:1")
					time.Sleep(time.Minute)
					if v := now(t, c); len(v.Endpoints) != 3 || !v.Stale() {
						t.Errorf("a minute after a change: %v, stale %v", ids(v.Endpoints), v.Stale())
					}
					s.trouble(false)
					// The present watch still fails. The next one begins after 30 s
					// at most, and has proved itself after 30 s at most.
					time.Sleep(lives + time.Minute + time.Second)
					if v := now(t, c); v.Stale() || v.Err != nil || time.Since(v.AsOf) > time.Minute {
						t.Errorf("long after the trouble: %+v", v.Status)
					}
					if got := rec.called(); !slices.Equal(got, []string{"stale false"}) {
						t.Errorf("hooks after the trouble: %q", got)
					}
				})
			})
		}
	}
}

// Two of three members of etcd are down for ten minutes: reads that need no quorum
// succeed, watches and writes fail.
func TestFieldR1TwoOfThreeMembersDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const services = 10
		rec, opts := recorded()
		s := &readable{Store: new(memory.Store), lives: 10 * time.Millisecond}
		c := naming.New(s, opts)
		defer c.Close()
		for i := range services {
			service := fmt.Sprint("svc", i)
			put(t, s, service, "a a:1", "b b:1", "c c:1")
			w := resolve(t, c, service)
			next(t, w, "Add a:1 null", "Add b:1 null", "Add c:1 null")
		}
		time.Sleep(time.Minute)
		s.RefuseFunc(func(method, _ string) error {
			if method == "Watch" {
				return nil
			}
			return errNoLeader
		})
		s.watches.Store(0)
		s.trouble(true)
		time.Sleep(time.Minute)
		if n := s.watches.Load(); n > services*failures(time.Minute)*2/3 {
			t.Errorf("%d reads in the first minute, want no more than %d", n, services*failures(time.Minute)*2/3)
		}
		time.Sleep(9 * time.Minute)
		if n := s.watches.Load(); n > services*failures(10*time.Minute) {
			t.Errorf("%d reads in ten minutes, want no more than %d", n, services*failures(10*time.Minute))
		}
		s.RefuseFunc(nil)
		s.trouble(false)
		time.Sleep(time.Minute + 5*time.Second)
		if lines := rec.lines(slog.LevelWarn); len(lines) != services {
			t.Errorf("%d warnings for %d services", len(lines), services)
		}
		count := make(map[string]int)
		for _, c := range rec.called() {
			count[c]++
		}
		if count["stale true"] != services || count["stale false"] != services || len(count) != 2 {
			t.Errorf("hooks %v, want each service stale once", count)
		}
	})
}

// A set whose watch breaks once is stale for a second. If the watch lives long between
// its failures, the set is not stale meanwhile. A periodic full read neither makes a set
// stale nor keeps it stale.
func TestFieldR1Proof(t *testing.T) {
	for _, reread := range []time.Duration{0, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			rec, opts := recorded()
			opts.ResyncEvery = reread
			s := &readable{Store: new(memory.Store)}
			c := naming.New(s, opts)
			defer c.Close()
			put(t, s, "svc", "a a:1")
			now(t, c)
			for range 20 {
				time.Sleep(time.Minute)
				s.Break(errNoLeader)
				time.Sleep(500 * time.Millisecond)
				if !now(t, c).Stale() {
					t.Error("not stale half a second after the watch failed")
				}
				time.Sleep(3 * time.Second)
				if v := now(t, c); v.Stale() || time.Since(v.AsOf) > 4*time.Second {
					t.Errorf("3.5 seconds after the watch failed: %+v", v.Status)
				}
			}
			if got := rec.called(); len(got) != 40 {
				t.Errorf("%d hooks, want 20 stale and 20 fresh", len(got))
			}
			s.Down(errNoLeader)
			time.Sleep(time.Hour)
			s.Up()
			time.Sleep(61 * time.Second)
			if v := now(t, c); v.Stale() {
				t.Errorf("a minute after an outage: %+v", v.Status)
			}
		})
	}
}

// A call that succeeds proves that the registry is back. Watches that wait for their next
// attempt are then retried within about a second, and not all at once.
func TestFieldR1SuccessWakesWatches(t *testing.T) {
	calls := map[string]func(t *testing.T, s naming.Store, c *naming.Client){
		"update": func(t *testing.T, s naming.Store, c *naming.Client) {
			if err := c.Update(t.Context(), "other", naming.Update{Addr: "x:1"}); err != nil {
				t.Error(err)
			}
		},
		"register": func(t *testing.T, s naming.Store, c *naming.Client) {
			if _, err := c.Register(t.Context(), "other", naming.Endpoint{Addr: "x:1"}, &naming.RegisterOptions{Wait: true}); err != nil {
				t.Error(err)
			}
		},
		"list": func(t *testing.T, s naming.Store, c *naming.Client) {
			if _, err := c.List(t.Context(), "other"); err != nil {
				t.Error(err)
			}
		},
		"watch": func(t *testing.T, s naming.Store, c *naming.Client) {
			w := resolve(t, c, "other")
			next(t, w)
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			in(t, nil, func(t *testing.T, s *memory.Store, c *naming.Client) {
				const services = 200
				var followers []*naming.Follower
				for i := range services {
					f, err := c.Follow(fmt.Sprint("svc", i), func() {})
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					followers = append(followers, f)
				}
				synctest.Wait()
				s.Down(io.ErrUnexpectedEOF)
				time.Sleep(time.Hour)
				s.Up()
				for i := range services {
					put(t, s, fmt.Sprint("svc", i), "a:1")
				}
				synctest.Wait()
				for _, f := range followers {
					for _, ok := f.Next(); ok; _, ok = f.Next() {
					}
				}
				begin := s.Calls()
				call(t, s, c)
				time.Sleep(hurryBound + services*2*time.Millisecond)
				back := 0
				for _, f := range followers {
					if e, ok := f.Next(); ok && len(e.Put) == 1 {
						back++
					}
				}
				if back < services-10 { // some may have come back before the call
					t.Errorf("%d of %d services are back", back, services)
				}
				if n := s.Calls() - begin; n > services+10 {
					t.Errorf("%d requests for %d services", n, services)
				}
			})
		})
	}
}
