package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// Nothing is deleted before the source has answered, if it is slow and has not failed.
func TestSlowSourceAtStart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		_, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		stop()
		w.old.Delay(time.Minute)
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.DeleteDelay, o.Fuse.Share = -1, 1 }))
		for range 100 {
			settle(time.Second)
			w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		}
	})
}

// A target whose watches fail may show an endpoint that has left since. Its copy stays until
// the target is fresh.
func TestStaleTarget(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Minute)
		w.next.Down(errors.New("down"))
		settle(time.Second)
		w.next.Up()
		w.put(w.next, "web", endpoint("1"))
		for range 20 {
			settle(500 * time.Millisecond)
			w.want(w.next, "web", "1 ~old~1 ~old~2 ~old~3")
			w.next.Break(errors.New("flaky"))
		}
		settle(time.Minute)
		w.want(w.next, "web", "1 ~old~2 ~old~3")
	})
}

// Another Bridge, of an earlier epoch, answers every put of a copy with a put of its own.
// This Bridge repairs the copy, but not as often.
func TestDuel(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"))
		_, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		stop()
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options())
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Minute)
		defer cancel()
		for b, err := range w.next.Watch(ctx, "web") {
			if err != nil {
				break
			}
			for _, e := range b.Put {
				if m, _ := migrate.ReadMark(e.Metadata); m.Epoch == 2 {
					native, _ := migrate.Native(e)
					e.Metadata, _ = migrate.AddMark(native.Metadata, migrate.Mark{Origin: "old", Bridge: "default", Epoch: 1})
					w.put(w.next, "web", e)
				}
			}
		}
		if puts, _ := tap.history(); puts < 5 || puts > 12 {
			w.Errorf("%d puts in ten minutes", puts)
		}
	})
}

// Two Bridges run without an election, against the contract. They do not storm, and no
// endpoint is lost.
func TestTwoWithoutElection(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		one, two := newTap(w.T, w.next), newTap(w.T, w.next)
		o := options(func(o *bridge.Options) { o.NoElection = true })
		w.start(w.old, one, o)
		w.start(w.old, two, o)
		for range 60 {
			settle(time.Minute)
			w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		}
		a, _ := one.history()
		b, _ := two.history()
		if a+b > 200 {
			w.Errorf("%d puts of 3 copies in an hour", a+b)
		}
	})
}

// The credentials are refused for a time. The Bridge waits, and warns once.
func TestRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		tap := newTap(w.T, w.next)
		var failed int
		w.next.RefuseFunc(func(method, _ string) error {
			if method == "Apply" {
				return naming.ErrPermission
			}
			return nil
		})
		b, _ := w.start(w.old, tap, options(func(o *bridge.Options) {
			o.NoElection = true
			o.Hooks = &bridge.Hooks{Failed: func(i bridge.FailedInfo) {
				if errors.Is(i.Err, naming.ErrPermission) {
					failed++
				}
			}}
		}))
		settle(time.Hour)
		if n := tap.count("Apply"); n < 60 || n > 400 || n != failed {
			w.Errorf("%d attempts in an hour, %d calls of the hook", n, failed)
		}
		if err := b.Status().Err; !errors.Is(err, naming.ErrPermission) {
			w.Errorf("the status has %v", err)
		}
		w.next.Up()
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if s := b.Status(); s.Err != nil {
			w.Errorf("the status has %v", s.Err)
		}
	})
}

// The target is slow. A change that is undone meanwhile costs no more than its writes, and
// nothing is deleted that is back.
func TestSlowTarget(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.next.Delay(300 * time.Millisecond)
		w.start(w.old, newTap(w.T, w.next), options())
		settle(20 * time.Second)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		for range 20 {
			w.delete(w.old, "web", "1")
			settle(time.Second)
			w.put(w.old, "web", endpoint("1"))
			settle(time.Second)
			w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		}
	})
}

// The first put fails and takes effect all the same. The endpoint leaves, and so does the
// copy.
func TestUncertainPut(t *testing.T) {
	inWorld(t, func(w *world) {
		tap := newTap(w.T, w.next)
		tap.leave = func(method, service string) error {
			if method == "Apply" && service == "web" && tap.count("Apply") < 8 {
				return errors.New("timed out")
			}
			return nil
		}
		w.start(w.old, tap, options())
		settle(time.Second)
		w.put(w.old, "web", endpoint("1"))
		settle(20 * time.Millisecond)
		w.want(w.next, "web", "~old~1")
		w.delete(w.old, "web", "1")
		settle(time.Minute)
		w.want(w.next, "web", "")
	})
}

