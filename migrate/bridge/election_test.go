package bridge_test

import (
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// One of two Bridges works. When it stops, the other Bridge goes on at once. When it dies, the
// other one goes on after the time to live of the election.
func TestElection(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		first, stop := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		second, _ := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Hour)
		if !first.Status().Working || second.Status().Working {
			w.Fatalf("first %+v, second %+v", first.Status(), second.Status())
		}
		stop()
		settle(time.Second)
		if s := second.Status(); !s.Working || s.Epoch != 2 {
			w.Fatalf("second %+v", s)
		}
		third, _ := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Minute)
		if third.Status().Working {
			w.Fatalf("third %+v", third.Status())
		}
	})
}

func TestElectionAfterDeath(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		var dead atomic.Bool
		tap := newTap(w.T, w.next)
		tap.enter = func(string, string) error {
			if dead.Load() {
				return errKilled
			}
			return nil
		}
		first, _ := w.start(w.old, tap, options())
		settle(time.Second)
		second, _ := w.start(w.old, newTap(w.T, w.next), options())
		settle(time.Second)
		dead.Store(true)
		settle(20 * time.Second)
		if first.Status().Working || !second.Status().Working {
			w.Errorf("first %+v, second %+v", first.Status(), second.Status())
		}
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
	})
}

// A copy with a higher epoch means that another Bridge was elected. A Bridge that sees it
// stands again, with an epoch above.
func TestHigherEpoch(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		var deposed atomic.Int32
		b, _ := w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) {
			o.Hooks = &bridge.Hooks{Deposed: func(i bridge.DeposedInfo) {
				if i.Epoch == 1 && i.Err != nil {
					deposed.Add(1)
				}
			}}
		}))
		settle(time.Second)
		foreign := func(epoch uint64) {
			e := endpoint("1")
			e.ID = migrate.CopyID("old", "1")
			e.Metadata, _ = migrate.AddMark(e.Metadata, migrate.Mark{Origin: "old", Bridge: "default", Epoch: epoch})
			w.put(w.next, "web", e)
		}
		foreign(1 << 60) // nobody counts that far
		settle(time.Minute)
		if deposed.Load() != 0 {
			w.Error("deposed by an epoch that is made up")
		}
		foreign(99)
		settle(time.Minute)
		if s := b.Status(); deposed.Load() != 1 || s.Epoch != 100 {
			w.Errorf("deposed %d times, status %+v", deposed.Load(), s)
		}
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
		w.delete(w.old, "web", "1")
		settle(time.Minute)
		w.want(w.next, "web", "~old~2 ~old~3")
	})
}

// The election may be on a registry other than the target, and the target may have a format
// that cannot hold the entry.
func TestElectionElsewhere(t *testing.T) {
	inWorld(t, func(w *world) {
		w.three("web")
		elect := new(memory.Store)
		b, stop := w.start(w.old, newTap(w.T, w.next), options(func(o *bridge.Options) { o.Election = elect }))
		settle(time.Minute)
		w.want(w.next, bridge.Service, "")
		w.want(elect, bridge.Service, "default~old~new")
		if !b.Status().Working {
			w.Errorf("status %+v", b.Status())
		}
		elect.Down(errors.New("down"))
		settle(time.Minute)
		if b.Status().Working {
			w.Error("works although another Bridge may have been elected")
		}
		elect.Up()
		settle(time.Minute)
		if !b.Status().Working {
			w.Error("stands by although no Bridge works")
		}
		stop()
		w.want(elect, bridge.Service, "")
		w.want(w.next, "web", "~old~1 ~old~2 ~old~3")
	})
}

// pausedWrites are the writes in which a Bridge is paused.
var pausedWrites = map[string]func(w *world){
	"add":    func(w *world) { w.put(w.old, "web", endpoint("5")) },
	"change": func(w *world) { w.put(w.old, "web", naming.Endpoint{ID: "1", Addr: "stale:1"}) },
	"delete": func(w *world) { w.delete(w.old, "web", "1") },
}

// A Bridge is paused within a write, across another's whole work. When it goes on, it
// deletes nothing, and stops. What its last write has done is undone.
func TestPaused(t *testing.T) {
	for name, change := range pausedWrites {
		t.Run(name, func(t *testing.T) { inWorld(t, func(w *world) { testPaused(w, change) }) })
	}
}

func testPaused(w *world, change func(w *world)) {
	w.three("web")
	var armed, paused atomic.Bool
	resume := make(chan struct{})
	tap := newTap(w.T, w.next)
	tap.enter = func(method, service string) error {
		if method == "Apply" && service == "web" && armed.Load() {
			paused.Store(true)
		}
		if paused.Load() {
			<-resume
		}
		return nil
	}
	// The paused process does not see the end of its contexts, as it does not run.
	first, _ := w.start(w.old, deaf{tap}, options())
	settle(time.Second)
	second, _ := w.start(w.old, newTap(w.T, w.next), options())
	settle(time.Second)
	armed.Store(true)
	change(w)
	settle(20 * time.Second)
	if !paused.Load() || !second.Status().Working {
		w.Fatalf("paused %v, second %+v", paused.Load(), second.Status())
	}
	// The other one's work: all that the paused one knows has changed.
	moved := naming.Endpoint{ID: "1", Addr: "moved:1", Metadata: json.RawMessage(`{"n":1}`)}
	w.put(w.old, "web", moved, endpoint("4"))
	settle(10 * time.Second)
	if e := w.list(w.next, "web")["~old~1"]; e.Addr != "moved:1" {
		w.Fatalf("before the resumption: %+v", w.list(w.next, "web"))
	}
	_, before := tap.history()
	paused.Store(false)
	armed.Store(false)
	close(resume)
	settle(time.Second)
	for _, id := range []string{"~old~1", "~old~2", "~old~3", "~old~4"} {
		if _, ok := w.list(w.next, "web")[id]; !ok {
			w.Errorf("%s was deleted by the paused Bridge", id)
		}
	}
	settle(30 * time.Minute)
	if e := w.list(w.next, "web")["~old~1"]; e.Addr != "moved:1" {
		w.Errorf("at the end: %+v", e)
	}
	if _, after := tap.history(); len(after) != len(before) {
		w.Errorf("the paused Bridge went on to write: %q", after[len(before):])
	}
	if first.Status().Working || !second.Status().Working {
		w.Errorf("first %+v, second %+v", first.Status(), second.Status())
	}
}
