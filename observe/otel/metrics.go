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

	// Attributes are added to every measurement. They tell the registries of a
	// program apart that has several.
	Attributes []attribute.KeyValue

	// ErrorType returns the value of error.type for an error that is not nil.
	// It must return one of few values and is called as the hooks are. Nil
	// means the function [ErrorType].
	ErrorType func(error) string
}

// Metrics are the metrics of one [naming.Client]. A program with several
// makes one for each, with other Attributes.
type Metrics struct {
	attributes []attribute.KeyValue
	errorType  func(error) string
	callback   metric.Registration

	registrations, losses, withdrawals, holds, releases metric.Int64Counter
	failures, resyncs, changes, updates, attempts       metric.Int64Counter

	registered, held, withheld, stale metric.Int64ObservableUpDownCounter
	staleness                         metric.Float64ObservableGauge
	addresses                         metric.Int64ObservableGauge

	all metric.MeasurementOption // Attributes alone

	mu       sync.Mutex
	services map[string]*service
}

// service is what the observed metrics tell of a service. It is guarded by
// Metrics.mu but for option, which does not change.
type service struct {
	option metric.MeasurementOption // the attributes that all of its measurements have

	registers  bool           // an endpoint was registered
	registered map[string]int // how many registrations have an endpoint in the registry, by ID
	holds      bool           // an endpoint was held
	held       int64
	withheld   []withheld // by reason, for those that there ever were
	staleSince time.Time  // zero: it is not stale
	publishes  bool       // a set of addresses was published
	addresses  int64
}

// withheld counts the endpoints of a service that are withheld for one reason. It
// is guarded by Metrics.mu but for option, which does not change.
type withheld struct {
	reason string
	option metric.MeasurementOption
	n      int64
}

// reasonValue returns the value of naming.withheld.reason. What package naming
// treats as maintenance is reported as such.
func reasonValue(r naming.Reason) string {
	if r == naming.FailedCheck {
		return "failed_check"
	}
	return "maintenance"
}

// New makes the instruments. Its errors are those of the meter provider.
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
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	upDownCounter := func(name, unit, description string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.registrations = counter("naming.endpoint.registrations", "{registration}", "Endpoints of this process that came to be in the registry.")
	m.losses = counter("naming.endpoint.losses", "{loss}", "Endpoints of this process that the registry lost.")
	m.attempts = counter("naming.endpoint.registration.failures", "{failure}", "Failed attempts to put endpoints of this process into the registry.")
	m.withdrawals = counter("naming.endpoint.withdrawals", "{withdrawal}", "Endpoints of this process that were closed.")
	m.holds = counter("naming.endpoint.holds", "{hold}", "Endpoints that vanished as in a fault of the registry and were held.")
	m.releases = counter("naming.endpoint.releases", "{release}", "Endpoints that were held and are no more.")
	m.failures = counter("naming.watch.failures", "{failure}", "Failures of watches, and failed attempts to start them again.")
	m.resyncs = counter("naming.watch.resyncs", "{resync}", "New watches whose first snapshot replaced a set known before.")
	m.changes = counter("naming.watch.resync.changes", "{change}", "Endpoints changed by the first snapshots of new watches.")
	m.updates = counter("naming.resolver.updates", "{update}", "Sets of addresses handed to gRPC channels.")
	m.registered = upDownCounter("naming.endpoint.registered", "{endpoint}", "Endpoints of this process that are in the registry.")
	m.held = upDownCounter("naming.endpoint.held", "{endpoint}", "Endpoints that vanished as in a fault of the registry and are held.")
	m.withheld = upDownCounter("naming.endpoint.withheld", "{endpoint}", "Endpoints that the registry has and says not to use.")
	m.stale = upDownCounter("naming.watch.stale", "{watch}", "Services whose endpoints are stale.")
	var err error
	m.staleness, err = meter.Float64ObservableGauge("naming.watch.staleness", metric.WithUnit("s"), metric.WithDescription("How long the endpoints of a service have been stale."))
	errs = append(errs, err)
	m.addresses, err = meter.Int64ObservableGauge("naming.resolver.addresses", metric.WithUnit("{address}"), metric.WithDescription("Addresses in the set that was last handed to a gRPC channel."))
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("otelnaming: %w", err)
	}
	m.callback, err = meter.RegisterCallback(m.observe, m.registered, m.held, m.withheld, m.stale, m.staleness, m.addresses)
	if err != nil {
		return nil, fmt.Errorf("otelnaming: %w", err)
	}
	return m, nil
}

// Close ends the observation: the UpDownCounters and the gauges are reported no
// more. It belongs after the Close of the Client, which takes back all of them
// but the addresses. The counters go on counting. Close may be called more than
// once.
func (m *Metrics) Close() error {
	if err := m.callback.Unregister(); err != nil {
		return fmt.Errorf("otelnaming: %w", err)
	}
	return nil
}

