package migrate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/naming-go/naming"
)

// TestPublishEqual checks that a change of the phase, of the lead or of the share changes
// nothing while both registries have the same, also if one has it as copies.
func TestPublishEqual(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		w := newWorld(t, rnd.IntN)
		for id := range w.regs[oldSide].entries {
			if isCopy(id) || strings.Contains(id, "@") {
				delete(w.regs[oldSide].entries, id) // a bridge copies natives only
			}
		}
		w.regs[newSide].entries = make(map[string]listing)
		for id, e := range w.regs[oldSide].entries {
			if rnd.IntN(2) == 0 {
				e.endpoint.ID = CopyID("old", id)
				e.endpoint.Metadata, _ = AddMark(e.endpoint.Metadata, Mark{Origin: "old"})
			}
			w.regs[newSide].entries[e.endpoint.ID] = e
		}
		for i := range w.regs {
			w.regs[i].link = fresh
			w.views[i] = w.look(sideIndex(i), view{})
		}
		if usable, _ := distinct(w.views[oldSide]); !usable {
			continue // which of several entries of one address is copied is not defined
		}
		w.checkPhases()
	}
}

// distinct reports whether no address occurs twice.
func distinct(v view) (ok bool, addrs []string) {
	for e := range v.entries {
		addrs = append(addrs, e.Addr)
	}
	return len(repeated(addrs)) == 0, addrs
}

// checkPhases goes through random phases and compares each set with the first.
func (w *world) checkPhases() {
	var m memory
	var first *result
	for range 20 {
		w.state.Phase, w.inShare = Phase(w.roll(phases)), w.roll(2) == 0
		var out result
		out, m = m.step(choose(w.state, w.roll(9) > 0, w.inShare), &w.views)
		if first == nil {
			first = &out
		}
		if !reflect.DeepEqual(listsOf(out), listsOf(*first)) {
			w.t.Fatalf("phase %v changed the set from\n\t%s to\n\t%s", w.state.Phase, textOf(*first), textOf(out))
		}
	}
}

func listsOf(r result) []string {
	var lines []string
	for _, e := range r.usable {
		lines = append(lines, fmt.Sprintf("%s %s %s %v", e.ID, e.Addr, e.Metadata, e.Draining))
	}
	for _, w := range r.withheld {
		lines = append(lines, fmt.Sprintf("%s %s %v %s", w.Endpoint.ID, w.Endpoint.Addr, w.Reason, w.Detail))
	}
	return lines
}

// endpoints returns a fresh view of endpoints, each "id=addr", with a * if it is draining.
func freshView(list ...string) view {
	v := view{synced: true, fresh: true}
	for _, s := range list {
		id, addr, _ := strings.Cut(s, "=")
		addr, draining := strings.CutSuffix(addr, "*")
		v.usable = append(v.usable, naming.Endpoint{ID: id, Addr: addr, Draining: draining})
	}
	sortEndpoints(v.usable)
	v.setLists(v.usable, nil)
	return v
}

func staleView(list ...string) view {
	v := freshView(list...)
	v.fresh, v.failed = false, true
	return v
}

// TestPublishLeftInOrder checks that a server that stopped while a registry was down does
// not stay listed, and that the set says so at once. A server that registers again is back.
func TestPublishLeftInOrder(t *testing.T) {
	var m memory
	union := choose(State{Phase: Union}, true, false)
	steps := []struct {
		old, next view
		want      string
	}{
		{freshView("a=1", "b=2"), freshView("a=1", "b=2"), "a b"},
		{freshView("a=1", "b=2*"), staleView("a=1", "b=2"), "a b"},
		{freshView("a=1"), staleView("a=1", "b=2"), "a"},
		{freshView("a=1"), staleView("a=1", "b=2"), "a"},
		{freshView("a=1", "b=2"), staleView("a=1", "b=2"), "a b"},
		{freshView("a=1"), staleView("a=1", "b=2"), "a b"}, // without the mark
		{freshView("a=1"), freshView("a=1"), "a"},
	}
	for i, s := range steps {
		var out result
		out, m = m.step(union, &[2]view{s.old, s.next})
		if got := idsOf(out); got != s.want {
			t.Errorf("step %d: published %q, want %q", i, got, s.want)
		}
	}
}

func idsOf(r result) string {
	var ids []string
	for _, e := range r.usable {
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, " ")
}

// TestPublishForgets checks that the memory does not grow with the addresses that come and
// go, and that a registry that is not watched is forgotten.
func TestPublishForgets(t *testing.T) {
	var m memory
	union := choose(State{Phase: Union}, true, false)
	for n := range 1000 {
		e := fmt.Sprintf("a=%d*", n)
		for _, views := range [][2]view{{freshView(e), freshView(e)}, {freshView(), freshView(e)}, {freshView(), freshView()}} {
			_, m = m.step(union, &views)
		}
	}
	if n := len(m.left[0]) + len(m.left[1]) + len(m.draining[0]) + len(m.draining[1]); n > 2 {
		t.Errorf("%d addresses are remembered", n)
	}
	_, m = m.step(union, &[2]view{freshView("a=1*"), freshView("a=1")})
	m = m.forget(oldSide)
	_, m = m.step(union, &[2]view{freshView(), staleView("a=1")})
	if len(m.left[oldSide]) > 0 {
		t.Error("an address left in order a registry that was not watched meanwhile")
	}
}

