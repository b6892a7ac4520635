package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

func TestNotCopied(t *testing.T) {
	inWorld(t, func(w *world) {
		addressless := naming.Endpoint{ID: "x", Metadata: json.RawMessage(`1`)}
		copied := endpoint("9")
		copied.ID = migrate.CopyID("other", "9")
		w.put(w.old, "web", endpoint("1"), endpoint("2"), endpoint("3"), addressless, copied)
		w.old.Withhold("web", "2", naming.Maintenance, "")
		w.old.Withhold("web", "3", naming.FailedCheck, "")
		w.put(w.old, bridge.Service, endpoint("4"))
		w.put(w.old, "naming/migration", endpoint("5"))
		w.put(w.old, "secret", endpoint("6"))
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) {
			o.Services = func(s string) bool { return s != "secret" }
		}))
		settle(time.Minute)
		w.want(w.next, "web", "~old~1")
		w.want(w.next, "naming/migration", "")
		w.want(w.next, "secret", "")
		w.old.Unwithhold("web", "2")
		settle(time.Second)
		w.want(w.next, "web", "~old~1 ~old~2")
		w.old.Withhold("web", "2", naming.Maintenance, "")
		settle(time.Second)
		w.want(w.next, "web", "~old~1")
	})
}

func TestChangesAreCopied(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"))
		w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		e := naming.Endpoint{ID: "1", Addr: "10.9.9.9:1", Metadata: json.RawMessage(`{}`), Draining: true}
		w.put(w.old, "web", e)
		settle(time.Second)
		native, _ := migrate.Native(w.list(w.next, "web")["~old~1"])
		if !native.Equal(e) {
			w.Errorf("the copy stands for %v, want %v", native, e)
		}
	})
}

// The native endpoint wins, and its copy is removed after the native endpoint is there.
// When the native endpoint leaves, the copy is back.
func TestNativeWins(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"), endpoint("2"))
		w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		own := endpoint("1")
		own.ID = "self"
		w.put(w.next, "web", own)
		settle(time.Second)
		w.want(w.next, "web", "self ~old~2")
		w.next.Withhold("web", "self", naming.Maintenance, "an operator's decision holds")
		settle(time.Minute)
		w.want(w.next, "web", "self ~old~2")
		w.delete(w.next, "web", "self")
		settle(time.Second)
		w.want(w.next, "web", "~old~1 ~old~2")
	})
}

// An endpoint that gets another ID keeps a copy at its address all the time.
func TestAddBeforeRemove(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"))
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options(func(o *bridge.Options) { o.DeleteDelay = -1 }))
		settle(time.Second)
		again := endpoint("1")
		again.ID = "1b"
		err := w.old.Apply(w.Context(), "web",
			naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: "1"}}, naming.Change{Op: naming.Add, Endpoint: again})
		if err != nil {
			w.Fatal(err)
		}
		settle(time.Second)
		w.want(w.next, "web", "~old~1b")
		if _, writes := tap.history(); !slices.Equal(writes, []string{"+~old~1", "+~old~1b", "-~old~1"}) {
			w.Errorf("writes %q", writes)
		}
	})
}

// What left in order is deleted at once and never blows the fuse.
func TestDraining(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"), endpoint("2"), endpoint("3"))
		b, _ := w.start(w.old, w.next, options())
		settle(time.Second)
		for _, id := range []string{"1", "2", "3"} {
			e := endpoint(id)
			e.Draining = true
			w.put(w.old, "web", e)
		}
		settle(time.Second)
		if !w.list(w.next, "web")["~old~2"].Draining {
			w.Error("the copy of a draining endpoint is not draining")
		}
		w.delete(w.old, "web", "1", "2", "3")
		settle(100 * time.Millisecond)
		w.want(w.next, "web", "")
		settle(time.Minute)
		if s := b.Status(); s.Blown != nil || s.Services != 0 || s.Copies != 0 {
			w.Errorf("status %+v", s)
		}
	})
}

