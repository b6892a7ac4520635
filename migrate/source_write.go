package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
)

// RegistryRecords are the records of one registry.
type RegistryRecords struct {
	// States are the records that can be used, by the name of the service. Nil means
	// that the registry was not read.
	States map[string]State
	// Malformed are the records that cannot be used, and why.
	Malformed map[string]error
	// Err is why the registry could not be read, or nil.
	Err error
}

// BothRecords are the records of both registries.
type BothRecords struct {
	Old, New RegistryRecords
}

// States returns the state of each service that counts.
func (b BothRecords) States() map[string]State {
	states := maps.Clone(b.Old.States)
	if states == nil {
		states = make(map[string]State)
	}
	for service, s := range b.New.States {
		if was, ok := states[service]; !ok || s.supersedes(was) {
			states[service] = s
		}
	}
	return states
}

// Different returns the names of the services whose records are not the same in both
// registries, sorted. [WriteRecord] makes them the same. The result is empty if a
// registry was not read.
func (b BothRecords) Different() []string {
	var list []string
	if b.Old.States == nil || b.New.States == nil {
		return list
	}
	for service, s := range b.States() {
		if b.Old.States[service] != s || b.New.States[service] != s {
			list = append(list, service)
		}
	}
	slices.Sort(list)
	return list
}

// Err returns why a registry could not be read, or nil.
func (b BothRecords) Err() error {
	return bothErrors(b.Old.Err, b.New.Err)
}

// readPatience and writePatience bound the requests to one registry. A silent registry
// must not use up the time that the other one needs.
const (
	readPatience  = 5 * time.Second
	writePatience = 10 * time.Second
)

// ReadRecords reads the records of both registries once, as [Records] reads them. It
// waits at most five seconds, and at most a third of the time that ctx leaves. A registry
// whose store is nil is left out.
func ReadRecords(ctx context.Context, old, next naming.Store) BothRecords {
	patience := readPatience
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)/3)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var b BothRecords
	var wg sync.WaitGroup
	wg.Go(func() { b.Old = readRecords(ctx, old) })
	wg.Go(func() { b.New = readRecords(ctx, next) })
	wg.Wait()
	return b
}

// readRecords reads the records of a registry once.
func readRecords(ctx context.Context, store naming.Store) RegistryRecords {
	if store == nil {
		return RegistryRecords{}
	}
	c := naming.New(store, nil)
	defer c.Close()
	view, err := c.List(ctx, RecordService)
	if err != nil {
		return RegistryRecords{Err: naming.SafeError(err)}
	}
	side := recordSide{states: make(map[string]State)}
	side.apply(naming.Event{Batch: naming.Batch{Put: view.Endpoints, Withheld: view.Withheld}}, make(map[string]struct{}))
	return RegistryRecords{States: side.states, Malformed: side.bad}
}

// RecordError is the error of [WriteRecord] if a registry does not have the record. It
// wraps both errors.
type RecordError struct {
	// Service is the name of the service.
	Service string
	// Old and New are why the record could not be written, or nil for a registry that
	// has the record. With an error it is not known whether the registry has it.
	Old, New error
	// Counts says that one of the registries has the record, so that it counts.
	Counts bool
}

// Error names the registries that the record could not be written to.
func (e *RecordError) Error() string {
	text := fmt.Sprintf("migrate: write the record of service %q: %v", e.Service, bothErrors(e.Old, e.New))
	if e.Counts {
		text += "; the other registry has the record, which counts from now on: write the record again when both can be reached"
	}
	return text
}

// Unwrap returns the causes.
func (e *RecordError) Unwrap() []error {
	return slices.DeleteFunc([]error{e.Old, e.New}, func(err error) bool { return err == nil })
}

// bothErrors returns an error that names the registries, or nil.
func bothErrors(old, next error) error {
	switch {
	case old != nil && next != nil:
		return fmt.Errorf("the old registry: %w; the new registry: %w", old, next)
	case old != nil:
		return fmt.Errorf("the old registry: %w", old)
	case next != nil:
		return fmt.Errorf("the new registry: %w", next)
	}
	return nil
}

// blindStep is added to Seq if a record could not be read: more than the number of
// records that the writer may have missed.
const blindStep = 1 << 20