// A copy that another Bridge puts while this one works, and that this one does not want, is
// left alone. Its lease is not the own lease.
func TestCopyOfAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options())
		settle(time.Minute)
		_, before := tap.history()
		e := endpoint("9")
		e.ID = migrate.CopyID("old", "9")
		w.put(w.next, "web", e)
		settle(time.Hour)
		if _, after := tap.history(); len(after) != len(before) {
			w.Errorf("the Bridge wrote %q", after[len(before):])
		}
	})
}

// The registry of the election is the source. It is down for longer than the copies' time to
// live. The Bridge does not work then, and its copies stay leased.
func TestLongOutageOfElection(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		var mine bool
		b, stop := w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.Election = w.old }))
		settle(time.Minute)
		w.old.Down(errors.New("down"))
		settle(3 * time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		mine = b.Status().Working
		w.old.Up()
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if mine || !b.Status().Working {
			w.Errorf("works during the outage: %v, and afterwards: %+v", mine, b.Status())
		}
		// Now another Bridge is elected. The first one no longer renews, and the copies of
		// endpoints that leave lapse with nobody.
		second, _ := w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.Election = w.old }))
		stop()
		settle(time.Minute)
		w.delete(w.old, "web", "1")
		settle(time.Hour)
		w.want(w.next, "web", "~old~2 ~old~3")
		if !second.Status().Working {
			w.Errorf("second %+v", second.Status())
		}
	})
}

// records counts log records by level.
type records struct {
	slog.Handler
	mu     sync.Mutex
	counts map[slog.Level]int
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }

func (r *records) Handle(_ context.Context, x slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[x.Level]++
	return nil
}

func (r *records) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *records) count(l slog.Level) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[l]
}

// A registry that is down is one warning, and not one for each service.
func TestOutageIsOneWarning(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 50 {
			w.put(w.old, fmt.Sprint("s", i), endpoint("1"))
		}
		log := &records{Handler: slog.DiscardHandler, counts: make(map[slog.Level]int)}
		b, _ := w.start(w.old, w.next, options(func(o *bridge.Options) { o.Logger = slog.New(log) }))
		settle(time.Minute)
		if n := log.count(slog.LevelWarn); n != 0 {
			w.Errorf("%d warnings of a Bridge that works", n)
		}
		w.old.Down(errors.New("down"))
		settle(time.Minute)
		if s := b.Status(); s.StaleSource != 50 || s.StaleTarget != 0 {
			w.Errorf("status %+v", s)
		}
		w.old.Up()
		settle(2 * time.Minute)
		if s := b.Status(); s.StaleSource != 0 || s.StaleTarget != 0 {
			w.Errorf("status %+v", s)
		}
		if warned, informed := log.count(slog.LevelWarn), log.count(slog.LevelInfo); warned != 1 || informed != 2 {
			w.Errorf("%d warnings and %d infos, want 1 and 2", warned, informed)
		}
	})
}

// The source, or the registry of the election, is down when the Bridge starts, and the
// target has no copies. The operator learns of the outage.
func TestDownAtStart(t *testing.T) {
	for _, what := range []string{"source", "election"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.three("web")
				down := map[string]*memory.Store{"source": w.old, "election": w.next}[what]
				down.Down(errors.New("down"))
				log := &records{Handler: slog.DiscardHandler, counts: make(map[slog.Level]int)}
				w.start(w.old, w.next, options(func(o *bridge.Options) { o.Logger = slog.New(log) }))
				settle(10 * time.Minute)
				if n := log.count(slog.LevelWarn); n != 1 {
					w.Errorf("%d warnings, want 1", n)
				}
				down.Up()
				settle(time.Minute)
				w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
				if warned, informed := log.count(slog.LevelWarn), log.count(slog.LevelInfo); warned != 1 || informed != 2 {
					w.Errorf("%d warnings and %d infos in the end, want 1 and 2", warned, informed)
				}
			})
		})
	}
}

// A service that changes all the time, in a target that refuses writes, is tried as
// seldom as any other.
func TestBackoffUnderChurn(t *testing.T) {
	inWorld(t, func(w *world) {
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options(func(o *bridge.Options) { o.NoElection = true }))
		settle(time.Second)
		w.next.RefuseFunc(func(method, _ string) error {
			if method == "Apply" {
				return naming.ErrPermission
			}
			return nil
		})
		for i := range 3000 {
			e := endpoint("1")
			e.Metadata = []byte(fmt.Sprint(i))
			w.put(w.old, "web", e)
			settle(100 * time.Millisecond)
		}
		if n := tap.count("Apply"); n < 5 || n > 60 {
			w.Errorf("%d attempts in five minutes", n)
		}
	})
}
