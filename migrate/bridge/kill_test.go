package bridge_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate/bridge"
)

// killer ends the life of a Bridge at a numbered call of its registries.
type killer struct {
	at     int64
	effect bool // the call that kills takes effect
	calls  atomic.Int64
}

func (k *killer) tap(w *world, s naming.Store) *tap {
	tap := newTap(w.T, s)
	tap.enter = func(method, _ string) error {
		n := k.calls.Load()
		if method != "batch" {
			n = k.calls.Add(1)
		}
		if n > k.at || n == k.at && !k.effect && method != "batch" {
			return errKilled
		}
		return nil
	}
	tap.leave = func(string, string) error {
		if k.calls.Load() >= k.at {
			return errKilled
		}
		return nil
	}
	return tap
}

// dead reports whether the Bridge was killed.
func (k *killer) dead() bool { return k.calls.Load() >= k.at }

// A Bridge is killed at each call that it makes, before or after the effect, and another
// one goes on. The invariants hold: see tap, which also checks every write. In the end the
// target has one copy of each endpoint of the source, and all that was there by itself.
func TestKilledAtEveryCall(t *testing.T) {
	killAtEveryCall(t, testKilled)
}

// killAtEveryCall runs a test with a killer at each call, until the test reports that the
// Bridge lived.
func killAtEveryCall(t *testing.T, test func(w *world, k *killer) (killed bool)) {
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprint("effect=", effect), func(t *testing.T) {
			for i := int64(1); ; i++ {
				killed := true
				inWorld(t, func(w *world) { killed = test(w, &killer{at: i, effect: effect}) })
				if t.Failed() {
					t.Fatalf("killed at call %d", i)
				}
				if !killed {
					t.Logf("%d calls", i-1)
					return
				}
			}
		})
	}
}

// testKilled reports whether the scenario has as many calls as it takes to kill.
func testKilled(w *world, k *killer) bool {
	w.three("web")
	w.put(w.old, "db", endpoint("1"))
	own := endpoint("3")
	own.ID = "self"
	w.put(w.next, "web", own, endpoint("9"))
	lived := options(func(o *bridge.Options) { o.TTL = time.Minute })
	_, stop := w.start(k.tap(w, w.old), k.tap(w, w.next), lived)
	settle(time.Second)
	draining := endpoint("2")
	draining.Draining = true
	w.put(w.old, "web", draining, endpoint("4"))
	settle(time.Second)
	w.delete(w.old, "web", "2")
	w.delete(w.next, "web", "self")
	settle(5 * time.Second)
	w.delete(w.old, "web", "4")
	settle(25 * time.Second)
	w.next.ExpireAll() // also the lease of the election
	settle(25 * time.Second)
	dead := k.dead()
	stop()
	w.checkNatives("9")
	w.start(newTap(w.T, w.old), newTap(w.T, w.next), lived)
	settle(3 * time.Minute)
	w.want(w.next, "web", "9 ~old~1 ~old~3")
	w.want(w.next, "db", "~old~1")
	w.want(w.old, "web", "1 3")
	w.checkNatives("9")
	w.checkLeased()
	return dead
}

// checkNatives fails the test unless the target's own endpoints are as they were put.
func (w *world) checkNatives(ids ...string) {
	w.Helper()
	all := w.list(w.next, "web")
	for _, id := range ids {
		if !all[id].Equal(endpoint(id)) {
			w.Errorf("the target's own endpoint %s is %+v", id, all[id])
		}
	}
}

// checkLeased fails the test if a copy is under no lease.
func (w *world) checkLeased() {
	w.Helper()
	for id, e := range w.list(w.next, "web") {
		if e.Unleased && id[0] == '~' {
			w.Errorf("copy %s is under no lease", id)
		}
	}
}

// A Sweep is killed at each call. The next one removes what is left, and nothing else.
func TestSweepKilledAtEveryCall(t *testing.T) {
	killAtEveryCall(t, testSweepKilled)
}

func testSweepKilled(w *world, k *killer) bool {
	w.three("web")
	w.three("db")
	w.put(w.next, "web", endpoint("9"))
	_, stop := w.start(w.old, newTap(w.T, w.next), options())
	settle(time.Second)
	stop()
	w.put(w.next, "web", endpoint("1"), endpoint("2"), endpoint("3"))
	w.put(w.next, "db", endpoint("1"), endpoint("2"), endpoint("3"))
	b, err := bridge.New(w.old, k.tap(w, w.next), options())
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	_, err = b.Sweep(ctx, "")
	cancel()
	dead := k.dead()
	if !dead && err != nil {
		w.Errorf("Sweep: %v", err)
	}
	if b, err = bridge.New(w.old, newTap(w.T, w.next), options()); err != nil {
		w.Fatal(err)
	}
	p, err := b.Sweep(w.Context(), "")
	if err != nil || p.Blown || len(p.Deletes) > 0 {
		w.Errorf("the second Sweep: %+v, %v", p, err)
	}
	w.want(w.next, "web", "1 2 3 9")
	w.want(w.next, "db", "1 2 3")
	w.want(w.old, "web", "1 2 3")
	return dead
}