// The mark of an operator in the source is carried to the copy and lifted there, also while a
// program keeps the endpoint registered.
func TestMarkOfOperator(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"))
		program, operator := naming.New(w.old, nil), naming.New(w.old, nil)
		defer program.Close()
		defer operator.Close()
		g, err := program.Register(w.Context(), "web", endpoint("2"), &naming.RegisterOptions{Wait: true})
		if err != nil {
			w.Fatal(err)
		}
		w.start(w.old, w.next, options())
		settle(time.Minute)
		for _, draining := range []bool{true, false} {
			for _, id := range []string{"1", "2"} {
				if err := operator.Mark(w.Context(), "web", id, draining); err != nil {
					w.Fatal(err)
				}
			}
			settle(time.Second)
			if err := g.Update(w.Context(), endpoint("2").Metadata); err != nil {
				w.Fatal(err)
			}
			settle(time.Minute)
			for _, id := range []string{"~old~1", "~old~2"} {
				if c := w.list(w.next, "web")[id]; c.Draining != draining {
					w.Errorf("Mark(%v) in the source: the copy is %+v", draining, c)
				}
			}
		}
		if err := operator.Mark(w.Context(), "web", "~old~1", true); !errors.Is(err, naming.ErrNotFound) {
			w.Errorf("Mark of a copy in the source: got error %v, want ErrNotFound", err)
		}
		if err := program.Mark(w.Context(), "web", "1", true); err != nil { // any Client may mark
			w.Fatal(err)
		}
		// Somebody marks the copy itself. The bridge puts what the source has.
		if err := w.next.Mark(w.Context(), "web", "~old~2", true); err != nil {
			w.Fatal(err)
		}
		settle(time.Minute)
		if c := w.list(w.next, "web"); !c["~old~1"].Draining || c["~old~2"].Draining {
			w.Errorf("the copies are %+v", c)
		}
	})
}

// blown collects the plans of FuseBlown.
type blown struct {
	mu    sync.Mutex
	plans []*bridge.Plan
}

func (x *blown) hooks(o *bridge.Options) {
	o.Hooks = &bridge.Hooks{FuseBlown: func(i bridge.FuseBlownInfo) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.plans = append(x.plans, i.Plan)
	}}
}

// last returns the last plan, or an empty one.
func (x *blown) last() *bridge.Plan {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.plans) == 0 {
		return new(bridge.Plan)
	}
	return x.plans[len(x.plans)-1]
}

func (w *world) three(service string) {
	w.put(w.old, service, endpoint("1"), endpoint("2"), endpoint("3"))
}

// A source that loses its data deletes nothing. Additions go on, the copies stay leased,
// and an approval lets exactly the plan through.
func TestFuse(t *testing.T) {
	inWorld(t, func(w *world) {
		var alarm blown
		w.three("web")
		b, _ := w.start(w.old, newTap(w.T, w.next), options(alarm.hooks))
		settle(time.Second)
		w.old.Wipe()
		settle(time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		p := alarm.last()
		if !p.Blown || len(p.Deletes) != 3 || p.Digest == "" || b.Status().Blown == nil || b.Status().Blown.Digest != p.Digest {
			w.Fatalf("plan %+v, status %+v", p, b.Status())
		}
		w.put(w.old, "web", endpoint("4"))
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3 ~old~4")
		var wrong *bridge.DigestError
		if err := b.Approve(w.Context(), "0000"); !errors.As(err, &wrong) || wrong.Want != p.Digest {
			w.Errorf("Approve of another digest: %v", err)
		}
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3 ~old~4")
		w.put(w.old, "web", endpoint("1"))
		settle(10 * time.Second)
		if err := b.Approve(w.Context(), p.Digest); !errors.As(err, &wrong) || wrong.Want != alarm.last().Digest {
			w.Errorf("Approve of a plan that changed: %v", err)
		}
		if err := b.Approve(w.Context(), alarm.last().Digest); err != nil {
			w.Error(err)
		}
		settle(10 * time.Second)
		w.want(w.next, "web", "~old~1 ~old~4")
		if b.Status().Blown != nil || alarm.last().Blown {
			w.Errorf("status %+v", b.Status())
		}
	})
}

// The fuse is whole again when the endpoints are back.
func TestFuseWholeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		var alarm blown
		w.three("web")
		b, _ := w.start(w.old, w.next, options(alarm.hooks))
		settle(time.Second)
		w.old.Wipe()
		settle(time.Minute)
		w.three("web")
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if b.Status().Blown != nil || alarm.last().Blown {
			w.Errorf("status %+v", b.Status())
		}
		w.delete(w.old, "web", "1")
		settle(10 * time.Second)
		w.want(w.next, "web", "~old~2 ~old~3")
	})
}

