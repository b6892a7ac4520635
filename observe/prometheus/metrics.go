package prometheusnaming

import (
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The labels of the metrics.
const (
	labelService   = "service"
	labelErrorType = "error_type"
	labelReason    = "reason"
)

// Options are the options of [New]. The zero value, and a nil pointer, mean the
// defaults.
type Options struct {
	// ConstLabels are added to every series. They distinguish the registries of a
	// program that has several.
	ConstLabels prometheus.Labels

	// DropService removes the label service from every series. Counters and gauges
	// are then the sums over all services, and the staleness is the largest of any
	// service.
	DropService bool

	// ErrorType returns the value of the label error_type for an error that is not
	// nil. It must return one of few values. It is called from hooks, so it must
	// not block and may be called concurrently. Nil means the function [ErrorType].
	ErrorType func(error) string
}

// Metrics is a prometheus.Collector with the metrics of one [naming.Client]. A program
// with several Clients makes one Metrics for each, with other ConstLabels, and
// registers all of them. All methods may be called concurrently.
type Metrics struct {
	errorType   func(error) string
	dropService bool
	closed      atomic.Bool

	counters counters
	gauges   gauges
	state    state
}

var _ prometheus.Collector = (*Metrics)(nil)

type counters struct {
	registrations, losses, withdrawals, holds, releases *prometheus.CounterVec
	failures, resyncs, changes, malformed               *prometheus.CounterVec
	updates, attempts                                   *prometheus.CounterVec
}

func (c *counters) all() []*prometheus.CounterVec {
	return []*prometheus.CounterVec{
		c.registrations, c.attempts, c.losses, c.withdrawals, c.holds, c.releases,
		c.failures, c.resyncs, c.changes, c.malformed, c.updates,
	}
}

type gauges struct {
	registered, held, withheld, stale, staleness, addresses *prometheus.Desc
}

func (g *gauges) all() []*prometheus.Desc {
	return []*prometheus.Desc{g.registered, g.held, g.withheld, g.stale, g.staleness, g.addresses}
}

// New returns metrics that the caller registers with a prometheus.Registerer. It
// returns an error if a constant label is not valid, or has the name of a label of the
// metrics.
func New(opts *Options) (*Metrics, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.ErrorType == nil {
		o.ErrorType = ErrorType
	}
	for _, name := range []string{labelService, labelErrorType, labelReason} {
		if _, ok := o.ConstLabels[name]; ok {
			return nil, fmt.Errorf("prometheusnaming: the constant label %q is a label of the metrics", name)
		}
	}
	o.ConstLabels = maps.Clone(o.ConstLabels)
	m := &Metrics{
		errorType:   o.ErrorType,
		dropService: o.DropService,
		counters:    newCounters(&o),
		gauges:      newGauges(&o),
		state:       state{services: make(map[string]*service)},
	}
	// A registry checks everything that it gets. A new one has no other metrics
	// that ours could collide with.
	if err := prometheus.NewRegistry().Register(m); err != nil {
		return nil, fmt.Errorf("prometheusnaming: %w", err)
	}
	return m, nil
}

// labels returns the names of the variable labels of a metric that has the label
// service and more.
func (o *Options) labels(more ...string) []string {
	if o.DropService {
		return more
	}
	return append([]string{labelService}, more...)
}

func newCounters(o *Options) counters {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "naming_" + name + "_total", Help: help, ConstLabels: o.ConstLabels,
		}, o.labels(labels...))
	}
	return counters{
		registrations: counter("endpoint_registrations", "Endpoints of this process that were put into the registry.", labelReason),
		attempts:      counter("endpoint_registration_failures", "Failed attempts to put endpoints of this process into the registry.", labelErrorType),
		losses:        counter("endpoint_losses", "Endpoints of this process that the registry lost.", labelErrorType),
		withdrawals:   counter("endpoint_withdrawals", "Endpoints of this process that were closed.", labelErrorType),
		holds:         counter("endpoint_holds", "Endpoints that vanished as in a fault of the registry and were held."),
		releases:      counter("endpoint_releases", "Endpoints that are no longer held.", labelReason),
		failures:      counter("watch_failures", "Failures of watches, and failed attempts to start them again.", labelErrorType),
		resyncs:       counter("watch_resyncs", "New watches whose first snapshot replaced a set known before."),
		changes:       counter("watch_resync_changes", "Endpoints changed by the first snapshots of new watches."),
		malformed:     counter("watch_malformed_entries", "Entries of the registry that could not be understood and were left out."),
		updates:       counter("resolver_updates", "Sets of addresses handed to gRPC channels."),
	}
}

func newGauges(o *Options) gauges {
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("naming_"+name, help, labels, o.ConstLabels)
	}
	return gauges{
		registered: gauge("endpoint_registered", "Endpoints of this process that are in the registry.", o.labels()...),
		held:       gauge("endpoint_held", "Endpoints that vanished as in a fault of the registry and are held.", o.labels()...),
		withheld:   gauge("endpoint_withheld", "Endpoints that the registry has and says not to use.", o.labels(labelReason)...),
		stale:      gauge("watch_stale", "Services whose endpoints are stale."),
		staleness:  gauge("watch_staleness_seconds", "How long the endpoints of a service have been stale.", o.labels()...),
		addresses:  gauge("resolver_addresses", "Addresses in the set that was last handed to a gRPC channel.", o.labels()...),
	}
}

// Close removes the gauges from what is collected. Call it after the Close of the
// Client, which resets all of them except the addresses. The counters stay and go on
// counting. Close may be called more than once. It does not unregister m.
func (m *Metrics) Close() { m.closed.Store(true) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counters.all() {
		c.Describe(ch)
	}
	for _, desc := range m.gauges.all() {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.counters.all() {
		c.Collect(ch)
	}
	if m.closed.Load() {
		return
	}
	readings, stale := m.state.read(time.Now(), m.dropService)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(m.gauges.stale, float64(stale))
	for name, r := range readings {
		service := m.labelValues(name)
		if r.registers {
			gauge(m.gauges.registered, float64(r.registered), service...)
		}
		if r.holds {
			gauge(m.gauges.held, float64(r.held), service...)
		}
		for reason, n := range r.withheld {
			gauge(m.gauges.withheld, float64(n), m.labelValues(name, reason)...)
		}
		if r.stale {
			gauge(m.gauges.staleness, r.staleness.Seconds(), service...)
		}
		if r.publishes {
			gauge(m.gauges.addresses, float64(r.addresses), service...)
		}
	}
}

// labelValues returns the values of the labels of a series of a service. Prometheus
// refuses values that are not UTF-8, and panics in some places.
func (m *Metrics) labelValues(service string, more ...string) []string {
	values := make([]string, 0, 2)
	if !m.dropService {
		values = append(values, service)
	}
	values = append(values, more...)
	for i, v := range values {
		values[i] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return values
}
