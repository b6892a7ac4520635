package migrate_test

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// wantState fails t unless a source has a state for a service.
func wantState(t *testing.T, s migrate.Source, service string, want migrate.State) {
	t.Helper()
	if got, ok := s.State(service); !ok || got != want {
		t.Errorf("the state of %s is %+v, %v, want %+v", service, got, ok, want)
	}
}

// wantUnknown fails t if a source has a state for a service.
func wantUnknown(t *testing.T, s migrate.Source, service string) {
	t.Helper()
	if got, ok := s.State(service); ok {
		t.Errorf("the state of %s is %+v, want none", service, got)
	}
}

// counter counts the calls of Notify's function. The function reads a state, which blocks
// for ever if it is called under the lock of the source.
func counter(t *testing.T, s migrate.Source) *atomic.Int64 {
	n := new(atomic.Int64)
	t.Cleanup(s.Notify(func() {
		s.State("greeter")
		n.Add(1)
	}))
	return n
}

// wantCalls fails t unless Notify's function was called n times since the last wantCalls.
func wantCalls(t *testing.T, calls *atomic.Int64, n int64) {
	t.Helper()
	if got := calls.Swap(0); got != n {
		t.Errorf("changed was called %d times, want %d", got, n)
	}
}

func TestParsePhase(t *testing.T) {
	for p := migrate.Old; p <= migrate.Done; p++ {
		for _, text := range []string{p.String(), string('0' + rune(p))} {
			if got, err := migrate.ParsePhase(text); got != p || err != nil {
				t.Errorf("%q is phase %v, %v", text, got, err)
			}
		}
	}
	for _, text := range []string{"", "8", "-1", "03", "Union", "Phase(8)"} {
		if _, err := migrate.ParsePhase(text); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%q: error %v, want ErrInvalid", text, err)
		}
	}
}

func TestStateValid(t *testing.T) {
	for _, s := range []migrate.State{{Phase: 8}, {Phase: 255}, {Share: -0.1}, {Share: 1.1}, {Share: math.NaN()}, {Share: math.Inf(1)}} {
		if err := s.Valid(); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%+v: error %v, want ErrInvalid", s, err)
		}
		source := migrate.Fixed(s)
		wantUnknown(t, source, "greeter")
		if source.Err() == nil {
			t.Errorf("a source with the state %+v has no error", s)
		}
	}
	for _, s := range []migrate.State{{}, {Phase: migrate.Done}, {Share: 1}, {Phase: migrate.PreferNew, Share: 0.5, Seq: math.MaxUint64}} {
		if err := s.Valid(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// TestSupersedes: of any two states exactly one counts, and a higher Seq always counts.
func TestSupersedes(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	random := func() migrate.State {
		return migrate.State{
			Phase: migrate.Phase(r.IntN(8)), Share: float64(r.IntN(3)) / 2, Seq: r.Uint64N(3), By: string('a' + rune(r.IntN(2))),
		}
	}
	for range 10_000 {
		a, b := random(), random()
		ab, ba := migrate.Supersedes(a, b), migrate.Supersedes(b, a)
		if (ab || ba) != (a != b) || ab && ba {
			t.Fatalf("seed %d: %+v over %+v: %v, and the other way: %v", seed, a, b, ab, ba)
		}
		if a.Seq > b.Seq && !ab || a.Seq == b.Seq && a.Phase < b.Phase && !ab {
			t.Fatalf("seed %d: %+v does not count more than %+v", seed, a, b)
		}
	}
}

func TestFixed(t *testing.T) {
	want := migrate.State{Phase: migrate.PreferNew, Share: 0.25, By: "ada"}
	s := migrate.Fixed(want)
	wantState(t, s, "greeter", want)
	wantState(t, s, "*", want)
	if got := s.Services(); len(got) != 1 || got["*"] != want {
		t.Errorf("the services are %v", got)
	}
	s.Notify(func() { t.Error("changed was called") })()
	s.Close()
	s.Close()
	wantState(t, s, "greeter", want)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

func TestSettable(t *testing.T) {
	s := new(migrate.Settable)
	calls := counter(t, s)
	set := func(service string, state migrate.State) {
		t.Helper()
		if err := s.Set(service, state); err != nil {
			t.Error(err)
		}
	}
	wantUnknown(t, s, "greeter")
	set("greeter", migrate.State{Phase: migrate.Union})
	wantCalls(t, calls, 1)
	wantState(t, s, "greeter", migrate.State{Phase: migrate.Union, Seq: 1})
	wantUnknown(t, s, "other")

	set("*", migrate.State{Phase: migrate.Shadow})
	wantCalls(t, calls, 1)
	wantState(t, s, "greeter", migrate.State{Phase: migrate.Union, Seq: 1})
	wantState(t, s, "other", migrate.State{Phase: migrate.Shadow, Seq: 1})

	set("greeter", migrate.State{Phase: migrate.Union})         // the present state
	set("greeter", migrate.State{Phase: migrate.Union, Seq: 1}) // the same
	wantCalls(t, calls, 0)

	set("greeter", migrate.State{Phase: migrate.Old, Seq: 9})
	set("greeter", migrate.State{Phase: migrate.Done})
	wantCalls(t, calls, 2)
	wantState(t, s, "greeter", migrate.State{Phase: migrate.Done, Seq: 10})
	want := map[string]migrate.State{"*": {Phase: migrate.Shadow, Seq: 1}, "greeter": {Phase: migrate.Done, Seq: 10}}
	got := s.Services()
	if !maps.Equal(got, want) {
		t.Errorf("the services are %v, want %v", got, want)
	}
	clear(got) // the map belongs to the caller
	wantState(t, s, "greeter", want["greeter"])
}

// A state that must not replace the present state is refused, and changes nothing.
func TestSettableRefuses(t *testing.T) {
	s := new(migrate.Settable)
	if err := s.Set("greeter", migrate.State{Phase: migrate.Union, Seq: 5}); err != nil {
		t.Fatal(err)
	}
	calls := counter(t, s)
	for service, state := range map[string]migrate.State{
		"":                     {},
		"\xff":                 {},
		"greeter":              {Phase: migrate.Old, Seq: 4},
		"*":                    {Phase: 8},
		"other":                {Share: 2},
		string([]byte{0, 255}): {},
	} {
		if err := s.Set(service, state); !errors.Is(err, naming.ErrInvalid) {
			t.Errorf("%q %+v: error %v, want ErrInvalid", service, state, err)
		}
	}
	if err := s.Set("greeter", migrate.State{Phase: migrate.PreferNew, Seq: 5}); !errors.Is(err, naming.ErrInvalid) {
		t.Errorf("a higher phase with the same seq: error %v, want ErrInvalid", err)
	}
	wantCalls(t, calls, 0)
	if err := s.Set("greeter", migrate.State{Phase: migrate.Shadow, Seq: 5}); err != nil {
		t.Errorf("a lower phase with the same seq: %v", err)
	}
	wantCalls(t, calls, 1)
}

// After stop, the function is not called, and other functions are.
func TestNotifyStop(t *testing.T) {
	s := new(migrate.Settable)
	calls := counter(t, s)
	stop := s.Notify(func() { t.Error("called after stop") })
	stop()
	stop()
	if err := s.Set("*", migrate.State{}); err != nil {
		t.Error(err)
	}
	wantCalls(t, calls, 1)
}
