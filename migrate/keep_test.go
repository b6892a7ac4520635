package migrate

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming"
	memstore "github.com/naming-go/naming/backend/memory"
)

// TestReaderKeeps has the registry that is read lose a server while the other one, which the
// reader begins to read, has not answered. The other one still has the server.
func TestReaderKeeps(t *testing.T) {
	delay := func(d time.Duration) func(*memstore.Store) { return func(m *memstore.Store) { m.Delay(d) } }
	for _, c := range []struct {
		name  string
		fault func(second *memstore.Store)
		gone  time.Duration // when the lost server leaves the set; 0: never
	}{
		{"an answer after a second", delay(time.Second), 0},
		{"an answer after FirstWait", delay(time.Hour), 2 * time.Second},
		{"silence", func(m *memstore.Store) { m.Silence() }, 2 * time.Second},
		{"a refusal", func(m *memstore.Store) { m.Down(errReaderDown) }, 2 * time.Second},
		{"a refusal at first", func(m *memstore.Store) {
			m.Down(errReaderDown)
			time.AfterFunc(100*time.Millisecond, m.Up)
		}, 0},
	} {
		for _, way := range [][2]Phase{{Old, Union}, {DualWrite, PreferNew}, {Old, NewRead}, {Shadow, Done}, {Done, Union}, {NewRead, Old}, {NewWrite, Shadow}} {
			t.Run(fmt.Sprintf("%s, %v to %v", c.name, way[0], way[1]), func(t *testing.T) {
				onSite(t, way[0], noHold(), func(s *site) { s.keeps(way, c.fault, c.gone) })
			})
		}
	}
}

// keeps goes from a phase to another one. 10 ms later the registry that is read loses a server
// and, in order, a server that was draining. The lost server is expected in the set until gone
// after it vanished, or always if gone is 0.
func (s *site) keeps(way [2]Phase, fault func(second *memstore.Store), gone time.Duration) {
	s.t.Helper()
	first := choose(State{Phase: way[0]}, true, false).lead
	s.put(2, "a:1", "b:1")
	s.put(int(first), "c:1*")
	f := s.follow()
	s.expect(f, "a:1 b:1 c:1*")
	fault(s.stores[first.other()])
	s.phases.set(way[1])
	time.Sleep(10 * time.Millisecond)
	vanished := time.Now()
	s.remove(int(first), "a:1", "c:1")
	if way[0] == Shadow {
		gone = 0 // the other registry was compared before, and has answered
	}
	for time.Since(vanished) < 5*time.Second {
		want := "a:1 b:1"
		if gone != 0 && time.Since(vanished) >= gone {
			want = "b:1"
		}
		s.expect(f, want)
		time.Sleep(199 * time.Millisecond)
	}
	time.Sleep(time.Minute)
}

// TestReaderKeepsMoved has servers move to a registry that was down for a time, as soon as they
// have registered there. The reader, which waits for its next attempt, always has all of them.
func TestReaderKeepsMoved(t *testing.T) {
	for _, way := range [][2]Phase{{Old, Done}, {Done, Old}, {Union, Done}, {NewRead, Old}} {
		for _, down := range []time.Duration{10 * time.Millisecond, time.Second, 10 * time.Second, time.Hour} {
			onSite(t, way[0], noHold(), func(s *site) {
				first := choose(State{Phase: way[0]}, true, false).lead
				if way[0] == Union {
					s.put(int(first.other()), "b:1")
				}
				s.put(int(first), "a:1", "b:1")
				f := s.follow()
				s.expect(f, "a:1 b:1")
				s.stores[first.other()].Down(errReaderDown)
				s.phases.set(way[1])
				time.Sleep(down)
				s.expect(f, "a:1 b:1")
				s.stores[first.other()].Up()
				s.put(int(first.other()), "a:1", "b:1")
				for _, addr := range []string{"a:1", "b:1"} {
					s.remove(int(first), addr)
					for range 10 {
						s.expect(f, "a:1 b:1")
						time.Sleep(99 * time.Millisecond)
					}
				}
				time.Sleep(time.Minute)
				s.expect(f, "a:1 b:1")
			})
		}
	}
}

// TestReaderKeepsNothing has a reader that does not wait lose a server. The end of the wait is
// then before the reader has noted its begin, and the server must leave the set all the same.
func TestReaderKeepsNothing(t *testing.T) {
	opts := noHold()
	opts.FirstWait = -1
	onSite(t, Old, opts, func(s *site) {
		s.put(2, "a:1", "b:1")
		f := s.follow()
		s.expect(f, "a:1 b:1")
		s.stores[newSide].Delay(time.Hour)
		s.phases.set(Union)
		time.Sleep(10 * time.Millisecond)
		s.remove(int(oldSide), "a:1")
		time.Sleep(10 * time.Millisecond)
		s.expect(f, "b:1")
	})
}