// The fuse counts all services together: a source of services with one endpoint each.
func TestFuseOfAllServices(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 20 {
			w.put(w.old, fmt.Sprint("s", i), endpoint("1"))
		}
		b, _ := w.start(w.old, w.next, options())
		settle(time.Second)
		w.old.Wipe()
		settle(time.Hour)
		for i := range 20 {
			w.want(w.next, fmt.Sprint("s", i), "~old~1")
		}
		p := b.Status().Blown
		if p == nil || len(p.Deletes) != 20 {
			w.Fatalf("plan %+v", p)
		}
		if err := b.Approve(w.Context(), p.Digest); err != nil {
			w.Error(err)
		}
		settle(time.Minute)
		for i := range 20 {
			w.want(w.next, fmt.Sprint("s", i), "")
		}
	})
}

// A rolling restart replaces all endpoints, one after another, without a draining mark.
func TestFuseAndRollingRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		var alarm blown
		w.three("web")
		w.start(w.old, w.next, options(alarm.hooks))
		settle(time.Minute)
		for i := range 9 {
			w.put(w.old, "web", endpoint(fmt.Sprint(i+4)))
			settle(3 * time.Second)
			w.delete(w.old, "web", fmt.Sprint(i+1))
			settle(3 * time.Second)
		}
		w.want(w.next, "web", "~old~10 ~old~11 ~old~12")
		if len(alarm.plans) > 0 {
			w.Errorf("a false alarm: %+v", alarm.last())
		}
	})
}

// A source was wiped while no Bridge ran. The next one knows no source, and keeps the copies.
func TestWipedWhileStopped(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.three("db")
		_, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		stop()
		w.old.Wipe()
		b, _ := w.start(w.old, newTap(w.T, w.next), options())
		settle(2 * time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		w.want(w.next, "db", "~old~1 ~old~2 ~old~3")
		p := b.Status().Blown
		if p == nil || len(p.Deletes) != 6 {
			w.Fatalf("plan %+v", p)
		}
		// Another process approves.
		other, err := bridge.New(w.old, w.next, options())
		if err != nil {
			w.Fatal(err)
		}
		var wrong *bridge.DigestError
		if err := other.Approve(w.Context(), "x"); !errors.As(err, &wrong) || wrong.Want != p.Digest {
			w.Errorf("Approve of another digest by another process: %v", err)
		}
		if err := other.Approve(w.Context(), p.Digest); err != nil {
			w.Error(err)
		}
		settle(time.Minute)
		w.want(w.next, "web", "")
		w.want(w.next, "db", "")
	})
}

// Nothing is deleted while the source is down or stale, also if it shows a set.
func TestStaleSource(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.DeleteDelay = -1 }))
		settle(time.Minute)
		w.delete(w.old, "web", "1")
		settle(time.Second)
		w.want(w.next, "web", "~old~2 ~old~3")
		w.old.Down(errors.New("down"))
		settle(time.Hour)
		w.delete2(w.old, "web", "2")
		for range 100 {
			settle(500 * time.Millisecond)
			w.want(w.next, "web", "~old~2 ~old~3")
			w.old.Break(errors.New("flaky"))
		}
		settle(time.Minute)
		w.want(w.next, "web", "~old~3")
	})
}

