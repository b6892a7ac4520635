package otelnaming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/naming-go/naming"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// ScopeName is the name of the instrumentation scope of the metrics.
const ScopeName = "github.com/naming-go/naming/observe/otel"

// The attributes of the metrics.
const (
	ServiceNameKey       = attribute.Key("naming.service.name")
	RegistrationAgainKey = attribute.Key("naming.registration.again")
	ReleaseReasonKey     = attribute.Key("naming.release.reason")
	WithheldReasonKey    = attribute.Key("naming.withheld.reason")
	ErrorTypeKey         = attribute.Key("error.type")
)

// Options are the options of [New]. The zero value, and a nil pointer, mean the
// defaults.
type Options struct {
	// MeterProvider makes the instruments. Nil means otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// Attributes are added to every measurement. They distinguish the registries of
	// a program that has several.
	Attributes []attribute.KeyValue

	// ErrorType returns the value of error.type for an error that is not nil. It
	// must return one of few values. It is called from hooks, so it must not block
	// and may be called concurrently. Nil means the function [ErrorType].
	ErrorType func(error) string
}

// Metrics are the metrics of one [naming.Client]. A program with several Clients makes
// one Metrics for each, with other Attributes. All methods may be called concurrently.
type Metrics struct {
	// New sets the fields of this block. They never change afterwards.
	attributes                                          []attribute.KeyValue
	all                                                 metric.MeasurementOption // attributes alone
	errorType                                           func(error) string
	callback                                            metric.Registration
	registrations, losses, withdrawals, holds, releases metric.Int64Counter
	failures, resyncs, changes, updates, attempts       metric.Int64Counter
	malformed                                           metric.Int64Counter
	registered, held, withheld, stale                   metric.Int64ObservableUpDownCounter
	staleness                                           metric.Float64ObservableGauge
	addresses                                           metric.Int64ObservableGauge

	mu       sync.Mutex
	services map[string]*service // the services that a hook was called for, by name
}

// service is the state of one service, for the metrics that are observed. It is
// guarded by Metrics.mu, except option, which never changes.
type service struct {
	option metric.MeasurementOption // the attributes of all measurements of the service

	registers  bool           // an endpoint was registered
	registered map[string]int // the number of registrations that have an endpoint in the registry, by ID
	holds      bool           // an endpoint was held
	held       int64          // negative while Released overtakes Held
	withheld   []withheld     // one for every reason that there was
	staleSince time.Time      // zero while the endpoints are fresh
	publishes  bool           // a set of addresses was published
	addresses  int64
}

// withheld counts the endpoints of a service that are withheld for one reason. It is
// guarded by Metrics.mu, except reason and option, which never change.
type withheld struct {
	reason string
	option metric.MeasurementOption
	n      int64
}

// reasonValue returns the value of naming.withheld.reason. Package naming treats every
// reason that it does not know as maintenance.
func reasonValue(r naming.Reason) string {
	if r == naming.FailedCheck {
		return "failed_check"
	}
	return "maintenance"
}

// New makes the instruments. It returns the errors of the meter provider.
func New(opts *Options) (*Metrics, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.ErrorType == nil {
		o.ErrorType = ErrorType
	}
	m := &Metrics{
		attributes: slices.Clone(o.Attributes),
		errorType:  o.ErrorType,
		services:   make(map[string]*service),
	}
	m.all = metric.WithAttributes(m.attributes...)

	meter := o.MeterProvider.Meter(ScopeName)
	err := errors.Join(m.makeCounters(meter), m.makeObserved(meter))
	if err == nil {
		m.callback, err = meter.RegisterCallback(m.observe, m.registered, m.held, m.withheld, m.stale, m.staleness, m.addresses)
	}
	if err != nil {
		return nil, fmt.Errorf("otelnaming: %w", err)
	}
	return m, nil
}

