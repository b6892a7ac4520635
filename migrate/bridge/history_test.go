package bridge_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/internal/mutant"
	"github.com/naming-go/naming/migrate"
	"github.com/naming-go/naming/migrate/bridge"
)

// history is a random sequence of changes, faults and restarts, on two registries with a
// Bridge in each direction.
type history struct {
	*world
	rand    *rand.Rand
	natives [2]map[string]map[string]naming.Endpoint // by side, service and ID
	out     [2]map[string]bool                       // service and ID of what is withheld
	stops   [2][]func()                              // of the Bridges into each side
	log     []string
}

func (h *history) store(side int) *memory.Store { return [2]*memory.Store{h.old, h.next}[side] }

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// TestHistories applies histories. After each part of one, all faults end, and both
// registries must have their own endpoints and exactly the copies of the other's.
func TestHistories(t *testing.T) {
	start, n := rand.Uint64N(1<<32), 20
	if mutant.Full() {
		n = 500
	}
	if s := os.Getenv("NAMING_SEED"); s != "" {
		var err error
		if start, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
		n = 1
	}
	for seed := start; seed < start+uint64(n); seed++ {
		inWorld(t, func(w *world) { w.history(seed) })
		if t.Failed() {
			t.Fatalf("seed %d: run again with NAMING_SEED=%d", seed, seed)
		}
	}
}

func (w *world) history(seed uint64) {
	h := &history{world: w, rand: rand.New(rand.NewPCG(seed, 1))}
	for side := range 2 {
		h.natives[side] = map[string]map[string]naming.Endpoint{"a": {}, "b": {}, "a/c": {}}
		h.out[side] = make(map[string]bool)
		h.restart(side)
	}
	for range 5 {
		for range 5 + h.rand.IntN(25) {
			h.step()
			time.Sleep(time.Duration(h.rand.Int64N(int64(5 * time.Second))))
		}
		for side := range 2 {
			h.store(side).Up()
			h.store(side).Delay(0)
		}
		settle(4 * time.Minute)
		h.check()
		if h.Failed() {
			h.Logf("the history: %s", strings.Join(h.log, "; "))
			return
		}
	}
}

// restart starts a Bridge into a side, in the place of another one or beside it.
func (h *history) restart(side int) {
	if n := len(h.stops[side]); n > 0 && (n > 1 || h.rand.IntN(2) == 0) {
		h.stops[side][0]()
		h.stops[side] = h.stops[side][1:]
	}
	o := options(func(o *bridge.Options) {
		o.Fuse.Share, o.TTL = 1, time.Duration(1+h.rand.IntN(10))*time.Minute
		if side == 0 {
			o.SourceName, o.TargetName = "new", "old"
		}
	})
	_, stop := h.start(newTap(h.T, h.store(1-side)), newTap(h.T, h.store(side)), o)
	h.stops[side] = append(h.stops[side], stop)
}

// step makes one change, fault or restart.
func (h *history) step() {
	side := h.rand.IntN(2)
	s := h.store(side)
	service := []string{"a", "a", "b", "a/c"}[h.rand.IntN(4)]
	id := fmt.Sprint(1 + h.rand.IntN(6))
	switch n := h.rand.IntN(40); {
	case n < 18:
		h.change(side, service, id)
	case n < 22:
		h.note("%d withholds %s %s", side, service, id)
		h.toggle(side, service, id)
	case n < 24:
		h.note("%d breaks", side)
		s.Break(errors.New("broken"))
	case n < 27:
		h.note("%d is down", side)
		s.Down(errors.New("down"))
	case n < 32:
		h.note("%d is up", side)
		s.Up()
	case n < 34:
		h.note("%d loses all leases", side)
		s.ExpireAll()
	case n < 36:
		h.note("%d is slow", side)
		s.Delay(time.Duration(h.rand.Int64N(int64(2 * time.Second))))
	case n < 38:
		h.note("a pause")
		time.Sleep(time.Duration(h.rand.Int64N(int64(30 * time.Minute))))
	default:
		h.note("restart into %d", side)
		h.restart(side)
	}
}

// change puts or deletes an endpoint of a registry itself. It has no effect while the
// registry is down.
func (h *history) change(side int, service, id string) {
	c := naming.Change{Op: naming.Add, Endpoint: endpoint(id)}
	switch h.rand.IntN(4) {
	case 0:
		c.Op = naming.Delete
	case 1:
		c.Endpoint.Draining = true
	case 2:
		c.Endpoint.Metadata = []byte(fmt.Sprintf(`{"n":%d}`, h.rand.IntN(3)))
	}
	if h.rand.IntN(8) == 0 {
		c.Endpoint.Addr = "10.1.1.1:" + id
	}
	err := h.store(side).Apply(h.Context(), service, c)
	h.note("%d %v %s %s draining %v: %v", side, c.Op, service, id, c.Endpoint.Draining, err)
	switch {
	case err != nil:
	case c.Op == naming.Add:
		h.natives[side][service][id] = c.Endpoint
	default:
		delete(h.natives[side][service], id)
	}
}

// toggle begins or ends to withhold an endpoint.
func (h *history) toggle(side int, service, id string) {
	key := service + " " + id
	if h.out[side][key] = !h.out[side][key]; h.out[side][key] {
		h.store(side).Withhold(service, id, naming.Reason(1+h.rand.IntN(2)), "")
	} else {
		h.store(side).Unwithhold(service, id)
	}
}

// check fails the test unless a registry has its own endpoints and the copies of the
// other's.
func (h *history) check() {
	for side := range 2 {
		origin := [2]string{"new", "old"}[side]
		for service, natives := range h.natives[side] {
			want := maps.Clone(natives)
			own := make(map[string]bool)
			for _, e := range natives {
				own[e.Addr] = true
			}
			for id, e := range h.natives[1-side][service] {
				if !own[e.Addr] && !h.out[1-side][service+" "+id] {
					want[migrate.CopyID(origin, id)] = e
				}
			}
			h.compare(side, service, want)
		}
	}
}

// compare fails the test unless a service of a side has what it is to have.
func (h *history) compare(side int, service string, want map[string]naming.Endpoint) {
	got := h.list(h.store(side), service)
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		h.Errorf("%s of side %d has %q, want %q", service, side, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		return
	}
	for id, e := range want {
		native, _ := migrate.Native(got[id])
		e.ID = native.ID
		if !native.Equal(e) {
			h.Errorf("%s of side %d has %+v, want %+v", id, side, native, e)
		}
	}
}