// delete2 ends a fault of a store and deletes an endpoint at the same moment.
func (w *world) delete2(s *memory.Store, service, id string) {
	s.Up()
	w.delete(s, service, id)
}

// Nothing is deleted before the source has answered, and copies stay leased.
func TestSourceDownAtStart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		_, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		stop()
		w.old.Down(errors.New("down"))
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.DeleteDelay, o.Fuse.Share = -1, 1 }))
		settle(3 * time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		w.old.Up()
		settle(time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
	})
}

// The copy of an endpoint that the source's Client holds stays, whatever the fuse admits.
func TestHeldSource(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) {
			o.Hold, o.Fuse.Share = naming.Hold{}, 1
		}))
		settle(time.Second)
		w.old.Wipe()
		settle(4 * time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		settle(2 * time.Minute)
		w.want(w.next, "web", "")
	})
}

func TestTargetWiped(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options())
		settle(time.Minute)
		w.next.Wipe()
		settle(5 * time.Second)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		settle(time.Hour)
		w.next.Down(errors.New("down"))
		settle(time.Hour)
		w.next.Up()
		settle(2 * time.Minute)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if puts, _ := tap.history(); puts > 12 {
			w.Errorf("%d puts of 3 copies, which were lost twice", puts)
		}
	})
}

func TestLeaseLost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		tap := newTap(w.T, w.next)
		b, _ := w.start(w.old, tap, options(func(o *bridge.Options) { o.NoElection = true }))
		settle(time.Minute)
		w.next.ExpireAll()
		settle(time.Second)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		settle(2 * time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if puts, _ := tap.history(); puts > 9 || !b.Status().Working {
			w.Errorf("%d puts, status %+v", puts, b.Status())
		}
	})
}

// Copies share leases, outlive the Bridge, and lapse without another Bridge.
func TestLeases(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 10 {
			var all []naming.Endpoint
			for j := range 100 {
				all = append(all, naming.Endpoint{ID: fmt.Sprint(j), Addr: fmt.Sprintf("h%d:%d", i, j+1)})
			}
			w.put(w.old, fmt.Sprint("s", i), all...)
		}
		tap := newTap(w.T, w.next)
		_, stop := w.start(w.old, tap, options(func(o *bridge.Options) { o.NoElection = true }))
		settle(time.Minute)
		if n := tap.count("Grant"); n < 4 || n > 5 {
			w.Errorf("%d leases for 1000 copies", n)
		}
		settle(time.Hour)
		stop()
		if n := tap.count("Revoke"); n != 0 {
			w.Errorf("%d leases were revoked", n)
		}
		settle(8 * time.Minute)
		if n := len(w.list(w.next, "s3")); n != 100 {
			w.Errorf("%d copies after the Bridge ended", n)
		}
		settle(10 * time.Minute)
		w.want(w.next, "s3", "")
	})
}

// A restarted Bridge puts each copy once, under its own lease, and not again.
func TestRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		_, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Minute)
		stop()
		w.delete(w.old, "web", "1")
		w.put(w.old, "web", endpoint("4"))
		settle(time.Minute)
		tap := newTap(w.T, w.next)
		b, _ := w.start(w.old, tap, options())
		settle(time.Minute)
		w.want(w.next, "web", "~old~2 ~old~3 ~old~4")
		if e := b.Status().Epoch; e != 2 {
			w.Errorf("epoch %d", e)
		}
		settle(3 * time.Hour)
		w.want(w.next, "web", "~old~2 ~old~3 ~old~4")
		if puts, _ := tap.history(); puts != 4 {
			w.Errorf("%d puts after the restart, want 4: one for each copy and the new endpoint", puts)
		}
	})
}