func (m *Metrics) makeCounters(meter metric.Meter) error {
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter("naming."+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.registrations = counter("endpoint.registrations", "{registration}", "Endpoints of this process that were put into the registry.")
	m.losses = counter("endpoint.losses", "{loss}", "Endpoints of this process that the registry lost.")
	m.attempts = counter("endpoint.registration.failures", "{failure}", "Failed attempts to put endpoints of this process into the registry.")
	m.withdrawals = counter("endpoint.withdrawals", "{withdrawal}", "Endpoints of this process that were closed.")
	m.holds = counter("endpoint.holds", "{hold}", "Endpoints that vanished as in a fault of the registry and were held.")
	m.releases = counter("endpoint.releases", "{release}", "Endpoints that are no longer held.")
	m.failures = counter("watch.failures", "{failure}", "Failures of watches, and failed attempts to start them again.")
	m.resyncs = counter("watch.resyncs", "{resync}", "New watches whose first snapshot replaced a set known before.")
	m.changes = counter("watch.resync.changes", "{change}", "Endpoints changed by the first snapshots of new watches.")
	m.malformed = counter("watch.malformed.entries", "{entry}", "Entries of the registry that could not be understood and were left out.")
	m.updates = counter("resolver.updates", "{update}", "Sets of addresses handed to gRPC channels.")
	return errors.Join(errs...)
}

// makeObserved makes the instruments that observe reports.
func (m *Metrics) makeObserved(meter metric.Meter) error {
	var errs []error
	upDownCounter := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter("naming."+name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.registered = upDownCounter("endpoint.registered", "{endpoint}", "Endpoints of this process that are in the registry.")
	m.held = upDownCounter("endpoint.held", "{endpoint}", "Endpoints that vanished as in a fault of the registry and are held.")
	m.withheld = upDownCounter("endpoint.withheld", "{endpoint}", "Endpoints that the registry has and says not to use.")
	m.stale = upDownCounter("watch.stale", "{watch}", "Services whose endpoints are stale.")
	var err error
	m.staleness, err = meter.Float64ObservableGauge("naming.watch.staleness", metric.WithUnit("s"), metric.WithDescription("How long the endpoints of a service have been stale."))
	errs = append(errs, err)
	m.addresses, err = meter.Int64ObservableGauge("naming.resolver.addresses", metric.WithUnit("{address}"), metric.WithDescription("Addresses in the set that was last handed to a gRPC channel."))
	return errors.Join(append(errs, err)...)
}

// Close ends the observation: the UpDownCounters and the gauges are no longer
// reported. Call it after the Close of the Client, which resets all of them except the
// addresses. The counters go on counting. Close may be called more than once. It
// returns the error of the meter provider.
func (m *Metrics) Close() error {
	if err := m.callback.Unregister(); err != nil {
		return fmt.Errorf("otelnaming: %w", err)
	}
	return nil
}

// countWithheld adds n to the endpoints that are withheld for a reason. The caller
// holds m.mu.
func (m *Metrics) countWithheld(name string, s *service, reason naming.Reason, n int64) {
	value := reasonValue(reason)
	i := slices.IndexFunc(s.withheld, func(w withheld) bool { return w.reason == value })
	if i < 0 {
		i = len(s.withheld)
		s.withheld = append(s.withheld, withheld{reason: value, option: m.with(name, WithheldReasonKey.String(value))})
	}
	s.withheld[i].n += n
}

// register counts a registration that has its endpoint in the registry.
func (s *service) register(id string) {
	s.registers = true
	if s.registered == nil {
		s.registered = make(map[string]int)
	}
	s.registered[id]++
}

// unregister counts a registration whose endpoint left the registry. A registration
// that is withdrawn may never have had its endpoint there.
func (s *service) unregister(id string) {
	if s.registered[id] > 1 {
		s.registered[id]--
	} else {
		delete(s.registered, id)
	}
}

// note calls f with the service that has the name, and returns the attributes of the
// service. f must not block.
func (m *Metrics) note(name string, f func(*service)) metric.MeasurementOption {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[name]
	if s == nil {
		s = &service{option: m.with(name)}
		m.services[name] = s
	}
	f(s)
	return s.option
}

// with returns the attributes of a measurement of a service, and more.
func (m *Metrics) with(name string, more ...attribute.KeyValue) metric.MeasurementOption {
	attrs := make([]attribute.KeyValue, 0, len(m.attributes)+1+len(more))
	attrs = append(attrs, m.attributes...)
	if name != "" {
		attrs = append(attrs, ServiceNameKey.String(name))
	}
	return metric.WithAttributeSet(attribute.NewSet(append(attrs, more...)...))
}

func (m *Metrics) withError(name string, err error) metric.MeasurementOption {
	if err == nil {
		return m.with(name)
	}
	return m.with(name, ErrorTypeKey.String(m.errorType(err)))
}

// observe reports the UpDownCounters and the gauges. It calls the observer without the
// lock, because hooks wait for the lock.
func (m *Metrics) observe(_ context.Context, o metric.Observer) error {
	type reading struct {
		service
		registered int64
	}
	m.mu.Lock()
	readings := make([]reading, 0, len(m.services))
	for _, s := range m.services {
		r := reading{*s, int64(len(s.registered))}
		r.withheld = slices.Clone(s.withheld)
		readings = append(readings, r)
	}
	m.mu.Unlock()

	var stale int64
	for _, r := range readings {
		if r.registers {
			o.ObserveInt64(m.registered, r.registered, r.option)
		}
		if r.holds {
			// Held and Released are called from different goroutines and may
			// arrive in the wrong order.
			o.ObserveInt64(m.held, max(r.held, 0), r.option)
		}
		for _, w := range r.withheld {
			o.ObserveInt64(m.withheld, max(w.n, 0), w.option) // for the same reason
		}
		if r.publishes {
			o.ObserveInt64(m.addresses, r.addresses, r.option)
		}
		if !r.staleSince.IsZero() {
			stale++
			o.ObserveFloat64(m.staleness, time.Since(r.staleSince).Seconds(), r.option)
		}
	}
	o.ObserveInt64(m.stale, stale, m.all)
	return nil
}