// Hooks returns the hooks that record the metrics, for the options of one
// Client. They may be joined with others by [naming.JoinHooks].
func (m *Metrics) Hooks() *naming.Hooks {
	ctx := context.Background()
	return &naming.Hooks{
		Registered: func(info naming.RegisteredInfo) {
			m.note(info.Service, func(s *service) {
				s.registers = true
				if s.registered == nil {
					s.registered = make(map[string]int)
				}
				s.registered[info.Endpoint.ID]++
			})
			m.registrations.Add(ctx, 1, m.with(info.Service, RegistrationAgainKey.Bool(info.Again)))
		},
		Lost: func(info naming.LostInfo) {
			m.note(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
			m.losses.Add(ctx, 1, m.withError(info.Service, info.Err))
		},
		RegisterFailed: func(info naming.RegisterFailedInfo) {
			m.attempts.Add(ctx, 1, m.withError(info.Service, info.Err))
		},
		Withdrawn: func(info naming.WithdrawnInfo) {
			m.note(info.Service, func(s *service) { s.unregister(info.Endpoint.ID) })
			m.withdrawals.Add(ctx, 1, m.withError(info.Service, info.Err))
		},
		WatchFailed: func(info naming.WatchFailedInfo) {
			m.failures.Add(ctx, 1, m.withError(info.Service, info.Err))
		},
		Stale: func(info naming.StaleInfo) {
			m.note(info.Service, func(s *service) { s.staleSince = info.Since })
		},
		Resynced: func(info naming.ResyncedInfo) {
			o := m.with(info.Service)
			m.resyncs.Add(ctx, 1, o)
			m.changes.Add(ctx, int64(info.Changed), o)
		},
		Held: func(info naming.HeldInfo) {
			n := int64(len(info.Endpoints))
			o := m.note(info.Service, func(s *service) {
				s.holds = true
				s.held += n
			})
			m.holds.Add(ctx, n, o)
		},
		Released: func(info naming.ReleasedInfo) {
			n := int64(len(info.Endpoints))
			reason := "expired" // or the watch ended, which the hook does not tell apart
			if info.Back {
				reason = "back"
			}
			m.note(info.Service, func(s *service) { s.held -= n })
			m.releases.Add(ctx, n, m.with(info.Service, ReleaseReasonKey.String(reason)))
		},
		Withheld: func(info naming.WithheldInfo) {
			m.note(info.Service, func(s *service) {
				for _, w := range info.Began {
					m.countWithheld(info.Service, s, w.Reason, 1)
				}
				for _, w := range info.Ceased {
					m.countWithheld(info.Service, s, w.Reason, -1)
				}
			})
		},
		Published: func(info naming.PublishedInfo) {
			o := m.note(info.Service, func(s *service) {
				s.publishes = true
				s.addresses = int64(info.Addresses)
			})
			m.updates.Add(ctx, 1, o)
		},
	}
}

// countWithheld adds n to the endpoints that are withheld for a reason. m.mu is
// held.
func (m *Metrics) countWithheld(name string, s *service, reason naming.Reason, n int64) {
	value := reasonValue(reason)
	i := slices.IndexFunc(s.withheld, func(w withheld) bool { return w.reason == value })
	if i < 0 {
		i = len(s.withheld)
		s.withheld = append(s.withheld, withheld{reason: value, option: m.with(name, WithheldReasonKey.String(value))})
	}
	s.withheld[i].n += n
}

// unregister notes that a registration has its endpoint in the registry no
// more. A registration that is withdrawn need not have had it there.
func (s *service) unregister(id string) {
	if s.registered[id] > 1 {
		s.registered[id]--
	} else {
		delete(s.registered, id)
	}
}

// note calls f, which must be quick, with the service that has the name, and
// returns the attributes of the service.
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

// with returns the attributes of a measurement.
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

// observe reports what is not counted. The observer is called without the lock,
// for which hooks would have to wait.
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
			// Held and Released are called from different goroutines, and so
			// may come in the wrong order.
			o.ObserveInt64(m.held, max(r.held, 0), r.option)
		}
		for _, w := range r.withheld {
			o.ObserveInt64(m.withheld, max(w.n, 0), w.option) // as with those that are held
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

// ErrorType returns the value of error.type for an error that a hook was given:
//
//	lease_lost         naming.ErrLeaseLost
//	deleted            naming.ErrDeleted
//	permission_denied  naming.ErrPermission
//	invalid_argument   naming.ErrInvalid
//	registry_closed    naming.ErrClientClosed
//	timeout            context.DeadlineExceeded, or an error whose method Timeout says so
//	canceled           context.Canceled
//	_OTHER             any other
//
// The first of them that it wraps counts. A program that knows its backend can
// give a function of its own in [Options]: one that asks status.Code, for
// example, with etcd.
func ErrorType(err error) string {
	for _, c := range errorTypes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return "timeout"
	}
	return "_OTHER"
}

var errorTypes = []struct {
	err  error
	name string
}{
	{naming.ErrLeaseLost, "lease_lost"},
	{naming.ErrDeleted, "deleted"},
	{naming.ErrPermission, "permission_denied"},
	{naming.ErrInvalid, "invalid_argument"},
	{naming.ErrClientClosed, "registry_closed"},
	{context.DeadlineExceeded, "timeout"},
	{context.Canceled, "canceled"},
}