// Two directions at once make no copies of copies.
func TestBothDirections(t *testing.T) {
	inWorld(t, func(w *world) {
		back := options(func(o *bridge.Options) { o.SourceName, o.TargetName = "new", "old" })
		there, here := newTap(w.T, w.next), newTap(w.T, w.old)
		w.start(w.old, there, options())
		w.start(w.next, here, back)
		for i := range 50 {
			w.put(w.old, "web", endpoint(fmt.Sprint(i+1)))
			w.put(w.next, "web", endpoint(fmt.Sprint(i+101)))
			settle(time.Second)
			if i >= 5 {
				w.delete(w.old, "web", fmt.Sprint(i-4))
				w.delete(w.next, "web", fmt.Sprint(i+96))
			}
			settle(3 * time.Second)
		}
		settle(time.Minute)
		w.want(w.next, "web", "146 147 148 149 150 ~old~46 ~old~47 ~old~48 ~old~49 ~old~50")
		w.want(w.old, "web", "46 47 48 49 50 ~new~146 ~new~147 ~new~148 ~new~149 ~new~150")
		for _, tap := range []*tap{there, here} {
			if puts, writes := tap.history(); puts != 50 || len(writes) != 95 {
				w.Errorf("%d puts, %d writes, want 50 and 95", puts, len(writes))
			}
		}
	})
}

// The same server in both registries, with a Bridge in each direction, has no copy.
func TestBothDirectionsSameServer(t *testing.T) {
	inWorld(t, func(w *world) {
		back := options(func(o *bridge.Options) { o.SourceName, o.TargetName = "new", "old" })
		w.start(w.old, newTap(w.T, w.next), options())
		w.start(w.next, newTap(w.T, w.old), back)
		w.put(w.old, "web", endpoint("1"))
		settle(time.Second)
		w.want(w.next, "web", "~old~1")
		w.put(w.next, "web", endpoint("1"))
		settle(time.Minute)
		w.want(w.next, "web", "1")
		w.want(w.old, "web", "1")
	})
}

// Bridges of different migrations do not touch each other's copies.
func TestOtherMigration(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.Name = "a" }))
		settle(time.Second)
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options(func(o *bridge.Options) { o.Name = "b" }))
		settle(time.Hour)
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		if puts, writes := tap.history(); puts != 0 {
			w.Errorf("the second Bridge wrote %q", writes)
		}
	})
}

// Somebody removes a copy again and again. The Bridge does not answer with a storm.
func TestFight(t *testing.T) {
	inWorld(t, func(w *world) {
		w.put(w.old, "web", endpoint("1"))
		tap := newTap(w.T, w.next)
		w.start(w.old, tap, options())
		ctx, cancel := context.WithTimeout(w.Context(), 10*time.Minute)
		defer cancel()
		for b, err := range w.next.Watch(ctx, "web") {
			if err != nil {
				break
			}
			for _, e := range b.Put {
				time.Sleep(10 * time.Millisecond) // the Bridge has seen its copy
				w.delete(w.next, "web", e.ID)
			}
		}
		if puts, _ := tap.history(); puts < 5 || puts > 30 {
			w.Errorf("%d puts in ten minutes", puts)
		}
		settle(2 * time.Minute)
		w.want(w.next, "web", "~old~1")
	})
}

func TestNewRefuses(t *testing.T) {
	s, o := new(memory.Store), new(memory.Store)
	for name, f := range map[string]func() (*bridge.Bridge, error){
		"nil": func() (*bridge.Bridge, error) { return bridge.New(nil, o, nil) },
		"same name": func() (*bridge.Bridge, error) {
			return bridge.New(s, o, &bridge.Options{SourceName: "a", TargetName: "a"})
		},
		"bad name":   func() (*bridge.Bridge, error) { return bridge.New(s, o, &bridge.Options{SourceName: "a~b"}) },
		"bad bridge": func() (*bridge.Bridge, error) { return bridge.New(s, o, &bridge.Options{Name: "a b"}) },
		"election": func() (*bridge.Bridge, error) {
			return bridge.New(s, o, &bridge.Options{Election: inexact{new(memory.Store)}})
		},
		"ids": func() (*bridge.Bridge, error) { return bridge.New(s, &limited{Store: o, noTilde: true}, nil) },
	} {
		if b, err := f(); b != nil || !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%s: New = %v, %v", name, b, err)
		}
	}
	if _, err := bridge.New(s, inexact{o}, &bridge.Options{Election: s}); err != nil {
		t.Errorf("the election is on the other registry: %v", err)
	}
}

