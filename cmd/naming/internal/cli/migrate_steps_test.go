package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/backend/memory"
	"github.com/naming-go/naming/cmd/naming/internal/steer"
	"github.com/naming-go/naming/migrate"
)

// TestUnmoved: a step ahead does not undo the step back of another operator, which came
// between the last look and the write.
func TestUnmoved(t *testing.T) {
	var old, next memory.Store
	r := steer.Registries{Old: &old, New: &next, OldRecords: &old, NewRecords: &next}
	write := func(phase migrate.Phase) {
		t.Helper()
		if _, err := migrate.WriteRecord(t.Context(), &old, &next, "greeter", migrate.State{Phase: phase}); err != nil {
			t.Fatal(err)
		}
	}
	write(migrate.Union)
	s := &step{
		app: &app{timeout: time.Minute}, pair: &pair{Registries: r}, lenient: true,
		flags: &stepFlags{scopeFlags: scopeFlags{services: []string{"greeter"}}},
	}
	if _, err := s.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.unmoved(t.Context()); err != nil {
		t.Errorf("nobody wrote: %v", err)
	}
	write(migrate.Shadow)
	if err := s.unmoved(t.Context()); statusOf(err) != statusNo || !strings.Contains(err.Error(), "it was 3 union, and is 2 shadow") {
		t.Errorf("another operator went back: %v", err)
	}
}

// TestWriteAll: all records are written, also if one of them is refused, and the exit status
// says so.
func TestWriteAll(t *testing.T) {
	var old, next memory.Store
	var out, warnings bytes.Buffer
	a := &app{Env: Env{Out: &out, Err: &warnings}, timeout: time.Minute}
	p := &pair{Registries: steer.Registries{OldRecords: &old, NewRecords: &next}}
	results := make([]stepResult, 40)
	for i := range results {
		results[i] = stepResult{Record: strings.Repeat("x", i+1), state: migrate.State{Phase: migrate.Union}}
	}
	results[7].state.Phase = 99
	if err := a.writeAll(t.Context(), p, "ada", results); statusOf(err) != statusUsage {
		t.Errorf("a refused record: %v", err)
	}
	if n := len(migrate.ReadRecords(t.Context(), &old, &next).States()); n != len(results)-1 {
		t.Errorf("%d records", n)
	}
	p.OldRecords, p.NewRecords = &failing{naming.ErrPermission}, &failing{errors.New("down")}
	err := a.writeAll(t.Context(), p, "ada", results[:6])
	if statusOf(err) != statusRegistry || !strings.Contains(err.Error(), "3 more records were not written") {
		t.Errorf("both registries are down: %v", err)
	}
}
