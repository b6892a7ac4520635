package steer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/naming-go/naming"
	"github.com/naming-go/naming/migrate"
)

// parallel is how many services are read at once from each registry.
const parallel = 16

// World is what was seen of a migration.
type World struct {
	// Services are the services, sorted by name.
	Services []Observation
	// Records are the records of both registries.
	Records migrate.BothRecords
	// Bridges are the bridges that work.
	Bridges []Seat
	// OldErr and NewErr are why a registry, or the endpoints of one of its services, could
	// not be read, or nil. The errors of Records stand there.
	OldErr, NewErr error
	// BridgesErr is why the bridges of a registry could not be read, or nil.
	BridgesErr error

	registries Registries
}

// Observe reads services from both registries, once each. Without names, or with the name
// [AllServices], all services of both registries and of the records are read. A registry that cannot be read is not an
// error: the Observations have the reason. ctx bounds the time.
func Observe(ctx context.Context, r Registries, accept migrate.Accept, names ...string) *World {
	w := &World{registries: r}
	var old, next registry
	var group errgroup.Group
	group.Go(func() error { w.Records = migrate.ReadRecords(ctx, r.OldRecords, r.NewRecords); return nil })
	group.Go(func() error { old = readRegistry(ctx, r.Old, r.OldRecords, "old", names); return nil })
	group.Go(func() error { next = readRegistry(ctx, r.New, r.NewRecords, "new", names); return nil })
	_ = group.Wait() // the functions return nil
	w.OldErr, w.NewErr = old.firstError(), next.firstError()
	w.BridgesErr = cmp.Or(old.seatsErr, next.seatsErr)
	w.Bridges = append(old.seats, next.seats...)
	if wantsAll(names) {
		names = slices.Concat(names, slices.Collect(maps.Keys(old.sides)), slices.Collect(maps.Keys(next.sides)), slices.Collect(maps.Keys(w.Records.States())))
	}
	for _, name := range single(names) {
		w.Services = append(w.Services, w.observation(r, accept, name, old.side(name), next.side(name)))
	}
	return w
}

// wantsAll reports whether names mean all services.
func wantsAll(names []string) bool { return len(names) == 0 || slices.Contains(names, AllServices) }

// single returns the names of single services, sorted and without duplicates.
func single(names []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == AllServices })
	slices.Sort(names)
	return slices.Compact(names)
}

// registry is what was read of one registry.
type registry struct {
	err      error
	sides    map[string]Side
	seats    []Seat
	seatsErr error
}

// firstError returns why the registry, or the first of its services that fails, could not
// be read.
func (r *registry) firstError() error {
	if r.err != nil {
		return r.err
	}
	for _, name := range slices.Sorted(maps.Keys(r.sides)) {
		if err := r.sides[name].Err; err != nil {
			return err
		}
	}
	return nil
}

// side returns what the registry has of a service. A service that the list of services does
// not have has no endpoints.
func (r *registry) side(name string) Side {
	if r.err != nil {
		return Side{Err: r.err}
	}
	if s, ok := r.sides[name]; ok {
		return s
	}
	return Side{View: naming.View{Service: name, Status: naming.Status{Synced: true}}}
}

func readRegistry(ctx context.Context, store, records naming.Store, which string, names []string) registry {
	r := registry{sides: make(map[string]Side)}
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	all, err := Services(ctx, store)
	if err != nil {
		r.err = naming.SafeError(err)
		return r
	}
	if wantsAll(names) {
		names = slices.Concat(names, all)
	}
	all = single(names)
	sides := make([]Side, len(all))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, name := range all {
		group.Go(func() error {
			v, err := c.List(ctx, name)
			if err != nil {
				err = fmt.Errorf("service %q: %w", naming.SafeText(name), naming.SafeError(err))
			}
			sides[i] = Side{View: v, Err: err}
			return nil
		})
	}
	_ = group.Wait() // the functions return nil
	for i, name := range all {
		r.sides[name] = sides[i]
	}
	if records != nil {
		if r.seats, err = ReadSeats(ctx, records); err != nil {
			r.seatsErr = naming.SafeError(err)
		}
		for i := range r.seats {
			r.seats[i].Registry = which
		}
	}
	return r
}

// ReadSeats returns the bridges that work, as one registry says.
func ReadSeats(ctx context.Context, store naming.Store) ([]Seat, error) {
	c := naming.New(store, &naming.Options{Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	v, err := c.List(ctx, migrate.BridgeService)
	if err != nil {
		return nil, err
	}
	return Seats(v), nil
}

// Services returns the services of a registry, sorted, without those of package migrate.
func Services(ctx context.Context, store naming.Store) ([]string, error) {
	for names, err := range store.Services(ctx) {
		if err != nil {
			return nil, err
		}
		names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == migrate.RecordService || n == migrate.BridgeService })
		slices.Sort(names)
		return names, nil
	}
	return nil, errors.New("the registry did not list its services")
}

// observation joins what was read of a service.
func (w *World) observation(r Registries, accept migrate.Accept, name string, old, next Side) Observation {
	o := Observation{Service: name, Old: old, New: next}
	o.Bridges = w.Bridges
	o.applyRecords(w.Records, r)
	o.Report = migrate.Comparison{Accept: accept, Target: r.New}.Compare(name, old.View, next.View)
	natives := make([]naming.Endpoint, 0, len(old.View.Endpoints))
	for _, e := range old.View.Endpoints {
		if _, isCopy := migrate.Native(e); !isCopy {
			natives = append(natives, e)
		}
	}
	if o.Losses, o.LossErr = migrate.Losses(r.New, name, natives); errors.Is(o.LossErr, migrate.ErrNoMapper) {
		o.LossErr = errors.New("its format cannot be asked")
	}
	return o
}

// apply adds the record of a registry.
func (s *Side) apply(r migrate.RegistryRecords, name string, none bool) {
	s.NoRecords, s.RecordErr, s.Malformed = none, r.Err, r.Malformed[name]
	if s.Record, s.HasRecord = r.States[name]; !s.HasRecord {
		s.Record, s.HasRecord = r.States[AllServices]
	}
}

// RecordsOnly reads the records of both registries, and no endpoints. Without names, or with
// the name [AllServices], the services are those that have a record.
func RecordsOnly(ctx context.Context, r Registries, names ...string) *World {
	w := &World{Records: migrate.ReadRecords(ctx, r.OldRecords, r.NewRecords), registries: r}
	w.OldErr, w.NewErr = w.Records.Old.Err, w.Records.New.Err
	if wantsAll(names) {
		names = slices.Concat(names, slices.Collect(maps.Keys(w.Records.States())))
	}
	for _, name := range single(names) {
		w.Services = append(w.Services, w.bare(name))
	}
	return w
}

// bare returns an Observation without endpoints.
func (w *World) bare(name string) Observation {
	o := Observation{Service: name, Report: &migrate.Report{}, Old: Side{Err: w.OldErr}, New: Side{Err: w.NewErr}}
	o.applyRecords(w.Records, w.registries)
	return o
}

// applyRecords adds what both registries have as the record of the service.
func (o *Observation) applyRecords(b migrate.BothRecords, r Registries) {
	o.Old.apply(b.Old, o.Service, r.OldRecords == nil)
	o.New.apply(b.New, o.Service, r.NewRecords == nil)
	states := b.States()
	_, o.Own = states[o.Service]
	o.State, o.Known = counting(states, o.Service)
}