// inexact is a Store that cannot elect.
type inexact struct{ *memory.Store }

func (inexact) ExclusiveAdds() bool { return false }

// limited is a target with a format that lacks room for some things.
type limited struct {
	naming.Store
	noTilde, noMetadata, noDraining bool
	refuse                          string // an ID of a native endpoint
}

func (l *limited) Map(_ string, e naming.Endpoint) (naming.Endpoint, error) {
	switch {
	case l.noTilde && strings.Contains(e.ID, "~"), l.noMetadata && e.Metadata != nil, l.noDraining && e.Draining,
		l.refuse != "" && strings.HasSuffix(e.ID, "~"+l.refuse):
		return e, fmt.Errorf("%w: no room", naming.ErrInvalid)
	}
	return e, nil
}

func (l *limited) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	for _, c := range changes {
		if _, err := l.Map(service, c.Endpoint); err != nil && c.Op == naming.Add && service != bridge.Service {
			return err
		}
	}
	return l.Store.Apply(ctx, service, changes...)
}

// mapless is a limited target that cannot say what its format holds.
type mapless struct {
	unmapped
	limited *limited
}

// unmapped is the methods of a Store without Map.
type unmapped interface{ naming.Store }

func (m mapless) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	return m.limited.Apply(ctx, service, changes...)
}

// What the target cannot hold is left out or refused, is reported once, and stops nothing
// else.
func TestLoss(t *testing.T) {
	for _, mapped := range []bool{true, false} {
		t.Run(fmt.Sprint(mapped), func(t *testing.T) { inWorld(t, func(w *world) { testLoss(w, mapped) }) })
	}
}

func testLoss(w *world, mapped bool) {
	l := &limited{Store: w.next, noMetadata: true, noDraining: true, refuse: "3"}
	target := naming.Store(l)
	if !mapped {
		target = mapless{unmapped(w.next), l}
	}
	plain := naming.Endpoint{ID: "5", Addr: "h:5"}
	draining := endpoint("4")
	draining.Draining = true
	w.put(w.old, "web", endpoint("1"), endpoint("2"), endpoint("3"), draining, plain)
	var mu sync.Mutex
	losses := make(map[string]string)
	tap := newTap(w.T, w.next)
	l.Store = tap
	b, _ := w.start(w.old, target, options(func(o *bridge.Options) {
		o.Election = w.old
		o.Hooks = &bridge.Hooks{Loss: func(x migrate.Loss) {
			mu.Lock()
			defer mu.Unlock()
			losses[x.Endpoint.ID] += fmt.Sprint(x.Err == nil, " ", x.Fields)
		}}
	}))
	settle(time.Hour)
	w.want(w.next, "web", "~old~1 ~old~2 ~old~4 ~old~5")
	w.delete(w.old, "web", "1")
	settle(time.Minute)
	w.want(w.next, "web", "~old~2 ~old~4 ~old~5")
	want := map[string]string{"1": "true [zone]", "2": "true [zone]", "3": "false []", "4": "true [zone draining]"}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(losses) != fmt.Sprint(want) {
		w.Errorf("losses %v, want %v", losses, want)
	}
	if n := b.Status().Losses; n != 3 {
		w.Errorf("%d losses in the status, want 3", n)
	}
	if n := tap.count("Apply"); n > 60 {
		w.Errorf("%d calls of Apply", n)
	}
}
