package otelnaming

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/naming-go/naming/migrate"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// SideNameKey is the attribute of the metrics of one registry of a [Migration].
const SideNameKey = attribute.Key("naming.side.name")

// Migration are the metrics of one [migrate.Joined]: those of its Client, those of both
// registries, and those of the migration itself.
//
//	m, err := otelnaming.NewMigration("", "", nil)
//	j, err := migrate.Join(old, next, phases, &migrate.Options{
//		Client:   naming.Options{Hooks: m.Joined.Hooks()},
//		OldHooks: m.Old.Hooks(),
//		NewHooks: m.New.Hooks(),
//		Hooks:    m.Hooks(),
//	})
//
// All methods may be called concurrently.
type Migration struct {
	// Joined are the metrics of the joined Client. Old and New are the metrics of the
	// registries, which have the attribute naming.side.name. A sum over one of these
	// metrics has to select one of the three.
	Joined, Old, New *Metrics

	metrics  *Metrics // the attributes
	callback metric.Registration

	fallback, narrowed              metric.Int64ObservableUpDownCounter
	phase, missing, extra, mismatch metric.Int64ObservableGauge

	state struct {
		mu       sync.Mutex
		services map[string]*migration // by name
	}
}

// migration is the state of one service. It is guarded by Migration.state.mu.
type migration struct {
	phase                    int64 // -1: not known
	fallback                 int64
	narrowed                 int64
	prefers                  string // the registry that narrowed is about; empty: it is not known
	compared                 bool   // a difference was reported
	missing, extra, mismatch int64
}

// NewMigration makes the instruments. The names of the registries are those of
// [migrate.Options]: empty means "old" and "new". It returns the errors of the meter
// provider, and an error for two registries of one name.
func NewMigration(oldName, newName string, opts *Options) (*Migration, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	oldName, newName = cmp.Or(oldName, "old"), cmp.Or(newName, "new")
	if oldName == newName {
		return nil, fmt.Errorf("otelnaming: both registries have the name %q", oldName)
	}
	m := new(Migration)
	m.state.services = make(map[string]*migration)
	var errs [3]error
	m.Joined, errs[0] = New(&o)
	m.Old, errs[1] = New(o.ofSide(oldName))
	m.New, errs[2] = New(o.ofSide(newName))
	err := errors.Join(errs[:]...)
	if err == nil {
		m.metrics = m.Joined
		err = m.observeMigration(o.MeterProvider.Meter(ScopeName))
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// ofSide returns the options of the metrics of one registry.
func (o Options) ofSide(name string) *Options {
	o.Attributes = append(slices.Clone(o.Attributes), SideNameKey.String(name))
	return &o
}

// observeMigration makes the instruments of the migration itself.
func (m *Migration) observeMigration(meter metric.Meter) error {
	var errs []error
	upDownCounter := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter("naming.migration."+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, unit, description string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge("naming.migration."+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	m.phase = gauge("phase", "{phase}", "Phase of a service, from 0 (old) to 7 (done), and -1 while it is not known.")
	m.fallback = upDownCounter("fallback", "{service}", "Services that need both registries in a phase that uses one.")
	m.narrowed = upDownCounter("narrowed", "{service}", "Services whose endpoints come from one registry alone.")
	m.missing = gauge("missing", "{endpoint}", "Endpoints that only the old registry has.")
	m.extra = gauge("extra", "{endpoint}", "Endpoints that only the new registry has.")
	m.mismatch = gauge("mismatch", "{endpoint}", "Endpoints that both registries have with different data.")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("otelnaming: %w", err)
	}
	var err error
	if m.callback, err = meter.RegisterCallback(m.observe, m.phase, m.fallback, m.narrowed, m.missing, m.extra, m.mismatch); err != nil {
		return fmt.Errorf("otelnaming: %w", err)
	}
	return nil
}

// Close ends the observation, as [Metrics.Close] does, for all metrics of m.
func (m *Migration) Close() error {
	var errs []error
	for _, metrics := range []*Metrics{m.Joined, m.Old, m.New} {
		if metrics != nil {
			errs = append(errs, metrics.Close())
		}
	}
	if m.callback != nil {
		if err := m.callback.Unregister(); err != nil {
			errs = append(errs, fmt.Errorf("otelnaming: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Hooks returns the hooks that record the metrics of the migration itself.
func (m *Migration) Hooks() *migrate.Hooks {
	return &migrate.Hooks{
		PhaseChanged: m.onPhaseChanged,
		Narrowed:     m.onNarrowed,
		Fallback:     m.onFallback,
		Parity:       m.onParity,
	}
}

func (m *Migration) onPhaseChanged(info migrate.PhaseChangedInfo) {
	m.note(info.Service, func(s *migration) {
		s.phase = -1
		if info.Known {
			s.phase = int64(info.To.Phase)
		}
	})
}

func (m *Migration) onNarrowed(info migrate.NarrowedInfo) {
	m.note(info.Service, func(s *migration) {
		s.prefers, s.narrowed = info.Registry, 0
		if info.Narrow {
			s.narrowed = 1
		}
	})
}

func (m *Migration) onFallback(info migrate.FallbackInfo) {
	m.note(info.Service, func(s *migration) {
		s.fallback = 1
		if info.Since.IsZero() {
			s.fallback = 0
		}
	})
}

func (m *Migration) onParity(info migrate.ParityInfo) {
	m.note(info.Service, func(s *migration) {
		r := info.Report
		s.compared = r.Known
		s.missing, s.extra, s.mismatch = int64(len(r.Missing)), int64(len(r.Extra)), int64(len(r.Mismatch))
	})
}

// note calls f with the service that has the name. f must not block.
func (m *Migration) note(name string, f func(*migration)) {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	s := m.state.services[name]
	if s == nil {
		s = &migration{phase: -1}
		m.state.services[name] = s
	}
	f(s)
}

// observe reports the state. It calls the observer without the lock, because hooks wait
// for the lock.
func (m *Migration) observe(_ context.Context, o metric.Observer) error {
	for name, s := range m.read() {
		service := m.metrics.with(name)
		o.ObserveInt64(m.phase, s.phase, service)
		o.ObserveInt64(m.fallback, s.fallback, service)
		if s.prefers != "" {
			o.ObserveInt64(m.narrowed, s.narrowed, m.metrics.with(name, SideNameKey.String(s.prefers)))
		}
		if s.compared {
			o.ObserveInt64(m.missing, s.missing, service)
			o.ObserveInt64(m.extra, s.extra, service)
			o.ObserveInt64(m.mismatch, s.mismatch, service)
		}
	}
	return nil
}

// read returns a copy of the state.
func (m *Migration) read() map[string]migration {
	m.state.mu.Lock()
	defer m.state.mu.Unlock()
	services := make(map[string]migration, len(m.state.services))
	for name, s := range m.state.services {
		services[name] = *s
	}
	return services
}