// TestPublishAliases checks that one long ID in both registries does not make an ID that
// is too long, which would hide the whole set, and that aliases are unique.
func TestPublishAliases(t *testing.T) {
	long := strings.Repeat("x", naming.MaxID)
	old := freshView(long+"=1", "a=2", "a@3=4", "a@3@1=5")
	next := freshView(long+"=6", "a=3")
	out, _ := memory{}.step(choose(State{}, false, false), &[2]view{old, next})
	var ids []string
	for _, e := range out.usable {
		if len(e.ID) > naming.MaxID {
			t.Errorf("an ID of %d bytes", len(e.ID))
		}
		ids = append(ids, e.ID)
	}
	if len(ids) != 6 || len(repeated(ids)) > 0 {
		t.Errorf("%d IDs, %q twice; want 6 different ones", len(ids), repeated(ids))
	}
}

// TestPublishSuccessor checks that the successor of a server at the same address is not
// draining because the entry of the predecessor is.
func TestPublishSuccessor(t *testing.T) {
	both := freshView("a=1*", "b=1")
	other := freshView("a=1*", "b=1", "c=2")
	for lead, views := range [][2]view{{both, other}, {other, both}} {
		out, _ := memory{}.step(choose(State{}, false, false), &views)
		i := slices.IndexFunc(out.usable, func(e naming.Endpoint) bool { return e.ID == "b" })
		if i < 0 || out.usable[i].Draining {
			t.Errorf("case %d: published %s, want b and not draining", lead, textOf(out))
		}
	}
}

// TestPublishWithheld checks what counts when one registry says not to use an address.
func TestPublishWithheld(t *testing.T) {
	withheld := func(v view, id, addr string, reason naming.Reason) view {
		v.withheld = append(v.withheld, naming.Withheld{Endpoint: naming.Endpoint{ID: id, Addr: addr}, Reason: reason})
		return v
	}
	for name, c := range map[string]struct {
		old, next view
		want      string
	}{
		"maintenance counts in both registries": {freshView("a=1", "b=2"), withheld(freshView("b=2"), "a", "1", naming.Maintenance), "b"},
		"also if the registry is stale":         {freshView("a=1", "b=2"), withheld(staleView("b=2"), "a", "1", naming.Maintenance), "b"},
		"a fresh registry vouches":              {freshView("a=1", "b=2"), withheld(freshView("b=2"), "a", "1", naming.FailedCheck), "a b"},
		"a stale registry does not":             {staleView("a=1", "b=2"), withheld(freshView("b=2"), "a", "1", naming.FailedCheck), "b"},
		"under another ID":                      {freshView("a=1", "b=2"), withheld(freshView("b=2"), "x", "1", naming.Maintenance), "b"},
	} {
		for _, phase := range []Phase{Union, NewRead} {
			m := memory{published: true, narrow: phase == NewRead, to: oldSide}
			out, _ := m.step(choose(State{Phase: phase}, true, false), &[2]view{c.old, c.next})
			if got := idsOf(out); got != c.want && !out.narrow {
				t.Errorf("%s, %v: published %q, want %q", name, phase, got, c.want)
			}
		}
	}
}

// TestAsNatives checks that a list with copies has no ID twice and loses no address.
func TestAsNatives(t *testing.T) {
	e := func(id, addr string) naming.Endpoint {
		return naming.Endpoint{ID: id, Addr: addr, Metadata: json.RawMessage(`{"naming-copy":{},"weight":2}`)}
	}
	usable := []naming.Endpoint{e("x", "1"), e("y", "1"), e("z", "2"), e("~old~a", "3"), e("~old~y", "4"), e("~old~z", "2"), e("~other~a", "5"), e("~old~b", "1")}
	got, _ := asNatives(usable, nil)
	want := []string{"a=3", "a@5=5", "x=1", "y=1", "y@4=4", "z=2"}
	var lines []string
	for _, n := range got {
		lines = append(lines, n.ID+"="+n.Addr)
		if isCopied := n.Addr >= "3"; isCopied != (string(n.Metadata) == `{"weight":2}`) {
			t.Errorf("endpoint %q has the metadata %s", n.ID, n.Metadata)
		}
	}
	if !slices.Equal(lines, want) {
		t.Errorf("natives %q, want %q", lines, want)
	}
	plain := []naming.Endpoint{e("x", "1")}
	if got, _ := asNatives(plain, nil); &got[0] != &plain[0] {
		t.Error("a list without copies was copied")
	}
}
