// Package drill rehearses a migration: servers and clients of its own go through all phases
// and back, between two registries, while calls are made. The servers and clients run in this
// process and share nothing but the registries, as if each was a program of its own.
package drill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// Service is the name of the service of a drill.
const Service = "drill"

// Options says what is rehearsed. The zero values of the numbers and times mean the defaults.
type Options struct {
	// Registries are the two registries, in a namespace of their own: the drill removes all
	// of its service and of its record. Both registries must be written.
	steer.Registries
	// Servers and Clients are how many there are, 3 and 4 by default.
	Servers, Clients int
	// Pause is how long calls go on in each phase, besides a restart. 0 means 200 ms.
	Pause time.Duration
	// LeaveDelay is how long a server stays in a registry that it leaves, and DrainDelay is
	// how long a server that stops is listed as draining. Both are one second by default.
	LeaveDelay, DrainDelay time.Duration
	// Patience bounds the wait for each phase. 0 means one minute.
	Patience time.Duration
	// Logger gets what the programs log. It must not be nil.
	Logger *slog.Logger
	// OnStep, if not nil, is called after each phase.
	OnStep func(Step)
}

func (o Options) withDefaults() Options {
	for _, n := range []struct {
		value    *int
		standard int
	}{{&o.Servers, 3}, {&o.Clients, 4}} {
		if *n.value <= 0 {
			*n.value = n.standard
		}
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&o.Pause, 200 * time.Millisecond}, {&o.LeaveDelay, time.Second}, {&o.DrainDelay, time.Second}, {&o.Patience, time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	return o
}

// Step is what happened in a phase.
type Step struct {
	steer.Position
	Back bool `json:"back"` // the way back
	// Old and New are how many servers each registry has.
	Old int `json:"old"`
	New int `json:"new"`
	// Reads says which registries the clients read, such as "4 both".
	Reads string `json:"reads"`
	// Calls succeeded, and Failed calls did not.
	Calls  int `json:"calls"`
	Failed int `json:"failed"`
	// Connections are those that the clients made because the phase changed. It is 0: a
	// change of the phase makes no client connect. A restart of a server, which each phase
	// has, is not counted: the drill goes on when each client has called the new server.
	Connections int     `json:"connections"`
	Seconds     float64 `json:"seconds"`
}

// Result is what a drill found.
type Result struct {
	Steps  []Step `json:"steps"`
	Calls  int    `json:"calls"`
	Failed int    `json:"failed"`
	// FirstError is the error of the first call that failed.
	FirstError string `json:"firstError,omitempty"`
	// Error is why the drill ended early.
	Error string `json:"error,omitempty"`
	// Left says what could not be removed from the registries. It is empty if all was.
	Left string `json:"left,omitempty"`
}

// Passed reports whether the drill came to its end without a failed call, and left nothing.
func (r *Result) Passed() bool {
	return r.Failed == 0 && r.Error == "" && r.Left == "" && len(r.Steps) == len(path)
}

// path are the phases of a drill: all of them, and back.
var path = []struct {
	state migrate.State
	back  bool
}{
	{migrate.State{Phase: migrate.Old}, false},
	{migrate.State{Phase: migrate.DualWrite}, false},
	{migrate.State{Phase: migrate.Shadow}, false},
	{migrate.State{Phase: migrate.Union}, false},
	{migrate.State{Phase: migrate.PreferNew, Share: 0.5}, false},
	{migrate.State{Phase: migrate.PreferNew, Share: 1}, false},
	{migrate.State{Phase: migrate.NewRead}, false},
	{migrate.State{Phase: migrate.NewWrite}, false},
	{migrate.State{Phase: migrate.Done}, false},
	{migrate.State{Phase: migrate.NewRead}, true},
	{migrate.State{Phase: migrate.PreferNew, Share: 1}, true},
	{migrate.State{Phase: migrate.Union}, true},
	{migrate.State{Phase: migrate.Shadow}, true},
	{migrate.State{Phase: migrate.DualWrite}, true},
	{migrate.State{Phase: migrate.Old}, true},
}

// Run rehearses a migration, and then removes all that it put, also when ctx is done. The
// Result is never nil.
func Run(ctx context.Context, opts Options) *Result {
	f := newFleet(opts.withDefaults())
	result := &Result{Steps: []Step{}}
	err := f.run(ctx, result)
	f.stop()
	if err != nil {
		result.Error = naming.SafeError(err).Error()
	}
	var first error
	result.Calls, result.Failed, first = f.total()
	if first != nil {
		result.FirstError = naming.SafeError(first).Error()
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.opts.Patience)
	defer cancel()
	if err := f.clean(cleaning); err != nil {
		result.Left = naming.SafeError(err).Error()
	}
	return result
}

func (f *fleet) run(ctx context.Context, result *Result) error {
	if err := f.setPhase(ctx, path[0].state); err != nil {
		return err
	}
	if err := f.start(ctx); err != nil {
		return err
	}
	for _, p := range path {
		step, err := f.play(ctx, p.state)
		if err != nil {
			return fmt.Errorf("in phase %v: %w", steer.PositionOf(p.state, true), err)
		}
		step.Back = p.back
		result.Steps = append(result.Steps, step)
		if f.opts.OnStep != nil {
			f.opts.OnStep(step)
		}
	}
	return nil
}

// setPhase writes the record that all programs of the drill read.
func (f *fleet) setPhase(ctx context.Context, s migrate.State) error {
	s.By = "naming migrate drill"
	_, err := migrate.WriteRecord(ctx, f.opts.OldRecords, f.opts.NewRecords, Service, s)
	return err
}

// play changes the phase and then restarts a server, while calls are made.
func (f *fleet) play(ctx context.Context, s migrate.State) (Step, error) {
	begin := time.Now()
	calls, failed, _ := f.total()
	connections := f.dials.count()
	step := Step{Position: steer.PositionOf(s, true)}
	if err := f.setPhase(ctx, s); err != nil {
		return step, err
	}
	if err := f.settled(ctx, s); err != nil {
		return step, err
	}
	if err := sleep(ctx, f.opts.Pause); err != nil {
		return step, err
	}
	step.Connections = f.dials.count() - connections
	if err := f.restart(ctx); err != nil {
		return step, err
	}
	if err := f.settled(ctx, s); err != nil {
		return step, err
	}
	step.Old, step.New = f.listed()
	step.Reads = f.reads()
	nowCalls, nowFailed, _ := f.total()
	step.Calls, step.Failed = nowCalls-calls, nowFailed-failed
	step.Seconds = time.Since(begin).Round(time.Millisecond).Seconds()
	return step, nil
}

// registered returns how many of n servers the registries have in a phase.
func registered(p migrate.Phase, n int) (old, next int) {
	if p <= migrate.NewRead {
		old = n
	}
	if p >= migrate.DualWrite {
		next = n
	}
	return old, next
}

// read returns which registry all clients read in a state: "old", "both" or "new". It is
// empty if clients differ.
func read(s migrate.State) string {
	switch {
	case s.Phase <= migrate.Shadow:
		return "old"
	case s.Phase == migrate.Union:
		return "both"
	case s.Phase == migrate.PreferNew && s.Share < 1:
		return ""
	}
	return "new"
}

// settled waits until the registries have the servers that the phase says, all clients read
// what it says, and each client has called each server.
func (f *fleet) settled(ctx context.Context, s migrate.State) error {
	wantOld, wantNew := registered(s.Phase, f.opts.Servers)
	return f.until(ctx, func() string {
		old, next := f.listed()
		if old != wantOld || next != wantNew {
			return fmt.Sprintf("the registries have %d and %d servers, and not %d and %d", old, next, wantOld, wantNew)
		}
		if !f.known(s) {
			return "not all programs have the phase"
		}
		if want := read(s); want != "" && f.reads() != fmt.Sprint(f.opts.Clients, " ", want) {
			return fmt.Sprintf("the clients read %s, and not %s", f.reads(), want)
		}
		if !f.allCalled() {
			return "a client has not called each server"
		}
		return ""
	})
}

// until waits until lacks returns an empty text. The text says what is waited for.
func (f *fleet) until(ctx context.Context, lacks func() string) error {
	deadline := time.Now().Add(f.opts.Patience)
	for {
		what := lacks()
		if what == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v, %s", f.opts.Patience, what)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// clean removes what the drill put, and looks whether it is gone.
func (f *fleet) clean(ctx context.Context) error {
	var errs []error
	for _, s := range []struct {
		name           string
		store, records naming.Store
	}{{"old", f.opts.Old, f.opts.OldRecords}, {"new", f.opts.New, f.opts.NewRecords}} {
		errs = append(errs, inRegistry(s.name, remove(ctx, s.store, Service)), inRegistry(s.name, remove(ctx, s.records, migrate.RecordService)))
	}
	return errors.Join(errs...)
}

func inRegistry(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the %s registry: %w", name, err)
}

// remove deletes all entries of a service in the namespace of the drill.
func remove(ctx context.Context, store naming.Store, service string) error {
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	for range 3 { // an entry may appear while the others are deleted
		v, err := c.List(ctx, service)
		if err != nil {
			return err
		}
		var changes []naming.Change
		for _, e := range v.Endpoints {
			changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: e.ID}})
		}
		for _, w := range v.Withheld {
			changes = append(changes, naming.Change{Op: naming.Delete, Endpoint: naming.Endpoint{ID: w.Endpoint.ID}})
		}
		if len(changes) == 0 {
			return nil
		}
		if err := store.Apply(ctx, service, changes...); err != nil {
			return err
		}
	}
	return fmt.Errorf("service %q still has entries", strings.ToValidUTF8(service, ""))
}
