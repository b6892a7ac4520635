package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/naming-go/naming"
)

// dice returns a number from 0 to n-1.
type dice func(n int) int

// TestPublishHistories runs readers over random histories of two registries and of the
// phase. After each step it compares the result with a reference that states the rules
// one address at a time, and checks the rules that do not depend on the reference.
func TestPublishHistories(t *testing.T) {
	runs, start := 150, rand.Uint64N(1<<32)
	if s := os.Getenv("NAMING_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		runs, start = 1, seed
	}
	for i := range runs {
		seed := start + uint64(i)
		w := newWorld(t, rand.New(rand.NewPCG(seed, 1)).IntN)
		for n := 0; n < 60 && !t.Failed(); n++ {
			w.step()
		}
		if t.Failed() {
			t.Fatalf("to run this history again: NAMING_SEED=%d\n%s", seed, w.log())
		}
	}
}

// FuzzPublish is TestPublishHistories with choices of the fuzzer.
func FuzzPublish(f *testing.F) {
	f.Add([]byte("a migration"))
	f.Add([]byte{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		})
		for len(data) > 0 && !t.Failed() {
			w.step()
		}
		if t.Failed() {
			t.Log(w.log())
		}
	})
}

// world is two registries, a phase, and a reader with its reference.
type world struct {
	t       *testing.T
	roll    dice
	regs    [2]registry
	state   State
	known   bool
	inShare bool

	views  [2]view
	seen   [2]view // the views of the last step
	memory memory
	ref    reference
	shown  result
	lines  []string
}

// registry is what a registry has, and how far a reader sees it.
type registry struct {
	entries map[string]listing // by ID
	link    link
	late    bool // an answer was awaited for long enough
}

// link says how a reader sees a registry.
type link int

const (
	silent link = iota // nothing was heard
	failedSide
	stale
	fresh
)

type listing struct {
	endpoint naming.Endpoint
	reason   naming.Reason // 0: may be used
}

func newWorld(t *testing.T, roll dice) *world {
	w := &world{t: t, roll: roll, known: roll(4) > 0}
	w.state.Phase = Phase(roll(phases))
	for i := range w.regs {
		w.regs[i] = registry{entries: make(map[string]listing), link: link(roll(4))}
	}
	for range roll(8) {
		w.change(roll(3))
	}
	return w
}

func (w *world) logf(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *world) log() string { return strings.Join(w.lines[max(0, len(w.lines)-3):], "\n") }

// step changes something, and has the reader publish.
func (w *world) step() {
	switch w.roll(10) {
	case 0:
		w.known, w.state.Phase = true, Phase(w.roll(phases))
		w.inShare = w.roll(2) == 0
	case 1:
		w.relink()
	case 2: // both registries have the same
		w.regs[newSide].entries = maps.Clone(w.regs[oldSide].entries)
	case 3:
		w.memory.waited = true
		w.ref.waited = true
		w.regs[w.roll(2)].late = w.roll(2) == 0
	case 4, 5, 6:
		w.change(2) // as a server that writes both
	default:
		w.change(w.roll(2))
	}
	w.read()
}

func (w *world) relink() {
	r := &w.regs[w.roll(2)]
	if to := link(w.roll(4)); r.link < stale || to >= stale {
		r.link = to // a registry that has answered cannot be one that has not
	}
}

// change changes an entry of registry which, or of both if which is 2.
func (w *world) change(which int) {
	e := w.randomEntry()
	gone := w.roll(3) == 0
	for i := range w.regs {
		if which != 2 && which != i {
			continue
		}
		if gone {
			delete(w.regs[i].entries, e.endpoint.ID)
		} else {
			w.regs[i].entries[e.endpoint.ID] = e
		}
	}
}