// TestReaderKeepsServices has the list of services that is read lose a service while the other
// list, which the reader begins to read, has not answered.
func TestReaderKeepsServices(t *testing.T) {
	onSite(t, Done, noHold(), func(s *site) {
		f, err := s.joined.FollowServices(func() {})
		if err != nil {
			t.Fatal(err)
		}
		services := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if v, _, _ := f.Current(); len(v.Endpoints) != want {
				t.Errorf("%s: %d services, want %d", when, len(v.Endpoints), want)
			}
		}
		s.put(int(newSide), "a:1")
		if err := s.stores[newSide].Apply(t.Context(), "svc2", naming.Change{Endpoint: naming.Endpoint{Addr: "a:1"}}); err != nil {
			t.Fatal(err)
		}
		services("at first", 2)
		s.stores[oldSide].Delay(time.Hour)
		s.phases.set(Union)
		time.Sleep(time.Second)
		s.remove(int(newSide), "a:1")
		services("before FirstWait", 2)
		time.Sleep(2100 * time.Millisecond)
		services("after FirstWait", 1)
	})
}

// TestPublishKeeps checks which entries stay while the other registry has not answered.
func TestPublishKeeps(t *testing.T) {
	withheld := freshView("b=2")
	withheld.withheld = []naming.Withheld{{Endpoint: naming.Endpoint{ID: "a", Addr: "1"}, Reason: naming.Maintenance}}
	unknown, failed, late, lateView := view{}, view{failed: true}, view{late: true}, staleView("b=2")
	lateView.late = true
	type step struct {
		phase     Phase
		old, next view
		want      string
	}
	known := step{Old, freshView("a=1", "b=2"), unknown, "a b"}
	union := step{Union, freshView("a=1", "b=2"), unknown, "a b"}
	vanished := step{Union, freshView("b=2"), unknown, "a b"}
	for name, steps := range map[string][]step{
		"an answer":                     {known, union, vanished, {Union, freshView("b=2"), freshView("b=2"), "b"}},
		"vanished with the change":      {known, vanished},
		"vanished before the change":    {known, {Old, freshView("b=2"), unknown, "b"}, {Union, freshView("b=2"), unknown, "b"}},
		"a failure":                     {known, vanished, {Union, freshView("b=2"), failed, "a b"}, {Union, freshView("b=2"), late, "b"}},
		"back to Old":                   {known, vanished, {Old, freshView("b=2"), unknown, "a b"}, {Old, freshView("b=2"), late, "b"}, {Union, freshView("b=2"), unknown, "b"}},
		"another lead":                  {known, vanished, {NewRead, freshView("b=2"), unknown, "a b"}, {Done, freshView("b=2"), unknown, "a b"}},
		"the registry is stale":         {known, vanished, {Union, staleView("b=2"), unknown, "a b"}},
		"the other one is stale":        {known, {Union, freshView("a=1", "b=2"), freshView("b=2"), "a b"}, {Union, freshView("b=2"), staleView("b=2"), "a b"}, {Union, freshView("b=2"), freshView("a=1", "b=2"), "a b"}},
		"the other one stays stale":     {known, {Union, freshView("a=1", "b=2"), freshView("b=2"), "a b"}, {Union, freshView("b=2"), staleView("b=2"), "a b"}, {Union, freshView("b=2"), lateView, "b"}},
		"it comes back and is lost":     {known, vanished, union, vanished},
		"it comes back, drains, leaves": {known, vanished, {Union, freshView("a=1*", "b=2"), unknown, "a b"}, {Union, freshView("b=2"), unknown, "b"}},
		"withheld":                      {known, vanished, {Union, withheld, unknown, "b"}, {Union, freshView("b=2"), unknown, "b"}},
		"another ID":                    {known, {Union, freshView("b=2", "x=1"), unknown, "b x"}},
		"another address":               {known, {Union, freshView("a=3", "b=2"), unknown, "a b"}, vanished},
		"one after the other":           {known, union, vanished, {Union, freshView("c=3"), unknown, "a b c"}},
		"without an address":            {{Old, freshView("a=", "b="), unknown, "a b"}, {Union, freshView("b="), unknown, "a b"}},
	} {
		var m memory
		for i, s := range steps {
			views := [2]view{s.old, s.next}
			var out result
			out, m = m.step(choose(State{Phase: s.phase}, true, false), &views)
			if got := idsOf(out); got != s.want && (out.publish || i == 0) {
				t.Errorf("%s, step %d: published %q, want %q", name, i, got, s.want)
			}
		}
	}
}
