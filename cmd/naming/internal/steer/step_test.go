package steer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/naming-go/naming/migrate"
)

// TestNext: single steps lead from the beginning to the end through each phase and share.
func TestNext(t *testing.T) {
	var got []string
	state, known := migrate.State{}, false
	for {
		to, ok := Next(state, known)
		if !ok {
			break
		}
		if known && !Ahead(to, state) {
			t.Fatalf("%v is not ahead of %v", to, state)
		}
		state, known = to, true
		got = append(got, PositionOf(state, true).String())
	}
	want := "0 old, 1 dual-write, 2 shadow, 3 union, 4 prefer-new 0.01, 4 prefer-new 0.1, 4 prefer-new 0.5, 4 prefer-new 1, 5 new-read, 6 new-write, 7 done"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("steps: %s\nwant:  %s", s, want)
	}
}

// TestBack: single steps lead back, and avoid NewWrite, in which servers leave the old registry.
func TestBack(t *testing.T) {
	var got []string
	for state, ok := (migrate.State{Phase: migrate.Done}), true; ok; {
		if state, ok = Back(state, true); ok {
			got = append(got, PositionOf(state, true).String())
		}
	}
	want := "5 new-read, 4 prefer-new 1, 3 union, 2 shadow, 1 dual-write, 0 old"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("steps: %s\nwant:  %s", s, want)
	}
	if _, ok := Back(migrate.State{Phase: migrate.Union}, false); ok {
		t.Error("a step back from a phase that is not known")
	}
}