// WriteRecord writes the state of a service, or of "*", to both registries, where
// [Records] reads it. It returns the state with the Seq that it wrote, which is one more
// than the highest Seq of both registries and of s. If a registry cannot be read, or has
// a record that cannot be used, Seq grows by 1,048,576, so that the state also counts if
// that registry has newer records.
//
// The record is written to both registries at once. If one of them does not get the
// record, the error is a *[RecordError], and the state still counts in all programs that
// reach the other one. To write the same state again repairs the registry that has an
// older record.
//
// Two programs that write at the same time may write two states with the same Seq. A
// program that reads both then has the lower phase, and another program may have the
// higher phase until a state is written again. From one phase, a step back and a step
// forward are safe together.
//
// When the records of both registries were lost, programs that run still have the states
// from before, with higher Seqs, and ignore new records. [Source] Err says so. Set Seq of
// s to the Seq that Err names.
//
// The error is [naming.ErrInvalid] for a state or a service that is not valid, and for a
// store that cannot keep records: see [Records]. WriteRecord also refuses to replace the
// record of a later version of this package. The record has no lease. Delete the endpoint
// from the service [RecordService] of both stores when a migration is over.
func WriteRecord(ctx context.Context, old, next naming.Store, service string, s State) (State, error) {
	err := checkWrite(old, next, service, s)
	if err != nil {
		return State{}, fmt.Errorf("migrate: write the record of service %.100q: %w", service, err)
	}
	if s.Seq, err = nextSeq(ReadRecords(ctx, old, next), service, s.Seq); err != nil {
		return State{}, fmt.Errorf("migrate: write the record of service %q: %w", service, err)
	}
	e, err := encodeRecord(service, s)
	if err != nil {
		return State{}, fmt.Errorf("migrate: write the record of service %q: %w", service, err)
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	var oldErr, nextErr error
	var wg sync.WaitGroup
	wg.Go(func() { oldErr = putRecord(ctx, old, e) })
	wg.Go(func() { nextErr = putRecord(ctx, next, e) })
	wg.Wait()
	if oldErr == nil && nextErr == nil {
		return s, nil
	}
	counts := old != nil && oldErr == nil || next != nil && nextErr == nil
	if !counts {
		s = State{}
	}
	return s, &RecordError{Service: service, Old: oldErr, New: nextErr, Counts: counts}
}

// checkWrite checks the arguments of WriteRecord.
func checkWrite(old, next naming.Store, service string, s State) error {
	if err := errors.Join(checkStores(old, next), naming.CheckService(service)); err != nil {
		return err
	}
	if !isRecord(&naming.Endpoint{ID: service}) {
		return fmt.Errorf("%w: the name has the form of the ID of a copy: use %q", naming.ErrInvalid, anyService)
	}
	if len(s.By) > maxBy {
		return fmt.Errorf("%w: By has %d bytes; at most %d are allowed", naming.ErrInvalid, len(s.By), maxBy)
	}
	return s.Valid()
}

// nextSeq returns the Seq of a record that replaces those that were read. least is a Seq
// that it must exceed.
func nextSeq(b BothRecords, service string, least uint64) (uint64, error) {
	step := uint64(1)
	for _, r := range []RegistryRecords{b.Old, b.New} {
		least = max(least, r.States[service].Seq)
		bad := r.Malformed[service]
		if errors.Is(bad, errRecordFormat) {
			return 0, bad
		}
		if bad != nil || r.Err != nil {
			step = blindStep
		}
	}
	if least > maxSeq-step {
		return 0, fmt.Errorf("%w: seq %d is the last: delete the record, and restart all programs that read it", naming.ErrInvalid, least)
	}
	return least + step, nil
}

// putRecord writes a record to a registry.
func putRecord(ctx context.Context, store naming.Store, e naming.Endpoint) error {
	if store == nil {
		return nil
	}
	err := store.Apply(ctx, RecordService, naming.Change{Op: naming.Add, Endpoint: e})
	if errors.Is(err, naming.ErrInvalid) {
		err = fmt.Errorf("%w (the store must keep endpoints with metadata and without an address: use one in the default format of its backend)", err)
	}
	return naming.SafeError(err)
}