func (w *world) randomEntry() (e listing) {
	id := fmt.Sprintf("id%d", w.roll(5))
	e.endpoint.Addr = fmt.Sprintf("10.0.0.%s:80", id[2:])
	switch w.roll(12) {
	case 0:
		id = "~" + []string{"old", "new"}[w.roll(2)] + "~" + id
		e.endpoint.Metadata = json.RawMessage(`{"naming-copy":{}}`)
	case 1:
		e.endpoint.Addr = fmt.Sprintf("10.0.0.%d:80", w.roll(5)) // another address, or the address of another
	case 2:
		e.endpoint.Addr = ""
		e.endpoint.Metadata = json.RawMessage(`1`)
	case 3:
		id += "@10.0.0.1:80" // as the alias of another
	case 4:
		e.endpoint.Metadata = json.RawMessage(`{"draining":true}`)
	case 5:
		e.endpoint.Metadata = json.RawMessage(`{"weight":` + strconv.Itoa(w.roll(3)) + `}`)
	}
	e.endpoint.ID = id
	e.endpoint.Draining = w.roll(4) == 0
	if w.roll(6) == 0 {
		e.reason = []naming.Reason{naming.Maintenance, naming.FailedCheck, 99}[w.roll(3)]
	}
	return e
}

// look returns what a reader sees of a registry. before is what it saw last.
func (w *world) look(i sideIndex, before view) view {
	r := &w.regs[i]
	v := view{synced: r.link >= stale || before.synced, late: r.late, fresh: r.link == fresh, failed: r.link == failedSide || r.link == stale}
	if r.link < stale || r.link == stale && before.synced && w.roll(4) > 0 {
		v.setLists(before.usable, before.withheld)
		return v
	}
	var usable []naming.Endpoint
	var withheld []naming.Withheld
	for _, id := range slices.Sorted(maps.Keys(r.entries)) {
		if e := r.entries[id]; e.reason == 0 {
			usable = append(usable, e.endpoint)
		} else {
			withheld = append(withheld, naming.Withheld{Endpoint: e.endpoint, Reason: e.reason, Detail: e.reason.String()})
		}
	}
	v.setLists(asNatives(usable, withheld))
	return v
}

// read has the reader publish, and checks the result.
func (w *world) read() {
	c := choose(w.state, w.known, w.inShare)
	if !w.memory.published {
		w.memory.narrow, w.memory.to = c.alone, c.lead
	}
	watch := w.memory.wanted(c, false)
	for i := range w.views {
		if watch[i] {
			w.views[i] = w.look(sideIndex(i), w.views[i])
			continue
		}
		if w.views[i].synced {
			w.ref.forget(i)
		}
		w.views[i], w.regs[i].late = view{}, false
		w.memory = w.memory.forget(sideIndex(i))
	}
	was, input := w.memory, copyOf(w.views)
	before := w.seen
	var out result
	out, w.memory = was.step(c, &w.views)
	w.logf("%v known=%v %+v\n\told %s\n\tnew %s\n\t-> %s", w.state.Phase, w.known, c, text(w.views[0]), text(w.views[1]), textOf(out))
	if !reflect.DeepEqual(input, w.views) {
		w.t.Error("the views were modified")
	}
	want := w.ref.step(c, w.views)
	w.checkRules(c, was, out)
	w.checkVanished(c, was, &before, out)
	w.seen = w.views
	if got := observed(out); !reflect.DeepEqual(got, want) {
		w.t.Errorf("published\n\t%v, want\n\t%v", got, want)
	}
	if out.publish {
		w.shown = out
	}
}

func copyOf(views [2]view) [2]view {
	for i := range views {
		views[i].usable, views[i].withheld = slices.Clone(views[i].usable), slices.Clone(views[i].withheld)
	}
	return views
}

func text(v view) string {
	return fmt.Sprintf("synced=%v fresh=%v %s", v.synced, v.fresh, textOf(result{usable: v.usable, withheld: v.withheld}))
}

func textOf(r result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "publish=%v narrow=%v uncovered=%q", r.publish, r.narrow, r.uncovered)
	for _, e := range r.usable {
		fmt.Fprintf(&b, " %s=%s%s", e.ID, e.Addr, map[bool]string{true: "(draining)"}[isDraining(&e)])
	}
	for _, w := range r.withheld {
		fmt.Fprintf(&b, " %s=%s(%v)", w.Endpoint.ID, w.Endpoint.Addr, w.Reason)
	}
	return b.String()
}