func TestWish(t *testing.T) {
	to := func(p migrate.Phase) Wish { return Wish{Phase: p, HasPhase: true} }
	share := func(s float64) Wish { return Wish{Share: s, HasShare: true} }
	at := func(p migrate.Phase, share float64) Target {
		return Target{Known: true, State: migrate.State{Phase: p, Share: share}}
	}
	for _, c := range []struct {
		name          string
		wish          Wish
		t             Target
		forward, back string // empty: refused
	}{
		{"a step", Wish{}, at(3, 0), "4 prefer-new 0.01", "2 shadow"},
		{"a step in prefer-new", Wish{}, at(4, 0.2), "4 prefer-new 0.5", "3 union"},
		{"first", Wish{}, at(0, 0), "1 dual-write", ""},
		{"last", Wish{}, at(7, 0), "", "5 new-read"},
		{"unknown", Wish{}, Target{}, "0 old", ""},
		{"unknown, named", to(2), Target{}, "2 shadow", "2 shadow"},
		{"ahead", to(6), at(5, 0), "6 new-write", ""},
		{"behind", to(1), at(5, 0), "", "1 dual-write"},
		{"again", to(5), at(5, 0), "5 new-read", "5 new-read"},
		{"prefer-new again", to(4), at(4, 0.5), "4 prefer-new 0.5", "4 prefer-new 0.5"},
		{"prefer-new from below", to(4), at(3, 0), "4 prefer-new 0.01", ""},
		{"prefer-new from above", to(4), at(5, 0), "", "4 prefer-new 1"},
		{"raise", share(0.25), at(4, 0.1), "4 prefer-new 0.25", ""},
		{"lower", share(0.05), at(4, 0.1), "", "4 prefer-new 0.05"},
		{"share from union", share(0.25), at(3, 0), "4 prefer-new 0.25", ""},
	} {
		for _, way := range []struct {
			name string
			f    func(Target) (migrate.State, error)
			want string
		}{{"forward", c.wish.Forward, c.forward}, {"back", c.wish.Backward, c.back}} {
			s, err := way.f(c.t)
			got := ""
			if err == nil {
				got = PositionOf(s, true).String()
			}
			if got != way.want {
				t.Errorf("%s, %s: %q (%v), want %q", c.name, way.name, got, err, way.want)
			}
		}
	}
	for _, bad := range []Wish{share(-0.1), share(1.1), {Share: 0.5, HasShare: true, Phase: 3, HasPhase: true}} {
		if bad.Valid() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

// TestTargets: the record of all services is about the services without a record of their own.
func TestTargets(t *testing.T) {
	w := &World{
		Services: []Observation{{Service: "a", Own: true, Known: true, State: phase(3)}, {Service: "b", Known: true, State: phase(1)}},
		Records:  migrate.BothRecords{Old: migrate.RegistryRecords{States: map[string]migrate.State{"*": phase(1), "a": phase(3)}}},
	}
	all := Targets(w)
	if len(all) != 2 || all[0].Record != AllServices || !all[0].Known || len(all[0].Services) != 1 || all[0].Services[0].Service != "b" || all[1].Record != "a" {
		t.Errorf("all: %+v", all)
	}
	w.Services = w.Services[1:]
	if one := Targets(w, "b"); len(one) != 1 || one[0].Record != "b" || one[0].State.Phase != 1 {
		t.Errorf("one: %+v", one)
	}
}

// TestMoved: a state that somebody wrote between two reads is found, and a registry that
// could not be read is not taken for a change.
func TestMoved(t *testing.T) {
	read := func(states map[string]migrate.State, err error) migrate.BothRecords {
		return migrate.BothRecords{Old: migrate.RegistryRecords{States: states}, New: migrate.RegistryRecords{States: states, Err: err}}
	}
	type states = map[string]migrate.State
	begin := read(states{"*": {Phase: 2, Seq: 1}, "a": {Phase: 3, Seq: 5}}, nil)
	for name, c := range map[string]struct {
		later  migrate.BothRecords
		record string
		want   bool
	}{
		"the same":        {begin, "a", false},
		"back":            {read(states{"a": {Phase: 2, Seq: 6}}, nil), "a", true},
		"written again":   {read(states{"a": {Phase: 3, Seq: 6}}, nil), "a", true},
		"deleted":         {read(states{"*": {Phase: 2, Seq: 1}}, nil), "a", true},
		"of all services": {read(states{"*": {Phase: 1, Seq: 2}}, nil), "b", true},
		"own since":       {read(states{"*": {Phase: 2, Seq: 1}, "b": {Phase: 0, Seq: 1}}, nil), "b", true},
		"not read":        {read(states{}, errors.New("down")), "a", false},
	} {
		if was, is, moved := Moved(begin, c.later, c.record); moved != c.want {
			t.Errorf("%s: from %v to %v: moved %v, want %v", name, was, is, moved, c.want)
		}
	}
}

func TestBackWarnings(t *testing.T) {
	for _, c := range []struct {
		o    Observation
		to   migrate.Phase
		want int
	}{
		{Observation{Known: true, State: phase(3)}, 0, 0},
		{Observation{Known: true, State: phase(6)}, 5, 0},
		{Observation{Known: true, State: phase(7)}, 2, 1},
		{Observation{Known: true, State: phase(5), Old: Side{Err: context.Canceled}}, 4, 0},
		{Observation{Known: true, State: phase(5), Old: Side{Err: context.Canceled}}, 3, 1},
		{Observation{Known: true, State: phase(5), New: Side{Err: context.Canceled}}, 4, 1},
		{Observation{Known: true, State: phase(5), New: Side{Err: context.Canceled}}, 3, 0},
	} {
		if got := BackWarnings(c.o, phase(c.to)); len(got) != c.want {
			t.Errorf("%v to %v: %q, want %d warnings", c.o.State.Phase, c.to, got, c.want)
		}
	}
}

// TestSoak: a short interruption does not count, and a long one does.
func TestSoak(t *testing.T) {
	type sample struct {
		at          int // in seconds
		holds, firm bool
		want        Verdict
	}
	for name, c := range map[string]struct {
		soak    Soak
		samples []sample
	}{
		"once":             {Soak{}, []sample{{0, true, false, Held}}},
		"closed":           {Soak{}, []sample{{0, false, false, Broken}}},
		"closed for good":  {Soak{Settle: time.Minute}, []sample{{0, false, true, Broken}}},
		"settles":          {Soak{Settle: 3 * time.Second}, []sample{{0, false, false, Waiting}, {2, true, false, Held}}},
		"does not settle":  {Soak{Settle: 3 * time.Second}, []sample{{0, false, false, Waiting}, {3, false, false, Broken}}},
		"soaks":            {Soak{For: 10 * time.Second}, []sample{{0, true, false, Waiting}, {9, true, false, Waiting}, {10, true, false, Held}}},
		"flickers":         {Soak{For: 10 * time.Second, Settle: 3 * time.Second}, []sample{{0, true, false, Waiting}, {5, false, false, Waiting}, {7, true, false, Waiting}, {10, true, false, Held}}},
		"flickers twice":   {Soak{For: 10 * time.Second, Settle: 3 * time.Second}, []sample{{0, true, false, Waiting}, {2, false, false, Waiting}, {3, true, false, Waiting}, {6, false, false, Waiting}, {7, true, false, Waiting}, {10, true, false, Held}}},
		"breaks":           {Soak{For: 10 * time.Second, Settle: 3 * time.Second}, []sample{{0, true, false, Waiting}, {5, false, false, Waiting}, {8, false, false, Broken}}},
		"ends interrupted": {Soak{For: 10 * time.Second, Settle: 3 * time.Second}, []sample{{0, true, false, Waiting}, {10, false, false, Waiting}, {11, true, false, Held}}},
	} {
		begin := time.Unix(0, 0)
		for _, s := range c.samples {
			if got := c.soak.Add(begin.Add(time.Duration(s.at)*time.Second), s.holds, s.firm); got != s.want {
				t.Errorf("%s: after %d s: %v, want %v", name, s.at, got, s.want)
			}
		}
	}
}

// TestWatch: Watch looks until the time is over, or until ctx is done.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		look := func(context.Context) ([]Gate, error) {
			looks++
			return []Gate{{Open: true}}, nil
		}
		gates, held, err := Watch(t.Context(), Soak{For: 10 * time.Second}, time.Second, look, nil)
		if err != nil || len(gates) != 1 || held != 10*time.Second || looks != 11 {
			t.Errorf("%d looks, held for %v, %v", looks, held, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, _, err := Watch(ctx, Soak{For: time.Hour}, time.Second, look, nil); err != context.DeadlineExceeded {
			t.Errorf("error %v", err)
		}
	})
}

// TestWatchRestarts: two servers that restart one after the other are two short
// interruptions, also if a look at open gates is rare.
func TestWatchRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		closed := func(at time.Duration) bool {
			return at >= 29*time.Second && at < 31*time.Second || at >= 59*time.Second && at < 62*time.Second
		}
		look := func(context.Context) ([]Gate, error) {
			if closed(time.Since(begin)) {
				return []Gate{{Conditions: []Condition{{passing: true}}}}, nil
			}
			return []Gate{{Open: true}}, nil
		}
		gates, held, err := Watch(t.Context(), Soak{For: 2 * time.Minute, Settle: 3 * time.Second}, 30*time.Second, look, nil)
		if err != nil || !gates[0].Open || held < 2*time.Minute {
			t.Errorf("gates %+v were open for %v, %v", gates, held, err)
		}
	})
}
