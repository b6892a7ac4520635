package drill

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

func options(old, next naming.Store) Options {
	return Options{
		Registries: steer.Registries{Old: old, New: next, OldRecords: old, NewRecords: next},
		Servers:    2, Clients: 2, Pause: time.Millisecond, LeaveDelay: 300 * time.Millisecond, DrainDelay: 300 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// empty reports whether a registry has no services.
func empty(t *testing.T, s naming.Store) bool {
	t.Helper()
	for names, err := range s.Services(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		return len(names) == 0
	}
	return false
}

// TestDrill: a drill goes through all phases and back, no call fails, and nothing is left.
func TestDrill(t *testing.T) {
	var old, next memory.Store
	var steps []Step
	opts := options(&old, &next)
	opts.OnStep = func(s Step) { steps = append(steps, s) }
	r := Run(t.Context(), opts)
	if !r.Passed() || r.Calls == 0 {
		t.Errorf("result: %+v", r)
	}
	if len(steps) != len(path) {
		t.Errorf("%d steps were reported, want %d", len(steps), len(path))
	}
	checkConnections(t, steps)
	if !empty(t, &old) || !empty(t, &next) {
		t.Error("the drill left entries")
	}
}

func checkConnections(t *testing.T, steps []Step) {
	t.Helper()
	for _, s := range steps {
		if s.Connections != 0 {
			t.Errorf("%v, back %v, made %d connections", s.Position, s.Back, s.Connections)
		}
	}
}

// TestReusedAddress: a server that gets the address of an earlier one is a new server. The
// connections to it belong to the phase in which it started.
func TestReusedAddress(t *testing.T) {
	var old, next memory.Store
	f, result := newFleet(options(&old, &next).withDefaults()), &Result{}
	var unused []string
	started, reused := 0, 0
	f.listen = func() (net.Listener, error) {
		addr := "127.0.0.1:0"
		if started++; started > f.opts.Servers { // the oldest server has stopped
			addr, unused = unused[0], unused[1:]
			reused++
		}
		l, err := net.Listen("tcp", addr)
		if err != nil { // another program has the port
			reused--
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err == nil {
			unused = append(unused, l.Addr().String())
		}
		return l, err
	}
	err := f.run(t.Context(), result)
	f.stop()
	if _, failed, first := f.total(); err != nil || failed != 0 || reused == 0 {
		t.Errorf("%v; %d calls failed, the first with %v; %d addresses were reused", err, failed, first, reused)
	}
	checkConnections(t, result.Steps)
}

// TestInterrupted: a drill that is interrupted leaves nothing.
func TestInterrupted(t *testing.T) {
	var old, next memory.Store
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts := options(&old, &next)
	opts.OnStep = func(s Step) {
		if s.Phase == migrate.Union.String() {
			cancel()
		}
	}
	r := Run(ctx, opts)
	if r.Passed() || r.Error == "" || r.Left != "" || r.Failed != 0 {
		t.Errorf("result: %+v", r)
	}
	if !empty(t, &old) || !empty(t, &next) {
		t.Error("the drill left entries")
	}
}

// loses is a registry that loses an endpoint: the drill has to fail.
type loses struct{ naming.Store }

func (l loses) Apply(ctx context.Context, service string, changes ...naming.Change) error {
	if service == Service {
		return nil // as if it was written
	}
	return l.Store.Apply(ctx, service, changes...)
}

func TestDrillFails(t *testing.T) {
	var old, next memory.Store
	opts := options(&old, loses{&next})
	opts.Patience = 2 * time.Second
	r := Run(t.Context(), opts)
	if r.Passed() || r.Error == "" || len(r.Steps) != 1 {
		t.Errorf("result: %+v", r)
	}
}

// TestPath: the path reaches each phase, and no step crosses more than a program may be behind.
func TestPath(t *testing.T) {
	reached := make(map[migrate.Phase]bool)
	for i, p := range path {
		reached[p.state.Phase] = true
		if i > 0 {
			was := path[i-1].state
			if d := int(p.state.Phase) - int(was.Phase); d > 1 || d < -2 || p.back != steer.Ahead(was, p.state) {
				t.Errorf("from %v to %v, back %v", was, p.state, p.back)
			}
		}
	}
	if len(reached) != 8 || path[0].state != path[len(path)-1].state {
		t.Errorf("the path reaches %v", reached)
	}
}
